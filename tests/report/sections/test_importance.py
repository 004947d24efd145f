from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from automl_prune.report.data import collect
from automl_prune.report.sections.importance import MOST_SHOWN, importance_figure, render
from automl_prune.study.importance import Importance
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_the_most_important_come_first_and_the_rest_is_summed() -> None:
    front = {f"p{number:02}": (number + 1) / 210 for number in range(20)}
    found = Importance(score=dict.fromkeys(front, 0.05), front=front, trials=100)
    together, alone = importance_figure(found, "accuracy").data
    assert list(together.y) == [f"p{number:02}" for number in range(19, 19 - MOST_SHOWN, -1)]
    assert list(together.x) == sorted(together.x, reverse=True)
    assert set(alone.x) == {5.0}


def test_too_few_trials_say_so(make_record: MakeRecord) -> None:
    html = render(collect(make_record(trials=10, finalists=0), Path("runs/x")))
    assert "20 completed trials" in html
    assert "figure" not in html
