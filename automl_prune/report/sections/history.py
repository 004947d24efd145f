"""Growth of the area that the front at rung 0 dominates, against the baselines."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from automl_prune.front import FrontPoint, ParetoFront, hypervolume_history, reference_point
from automl_prune.report.data import Missing, ReportData
from automl_prune.report.figures import BLUE, ORANGE, style
from automl_prune.report.markup import figure, missing
from automl_prune.report.table import completed
from automl_prune.report.words import cost_label, percent
from automl_prune.study.record import StudyRecord


@dataclass(frozen=True, slots=True)
class History:
    """The growth of the front at rung 0, where all trials compare.

    Attributes:
        trials: Numbers of the completed trials, in order.
        values: Hypervolume after each, as a fraction of the rectangle between the reference and (no cost, the dense
            model's score).
        baselines: What the baselines alone reach; None without a feasible one.
        baseline_trials: Which of ``trials`` are baselines.
        reference: (score, cost), see ``front.reference_point``.
    """

    trials: tuple[int, ...]
    values: tuple[float, ...]
    baselines: float | None
    baseline_trials: tuple[int, ...]
    reference: tuple[float, float]


def render(data: ReportData) -> str:
    """Growth of the dominated area over the trials, against the baselines."""
    past, context = growth(data.record), data.context
    if isinstance(past, Missing):
        return missing(past.reason)
    final = past.values[-1]
    if past.baselines is None:
        level = "No baseline is under the budget."
    elif past.baselines > 0 and final > past.baselines:
        first = next(t for t, v in zip(past.trials, past.values, strict=True) if v > past.baselines)
        level = f"The baselines alone reach {percent(past.baselines)}; trial {first} is the first to pass that."
    else:
        level = f"The baselines alone reach {percent(past.baselines)}; the search adds nothing to them."
    caption = (
        f"Area dominated by the front without training, rung 0 (hypervolume), in per cent of the rectangle from the "
        f"reference point ({context.metric.name} {context.metric.show(past.reference[0])}, "
        f"{'half' if context.metric.higher_is_better else 'twice'} the dense model's; the dense model's "
        f"{cost_label(context.cost)}) to the dense model's score at no cost. It ends at {percent(final)}. {level}"
    )
    return figure("figure-history", history_figure(past), caption)


def figures(data: ReportData) -> dict[str, go.Figure]:
    """The curve."""
    past = growth(data.record)
    return {} if isinstance(past, Missing) else {"history": history_figure(past)}


def growth(record: StudyRecord) -> History | Missing:
    """The growth of the front at rung 0, in order of the trials."""
    context = record.context
    points = [
        FrontPoint(
            trial.number, evaluation.rungs[0].score.value, evaluation.costs[context.cost].value,
            bool(trial.feasible), 0,
        )
        for trial, evaluation in completed(record)
    ]  # fmt: skip
    if len(points) < 2:
        return Missing("A history needs at least two completed trials.")
    higher = context.metric.higher_is_better
    reference = reference_point(context.dense_val.value, context.dense_costs[context.cost], higher_is_better=higher)
    dense = ParetoFront((FrontPoint(-1, context.dense_val.value, 0.0, True, 0),), higher).hypervolume(reference)
    if dense <= 0:
        return Missing("The dense model's score is 0, so there is no scale for a history.")
    if not any(point.feasible for point in points):
        return Missing("No completed trial meets the budget, so there is no front that could grow.")
    values = hypervolume_history(points, reference, higher_is_better=higher)
    baselines = {trial.number for trial in record.trials if trial.origin != "search"}
    rivals = [point for point in points if point.trial in baselines and point.feasible]
    level = ParetoFront.of(rivals, higher_is_better=higher).hypervolume(reference) / dense if rivals else None
    return History(
        trials=tuple(point.trial for point in points),
        values=tuple(value / dense for value in values),
        baselines=level,
        baseline_trials=tuple(point.trial for point in points if point.trial in baselines),
        reference=reference,
    )


def history_figure(history: History) -> go.Figure:
    """Best-so-far hypervolume by trial, with what the baselines reach alone."""
    figure = go.Figure()
    figure.add_scatter(
        x=list(history.trials),
        y=[100 * value for value in history.values],
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        name="all trials so far",
        hovertemplate="trial %{x}<br>%{y:.2f} %<extra></extra>",
    )
    at = dict(zip(history.trials, history.values, strict=True))
    if history.baseline_trials:
        figure.add_scatter(
            x=list(history.baseline_trials),
            y=[100 * at[trial] for trial in history.baseline_trials],
            mode="markers",
            marker={"color": ORANGE, "symbol": "square", "size": 8},
            name="a baseline was tried",
            hovertemplate="trial %{x} is a baseline<br>%{y:.2f} %<extra></extra>",
        )
    if history.baselines is not None:
        figure.add_scatter(
            x=[history.trials[0], history.trials[-1]],
            y=[100 * history.baselines] * 2,
            mode="lines",
            line={"color": ORANGE, "width": 1.5, "dash": "dash"},
            name="baselines alone",
            hovertemplate="baselines alone<br>%{y:.2f} %<extra></extra>",
        )
    style(figure, height=360)
    figure.update_xaxes(title="trial number")
    figure.update_yaxes(title="dominated area [% of dense]", ticksuffix=" ")
    return figure
