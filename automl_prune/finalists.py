"""The last stage: the best candidates of a study, fine-tuned longer with several seeds, exported and verified."""

from __future__ import annotations

from automl_prune.front import ParetoFront
from automl_prune.report.table import completed, search_points
from automl_prune.study.record import Finalist, StudyRecord


def choose(record: StudyRecord, count: int) -> tuple[int, ...]:
    """The trials that earn a long fine-tuning: spread over the front, and the best baseline to compare with.

    The front's best under the budget comes first, then its points at evenly spread ranks of cost. The best
    baseline by validation score takes part even when it is not on the front, so that the result can be set
    against it after equal training; it comes on top of ``count``.

    Args:
        record: The finished search.
        count: How many of the front's points, at least 1.

    Returns:
        Trial numbers, best first; empty when nothing is feasible.
    """
    metric = record.context.metric
    front = ParetoFront.of(search_points(record), higher_is_better=metric.higher_is_better)
    by_cost = [point.trial for point in front.points]
    best = front.best()
    if best is None:
        return ()
    chosen = [best.trial]
    wanted = min(count, len(by_cost))
    for step in range(wanted):
        rank = round(step * (len(by_cost) - 1) / max(1, wanted - 1))
        if by_cost[rank] not in chosen and len(chosen) < wanted:
            chosen.append(by_cost[rank])
    chosen += [trial for trial in reversed(by_cost) if trial not in chosen][: wanted - len(chosen)]
    baseline = best_baseline(record)
    if baseline is not None and baseline not in chosen:
        chosen.append(baseline)
    return tuple(chosen)


def best_baseline(record: StudyRecord) -> int | None:
    """The feasible baseline trial with the best validation score, or None."""
    metric = record.context.metric
    sign = 1 if metric.higher_is_better else -1
    rows = [(sign * e.score.value, -t.number) for t, e in completed(record) if t.feasible and t.origin != "search"]
    return -max(rows)[1] if rows else None


def exported_run(finalist: Finalist, *, higher_is_better: bool) -> int:
    """Which run is exported: the index of the seed with the best validation score."""
    values = [run.val.value if higher_is_better else -run.val.value for run in finalist.runs]
    return max(range(len(values)), key=values.__getitem__)
