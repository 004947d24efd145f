"""What the report's figures in plotly share; colours of text and lines are left to the page's style."""

from __future__ import annotations

import plotly.graph_objects as go

from automl_prune.study.record import StudyContext

# Okabe and Ito's palette, those of its colours that stand out on white and on near-black alike; each also has a shape.
BLUE, ORANGE, GREEN, GREY, YELLOW = "#2f86c9", "#d55e00", "#009e73", "#8a919c", "#e69f00"


def style(figure: go.Figure, height: int) -> None:
    """The look all figures share; colours of text and grid come from the page."""
    figure.update_layout(
        template={"layout": {axis: {"title": {"font": {"size": 13}}} for axis in ("xaxis", "yaxis")}},
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 95},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0,
            "x": 0,
            "bgcolor": "rgba(0,0,0,0)",
        },
        hoverlabel={"bgcolor": "#20262e", "bordercolor": "#20262e", "align": "left", "font": {"color": "#f2f4f7"}},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, zeroline=False, gridwidth=1)
    figure.update_yaxes(automargin=True, zeroline=False, gridwidth=1)


def scaled(context: StudyContext, value: float) -> float:
    """A score as it is drawn: in per cent where people read the metric so."""
    return 100 * value if context.metric.percent else value
