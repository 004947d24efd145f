"""The report's figures by themselves: as SVG and PNG for papers and slides, through plotly's own exporter, and live."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from automl_prune.errors import ReportError
from automl_prune.files import published
from automl_prune.report.data import ReportData, collect
from automl_prune.report.sections import ORDER, front, history
from automl_prune.study.record import StudyRecord

FORMATS = ("svg", "png")
SCALE = 2
"""Pixels of a PNG per point of the figure."""

WIDTH = 900
"""Of a figure, in points."""


def write_figures(record: StudyRecord, directory: Path) -> tuple[Path, ...]:
    """Write every figure that the study has data for, replacing those of an earlier call as a whole.

    Args:
        record: The study as of reading.
        directory: Where the files go, ``front_search_macs.svg`` and so on; its parent is the run directory.

    Returns:
        The files, in the order of the page.

    Raises:
        ReportError: The exporter or a browser for it is missing; the message names what to install. Nothing is
            written then, nor when no trial has completed.
    """
    if importlib.util.find_spec("kaleido") is None:
        raise ReportError(
            "static figures need kaleido, which is not installed; install it: pip install 'automl-prune[figures]'"
        )
    figures = dict(static_figures(collect(record, directory.parent)))
    if not figures:
        raise ReportError(f"study {record.context.name!r} has no completed trial yet, so there is no figure to write")
    names = [f"{name}.{kind}" for name in figures for kind in FORMATS]
    drawings = [figure for figure in figures.values() for _ in FORMATS]
    heights = [figure.layout.height for figure in drawings]
    with published(directory) as folder:
        try:
            files = [folder / name for name in names]
            plotly.io.write_images(drawings, files, scale=SCALE, width=WIDTH, height=heights)
        except RuntimeError as error:
            raise ReportError(
                "static figures are drawn by Chrome or Chromium, which could not be started; install one (Debian: apt "
                "install chromium) or name it in the environment variable BROWSER_PATH. The report itself needs none "
                f"({str(error).strip().splitlines()[0]})"
            ) from error
    return tuple(directory / name for name in names)


def static_figures(data: ReportData) -> Iterator[tuple[str, go.Figure]]:
    """Names and figures on white paper, in the order of the page; what the study has no data for is left out."""
    for part in ORDER:
        for name, drawing in part.figures(data).items():
            yield name, _on_paper(drawing)


def dashboard_figures(record: StudyRecord, run_dir: Path) -> dict[str, go.Figure]:
    """The front by the study's own cost, and its growth, for a page without the report's captions and cards.

    Args:
        record: The study as of reading.
        run_dir: Where it lives.

    Returns:
        Figures by name; none before a trial has completed.
    """
    data, cost = collect(record, run_dir), record.context.cost
    drawn = front.figures(data) | history.figures(data)
    titles = {
        f"front_finalists_{cost}": "Front within the budget: finalists, test split",
        f"front_search_{cost}": "Front within the budget: all trials, validation split",
        "history": "Growth of the front without training (hypervolume)",
    }
    found = {name: drawn[name] for name in titles if name in drawn}
    for name, drawing in found.items():
        _on_paper(drawing).update_layout(title=titles[name], margin={"t": 60})
    return found


def _on_paper(figure: go.Figure) -> go.Figure:
    """The page's style sheet gives text and grid their colours; here they are set."""
    figure.update_layout(paper_bgcolor="#ffffff", font={"color": "#1b2027"})
    figure.update_xaxes(gridcolor="#e6e9ed")
    figure.update_yaxes(gridcolor="#e6e9ed")
    return figure
