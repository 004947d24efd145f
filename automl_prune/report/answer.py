"""The answer: which model to take, what it loses, and whether the search was worth it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from automl_prune.costs import Cost
from automl_prune.report.estimate import Estimate
from automl_prune.report.table import FrontRow, completed, finalist_table, front, front_table, trial_row
from automl_prune.report.words import comparison, cost_label, cost_value, percent, plural
from automl_prune.study.record import StudyContext, StudyRecord, TrialRecord

Kind = Literal["finalist", "search", "closest", "nothing"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The chosen model against another one, on one split.

    Attributes:
        name: Of the other model, in words.
        trial: Its number; None for the dense model.
        gain: Difference of the scores, turned so that positive means the chosen model is better.
    """

    name: str
    trial: int | None
    gain: Estimate

    @property
    def significant(self) -> bool | None:
        """Whether the 95 % interval leaves out zero; None without an interval."""
        interval = self.gain.interval
        return None if interval is None else interval[0] > 0 or interval[1] < 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader wants to know first.

    Attributes:
        kind: A fine-tuned finalist, the best of an unfinished search, the closest miss, or nothing at all.
        row: The chosen model; None when no trial completed.
        split: The split that ``score`` and the comparisons are on.
        score: Of the chosen model.
        dense: Against the dense model.
        baseline: Against the best baseline at the same stage; None when there is none or it was chosen itself.
        headline: One sentence.
        verdict: One sentence on the search against the baselines.
        caveats: What the numbers do and do not cover, one sentence each.
    """

    kind: Kind
    row: FrontRow | None
    split: Literal["test", "val"]
    score: Estimate | None
    dense: Comparison | None
    baseline: Comparison | None
    headline: str
    verdict: str
    caveats: tuple[str, ...]


def answer(record: StudyRecord, exported: Mapping[int, Cost] | None = None) -> Answer:
    """The answer a study gives so far; ``exported`` has the latencies of exported models by trial."""
    finalists = finalist_table(record, exported)
    if finalists:
        return _answer(record, "finalist", _best(record, finalists), finalists)
    searched = front_table(record, "search")
    if searched:
        rivals = [trial_row(record, trial.number) for trial in _best_baselines(record)]
        return _answer(record, "search", _best(record, searched), rivals)
    near = closest(record)
    if near is not None:
        return _answer(record, "closest", trial_row(record, near.number), [])
    failed = sum(trial.state == "failed" for trial in record.trials)
    headline = f"No trial has completed ({failed} of {plural(len(record.trials), 'trial')} failed): no model to choose."
    return Answer("nothing", None, "val", None, None, None, headline, "There is nothing to compare.", ())


def closest(record: StudyRecord) -> TrialRecord | None:
    """The completed trial that misses its budgets by the least (largest ratio of cost to limit); None if none is."""
    trials = [trial for trial, _ in completed(record)]
    return min(trials, key=lambda trial: (excess(record.context, trial), trial.number), default=None)


def excess(context: StudyContext, trial: TrialRecord) -> float:
    """The largest ratio of a cost to its limit; above 1 a budget is missed."""
    if trial.evaluation is None:
        raise ValueError(f"trial {trial.number} is {trial.state} and has no costs")
    costs = trial.evaluation.costs
    return max((costs[name].value / limit for name, limit in context.limits.items() if name in costs), default=1.0)


def gain(record: StudyRecord, ours: Estimate, theirs: Estimate) -> Estimate:
    """How much better ``ours`` is, positive when better, whichever way the metric points."""
    return ours.minus(theirs) if record.context.metric.higher_is_better else theirs.minus(ours)


def _best(record: StudyRecord, rows: Iterable[FrontRow]) -> FrontRow:
    """Best mean validation score; at equal score the cheaper, then the earlier model."""
    sign = 1 if record.context.metric.higher_is_better else -1
    return min(rows, key=lambda row: (-sign * row.val.value, row.costs[record.context.cost].value, row.trial))


def _best_baselines(record: StudyRecord) -> list[TrialRecord]:
    """The feasible baselines at the rung of the search's front, which alone compare with it."""
    rung = front(record, "search").rung
    return [t for t, e in completed(record) if t.feasible and t.origin != "search" and e.rung == rung]


def _answer(record: StudyRecord, kind: Kind, row: FrontRow, rivals: list[FrontRow]) -> Answer:
    context = record.context
    split: Literal["test", "val"] = "test" if kind == "finalist" else "val"
    score = _score(row)
    reference = context.dense_test if split == "test" else context.dense_val
    dense = Comparison("the dense model", None, gain(record, score, Estimate.of([reference])))
    baselines = [rival for rival in rivals if rival.is_baseline]
    baseline = None
    if baselines and not row.is_baseline:
        rival = _best(record, baselines)
        baseline = Comparison(f"{rival.origin}, trial {rival.trial}", rival.trial, gain(record, score, _score(rival)))
    headline = _headline(context, kind, row, dense)
    verdict = _verdict(context, kind, row, baseline)
    caveats = tuple(_caveats(kind, score, dense, baseline))
    return Answer(kind, row, split, score, dense, baseline, headline, verdict, caveats)


def _score(row: FrontRow) -> Estimate:
    return row.test if row.test is not None else row.val


def _headline(context: StudyContext, kind: Kind, row: FrontRow, dense: Comparison) -> str:
    cost = row.costs[context.cost]
    size = f"{percent(cost.ratio)} of the dense model's {cost_label(context.cost)}"
    if kind != "closest":
        change = comparison(context.metric, dense.gain, "the dense model's")
        return f"Trial {row.trial} needs {size}; its {context.metric.name} is {change}."
    misses = [
        f"{cost_value(name, row.costs[name].value)} {cost_label(name)} where at most {cost_value(name, limit)} "
        "are allowed"
        for name, limit in context.limits.items()
        if name in row.costs and row.costs[name].value > limit
    ]
    why = f" It has {' and '.join(misses)}." if misses else ""
    return f"No completed trial meets the budget. Trial {row.trial} comes closest, with {size}.{why}"


def _verdict(context: StudyContext, kind: Kind, row: FrontRow, baseline: Comparison | None) -> str:
    stage = {"finalist": "finalists", "search": "completed trials"}.get(kind)
    if stage is None:
        return "Nothing meets the budget, so there is nothing to compare with the baselines."
    if row.is_baseline:
        return f"The search found nothing better: the best of the {stage} is the baseline {row.origin} itself."
    if baseline is None:
        return f"No baseline is among the {stage}, so the search cannot be compared with one."
    change = f"its {context.metric.name} is {comparison(context.metric, baseline.gain, f'that of {baseline.name}')}"
    if baseline.significant is None:
        return f"Against the best baseline {change}; whether that is more than noise is not known."
    if not baseline.significant:
        return f"No significant gain over the best baseline: {change}."
    side = "better" if baseline.gain.value > 0 else "worse"
    return f"Significantly {side} than the best baseline: {change}."


def _caveats(kind: Kind, score: Estimate, dense: Comparison, baseline: Comparison | None) -> Iterable[str]:
    if kind == "finalist":
        yield "Models were chosen by their mean score on the validation split and are reported on the test split."
    else:
        yield (
            "This score is on the validation split, on which the model was also chosen, so it flatters; "
            "there are no finalists, which would be scored on the test split."
        )
    covered = {"seeds": "fine-tuning with another seed", "data": "drawing other samples for the split"}
    if score.sources:
        causes = " and ".join(covered[source] for source in score.sources)
        how = (
            "are taken sample by sample on the same data"
            if dense.gain.paired
            else "treat the two models as independent, which errs on the wide side"
        )
        yield f"Intervals cover {causes}; differences {how}."
    else:
        yield "No interval: there is one seed, and the task gives no standard error."
    if "seeds" not in score.sources:
        yield "With one seed, the variation between training runs is unknown and not in the interval."
    elif baseline is not None and baseline.gain.seeds == 1:
        yield "The baseline was fine-tuned with one seed; its variation between training runs is not in the interval."
