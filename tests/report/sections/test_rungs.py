from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automl_prune.evaluation.record import Evaluation
from automl_prune.report.data import Missing, collect
from automl_prune.report.sections.rungs import Agreement, agreement_figure, agreements, render
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def without_rung_1(record: StudyRecord, *numbers: int) -> StudyRecord:
    trials = list(record.trials)
    for number in numbers:
        evaluation = trials[number].evaluation
        assert evaluation is not None
        trials[number] = replace(trials[number], evaluation=replace(evaluation, rungs=evaluation.rungs[:1]))
    return replace(record, trials=tuple(trials))


def with_noise(record: StudyRecord) -> StudyRecord:
    """Rung 0 no longer equals rung 1 less a constant."""
    rng = np.random.default_rng(1)

    def noisy(evaluation: Evaluation) -> Evaluation:
        first = evaluation.rungs[0]
        score = replace(first.score, value=first.score.value + float(rng.normal(0, 0.01)))
        return replace(evaluation, rungs=(replace(first, score=score), *evaluation.rungs[1:]))

    trials = tuple(replace(t, evaluation=noisy(t.evaluation)) if t.evaluation else t for t in record.trials)
    return replace(record, trials=trials)


def test_the_correlation_is_that_of_the_ranks_of_what_climbed(make_record: MakeRecord) -> None:
    record = without_rung_1(with_noise(make_record()), 6, 7)
    trials, finalists = agreements(record)
    assert isinstance(trials, Agreement)
    assert isinstance(finalists, Agreement)
    both = {t.number: t.evaluation for t in record.trials if t.evaluation and t.evaluation.rung == 1}
    assert trials.trials == tuple(both)
    low, high = (np.argsort(np.argsort([e.rungs[rung].score.value for e in both.values()])) for rung in (0, 1))
    expected = 1 - 6 * float(((low - high) ** 2).sum()) / (len(both) * (len(both) ** 2 - 1))
    assert trials.spearman == pytest.approx(expected, abs=0.01), "up to ties"
    assert finalists.rungs == (1, 2)
    assert set(finalists.trials) == {f.trial for f in record.finalists}
    at = finalists.trials.index(record.finalists[0].trial)
    assert finalists.scores[1][at] == pytest.approx(np.mean([run.val.value for run in record.finalists[0].runs]))


def test_what_shares_an_evaluation_counts_once(make_record: MakeRecord) -> None:
    record = make_record()
    reused = tuple(replace(t, reused_from=6) if t.number == 7 else t for t in record.trials)
    found, _ = agreements(replace(record, trials=reused))
    assert isinstance(found, Agreement)
    assert 7 not in found.trials


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 19, "failures": False}, "needs 20 models that have both; there are 19"),
        ({"finalists": 4}, "needs 5 models that have both; there are 4"),
        ({"finalists": 0}, "there are 0"),
    ],
)
def test_too_few_say_so(make_record: MakeRecord, changes: dict[str, int], words: str) -> None:
    record = make_record(**changes)
    assert any(isinstance(found, Missing) and words in found.reason for found in agreements(record))
    assert words in render(collect(record, Path("x")))


def test_equal_scores_have_no_order(make_record: MakeRecord) -> None:
    record = make_record()
    first = next(t.evaluation.rungs[0] for t in record.trials if t.evaluation)
    trials = tuple(
        replace(t, evaluation=replace(t.evaluation, rungs=(first, *t.evaluation.rungs[1:]))) if t.evaluation else t
        for t in record.trials
    )
    found, _ = agreements(replace(record, trials=trials))
    assert isinstance(found, Missing)
    assert "no order to compare" in found.reason


def test_the_figure_holds_every_pair(make_record: MakeRecord) -> None:
    record = make_record()
    found, _ = agreements(record)
    assert isinstance(found, Agreement)
    (marks,) = agreement_figure(record.context, found).data
    assert list(marks.customdata) == list(found.trials)
    assert list(marks.y) == [100 * value for value in found.scores[1]]
    page = render(collect(record, Path("x")))
    assert f"of {len(found.trials)} models" in page
    assert "lowers the correlation" in page
