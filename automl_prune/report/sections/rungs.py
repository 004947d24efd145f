"""How well a lower rung predicts the order of models at the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from automl_prune.report.data import Missing, ReportData
from automl_prune.report.estimate import Estimate
from automl_prune.report.figures import BLUE, scaled, style
from automl_prune.report.hover import safe
from automl_prune.report.markup import figure, missing, paragraph
from automl_prune.report.table import FINALIST_RUNG, completed, front
from automl_prune.report.words import plural
from automl_prune.study.record import StudyContext, StudyRecord

LEAST_TRIALS = 20
"""Fewer trials say little: of 20 without any relation, one in twenty samples has a rank correlation beyond 0.45."""
LEAST_FINALISTS = 5
"""Finalists are few by nature; the number stands beside the correlation."""

_WHEN = {0: "at rung 0 (no training)", 1: "at rung 1 (short fine-tuning)", FINALIST_RUNG: "as finalists"}
_RESTRICTED = (
    "Only models that were good at the lower rung have climbed to the higher one. That narrows the range of the lower "
    "scores and so lowers the correlation: among all models it would be higher."
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Validation scores of the same models at two rungs.

    Attributes:
        rungs: The lower and the higher one.
        trials: Numbers of the models' trials.
        scores: At the lower and at the higher rung, in the order of ``trials``; of a finalist the mean over its seeds.
        spearman: Rank correlation, in [-1, 1].
    """

    rungs: tuple[int, int]
    trials: tuple[int, ...]
    scores: tuple[tuple[float, ...], tuple[float, ...]]
    spearman: float


def render(data: ReportData) -> str:
    """The rank correlation between neighbouring rungs, each with its scatter plot."""
    found = agreements(data.record)
    parts = [paragraph(_RESTRICTED, "soft")] if any(isinstance(part, Agreement) for part in found) else []
    for part in found:
        if isinstance(part, Missing):
            parts.append(missing(part.reason))
        else:
            low, high = part.rungs
            caption = (
                f"Validation {data.context.metric.name} {_WHEN[low]} and {_WHEN[high]} of "
                f"{plural(len(part.trials), 'model')}: Spearman's rank correlation is {part.spearman:.2f}."
            )
            parts.append(figure(f"figure-rungs-{low}-{high}", agreement_figure(data.context, part), caption))
    return "\n".join(parts)


def figures(data: ReportData) -> dict[str, go.Figure]:
    """The scatter plots."""
    return {
        f"rungs_{part.rungs[0]}_{part.rungs[1]}": agreement_figure(data.context, part)
        for part in agreements(data.record)
        if isinstance(part, Agreement)
    }


def agreements(record: StudyRecord) -> tuple[Agreement | Missing, ...]:
    """Rung 0 against rung 1, and the search's highest rung against the finalists.

    Models that share their evaluation with an earlier one are left out, so that none counts twice.
    """
    top = front(record, "search").rung or 0
    finalists = {f.trial: Estimate.of([run.val for run in f.runs]).value for f in record.finalists}
    return (
        _agreement((0, 1), _scores(record, 0), _scores(record, 1), LEAST_TRIALS),
        _agreement((top, FINALIST_RUNG), _scores(record, top), finalists, LEAST_FINALISTS),
    )


def _scores(record: StudyRecord, number: int) -> dict[int, float]:
    """By trial, what it scored at one rung of the search."""
    return {
        trial.number: rung.score.value
        for trial, evaluation in completed(record)
        if trial.reused_from is None
        for rung in evaluation.rungs
        if rung.rung == number
    }


def _agreement(
    rungs: tuple[int, int], low: dict[int, float], high: dict[int, float], least: int
) -> Agreement | Missing:
    from scipy.stats import spearmanr  # takes a second to load, which only a report should cost

    trials = tuple(sorted(low.keys() & high.keys()))
    where = f"{_WHEN[rungs[0]]} and {_WHEN[rungs[1]]}"
    if len(trials) < least:
        return Missing(
            f"The rank correlation of scores {where} needs {least} models that have both; "
            f"there {'is' if len(trials) == 1 else 'are'} {len(trials)}."
        )
    scores = tuple(low[trial] for trial in trials), tuple(high[trial] for trial in trials)
    if any(np.ptp(values) == 0 for values in scores):
        return Missing(f"Scores {where}: one of them is the same for all models, so there is no order to compare.")
    return Agreement(rungs, trials, scores, float(spearmanr(*scores).statistic))


def agreement_figure(context: StudyContext, agreement: Agreement) -> go.Figure:
    """A mark for every model: its score at the lower rung, and at the higher one."""
    drawing = go.Figure()
    low, high = agreement.scores
    drawing.add_scatter(
        x=[scaled(context, value) for value in low],
        y=[scaled(context, value) for value in high],
        customdata=list(agreement.trials),
        mode="markers",
        marker={"color": BLUE, "symbol": "circle-open", "size": 8, "line": {"width": 1.5}},
        name="models",
        hovertemplate="trial %{customdata}<br>%{x:.4~g} to %{y:.4~g}<extra></extra>",
    )
    style(drawing, height=380)
    unit = " [%]" if context.metric.percent else ""
    titles = [safe(f"{context.metric.name}{unit}, {_WHEN[rung]}") for rung in agreement.rungs]
    drawing.update_xaxes(title=titles[0])
    drawing.update_yaxes(title=titles[1])
    return drawing
