from __future__ import annotations

from dataclasses import replace

import numpy as np

from automl_prune.costs import Cost
from automl_prune.study.importance import FEWEST, MOST, importance
from automl_prune.study.record import StudyRecord
from automl_prune.tasks.base import Score
from tests.report.conftest import Recipe, make


def planted(trials: int, *, higher_is_better: bool = True) -> StudyRecord:
    """A study whose score depends on ``a`` alone and whose cost on ``b`` alone; ``same`` never varies."""
    record = make(Recipe(trials=trials, finalists=0, failures=False))
    rng = np.random.default_rng(0)
    found = []
    for trial in record.trials:
        assert trial.evaluation is not None
        a, b = (float(rng.uniform()) for _ in range(2))
        rungs = (replace(trial.evaluation.rungs[0], score=Score(a if higher_is_better else -a, 100)),)
        costs = {"macs": Cost("macs", 1 + b, 2.0)}
        point: dict[str, float | str] = {
            "a": a,
            "b": b,
            "idle": float(rng.uniform()),
            "same": 3.0,
            "word": str(rng.choice(["x", "y"])),
        }
        found.append(replace(trial, point=point, evaluation=replace(trial.evaluation, rungs=rungs, costs=costs)))
    metric = replace(record.context.metric, higher_is_better=higher_is_better)
    return replace(record, trials=tuple(found), context=replace(record.context, metric=metric))


def test_what_decides_the_score_is_found_whichever_way_the_metric_points() -> None:
    for higher in (True, False):
        found = importance(planted(200, higher_is_better=higher))
        assert found is not None
        assert max(found.score, key=lambda name: found.score[name]) == "a"
        assert found.score["a"] > 0.8
        assert {"a", "b"} == set(sorted(found.front, key=lambda name: -found.front[name])[:2])
        assert set(found.score) == {"a", "b", "idle", "word"}, "what never varies has no importance"
        assert abs(sum(found.front.values()) - 1) < 1e-9


def test_few_trials_give_none_and_many_are_thinned() -> None:
    assert importance(planted(FEWEST - 1)) is None
    found = importance(planted(MOST + 300))
    assert found is not None
    assert found.trials == MOST
