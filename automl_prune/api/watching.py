"""From a study's records to what its watchers are told: trials that ended, the front so far, how far it is."""

from __future__ import annotations

from automl_prune.front import ParetoFront
from automl_prune.report.estimate import Estimate
from automl_prune.report.table import completed, search_points
from automl_prune.study.record import StudyRecord, TrialRecord
from automl_prune.study.spec import StudySpec
from automl_prune.view import FinalistTrained, FrontSoFar, SearchStarted, Spot, Stage, TrialEnded, View


class Watcher:
    """Tells a view what is new in a study, whoever worked on it.

    Args:
        view: Told of the search's start, of trials and fronts.
        stage: Told how many trials are finished.
        spec: What is searched.
        before: The study as an earlier session left it, whose trials are no news; None for a new one.
    """

    def __init__(self, view: View, stage: Stage, spec: StudySpec, before: StudyRecord | None) -> None:
        self._view, self._stage = view, stage
        self._seen = {trial.number for trial in _ended(before)} if before else set()
        view.tell(_search_started(spec, before))
        if before:
            self.look(before)

    def look(self, record: StudyRecord) -> None:
        """Compare with what was seen before, and tell the difference."""
        ended = _ended(record)
        for trial in ended:
            if trial.number not in self._seen:
                self._view.tell(_trial_ended(trial, len(ended), record.requested))
        self._seen = {trial.number for trial in ended}
        front = _front(record)
        self._view.tell(front)
        metric = record.context.metric
        best = f"best {metric.name} {metric.show(front.points[-1].score)}" if front.points else ""
        self._stage(len(ended), record.requested, best)


def finalist_trained(record: StudyRecord, trial: int) -> FinalistTrained:
    """What there is to tell of a finalist."""
    runs = next(finalist.runs for finalist in record.finalists if finalist.trial == trial)
    origin = next(known.origin for known in record.trials if known.number == trial)
    val, test = Estimate.of([run.val for run in runs]), Estimate.of([run.test for run in runs])
    return FinalistTrained(trial, origin, len(runs), val.value, val.interval, test.value, test.interval)


def _ended(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.state in ("complete", "failed")]


def _search_started(spec: StudySpec, before: StudyRecord | None) -> SearchStarted:
    context, ended = spec.context, _ended(before) if before else []
    metric = context.metric
    return SearchStarted(
        study=context.name,
        config=context.config,
        environment=context.environment,
        metric=metric.name,
        percent=metric.percent,
        higher_is_better=metric.higher_is_better,
        cost=context.cost,
        limits=context.limits,
        dense_costs=context.dense_costs,
        dense_val=context.dense_val.value,
        dense_test=context.dense_test.value,
        requested=spec.requested,
        earlier=tuple(_trial_ended(trial, count, spec.requested) for count, trial in enumerate(ended, 1)),
    )


def _trial_ended(trial: TrialRecord, finished: int, requested: int) -> TrialEnded:
    evaluation = trial.evaluation
    if evaluation is None:
        return TrialEnded(trial.number, trial.state, trial.origin, finished, requested, reason=trial.reason)
    costs = {name: cost.value for name, cost in evaluation.costs.items()}
    score = evaluation.score.value
    return TrialEnded(
        trial.number, trial.state, trial.origin, finished, requested, score, costs,
        feasible=trial.feasible, rung=evaluation.rung, untrained=evaluation.rungs[0].score.value,
    )  # fmt: skip


def _front(record: StudyRecord) -> FrontSoFar:
    context = record.context
    metric, cost = context.metric, context.cost
    front = ParetoFront.of(search_points(record), higher_is_better=metric.higher_is_better)
    spots = {
        trial.number: Spot(trial.number, evaluation.costs[cost].ratio, evaluation.score.value, trial.origin)
        for trial, evaluation in completed(record)
        if trial.feasible and evaluation.rung == front.rung
    }
    return FrontSoFar(
        metric.name,
        metric.percent,
        metric.higher_is_better,
        cost,
        tuple(spots[number] for number in front.trials),
        tuple(spot for number, spot in spots.items() if number not in front.trials),
    )
