from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from automl_prune.report.answer import answer, closest, excess
from automl_prune.study.record import Finalist, FinalistRun, StudyRecord
from automl_prune.tasks.base import Score

MakeRecord = Callable[..., StudyRecord]


def with_finalists(record: StudyRecord, scores: dict[int, tuple[float, float]], error: float) -> StudyRecord:
    """The record with finalists of exactly these (validation, test) scores, two equal seeds each."""
    finalists = tuple(
        Finalist(trial, tuple(FinalistRun(s, Score(val, 100, error), Score(test, 100, error), 1, 1.0) for s in (0, 1)))
        for trial, (val, test) in scores.items()
    )
    return replace(record, finalists=finalists)


def test_chosen_on_validation_reported_on_test(make_record: MakeRecord) -> None:
    record = with_finalists(make_record(), {13: (0.92, 0.90), 22: (0.91, 0.95)}, 0.001)
    found = answer(record)
    assert found.row is not None
    assert (found.kind, found.row.trial, found.split) == ("finalist", 13, "test")
    assert found.score is not None
    assert found.score.value == pytest.approx(0.90)
    assert found.dense is not None
    assert found.dense.gain.value == pytest.approx(0.90 - record.context.dense_test.value)
    assert "chosen by their mean score on the validation split" in found.caveats[0]


@pytest.mark.parametrize(
    ("scores", "error", "words"),
    [
        ({13: (0.92, 0.92), 0: (0.90, 0.90)}, 0.001, "Significantly better than the best baseline"),
        ({13: (0.92, 0.92), 0: (0.90, 0.90)}, 0.03, "No significant gain over the best baseline"),
        ({13: (0.92, 0.90), 0: (0.90, 0.92)}, 0.001, "Significantly worse than the best baseline"),
        ({13: (0.90, 0.90), 0: (0.92, 0.92)}, 0.001, "The search found nothing better"),
        ({13: (0.92, 0.92)}, 0.001, "No baseline is among the finalists"),
    ],
)
def test_verdicts(make_record: MakeRecord, scores: dict[int, tuple[float, float]], error: float, words: str) -> None:
    found = answer(with_finalists(make_record(), scores, error))
    assert found.verdict.startswith(words)


def test_lower_is_better_gains_are_positive_when_better(make_record: MakeRecord) -> None:
    record = with_finalists(make_record(regression=True), {13: (0.2, 0.2), 0: (0.3, 0.3)}, 0.001)
    found = answer(record)
    assert found.row is not None
    assert found.row.trial == 13
    assert found.baseline is not None
    assert found.baseline.gain.value == pytest.approx(0.1)
    assert found.verdict.startswith("Significantly better")
    assert "positive is better" in found.verdict


def test_interval_combines_seeds_and_samples(make_record: MakeRecord) -> None:
    record = make_record()
    found = answer(record)
    assert found.row is not None
    runs = next(f.runs for f in record.finalists if f.trial == found.row.trial)
    values = np.array([run.test.value for run in runs])
    data = np.mean([run.test.value * (1 - run.test.value) / 10_000 for run in runs])
    dense = record.context.dense_test.value
    expected = np.sqrt(values.var(ddof=1) / 3 + data + dense * (1 - dense) / 10_000)
    assert found.dense is not None
    assert found.dense.gain.standard_error == pytest.approx(expected)


def test_on_known_samples_differences_are_taken_one_by_one(make_record: MakeRecord) -> None:
    def scored(wrong: int) -> Score:
        return Score.of_hits(torch.arange(10_000) >= wrong)

    def finalist(trial: int, wrong: int) -> Finalist:
        return Finalist(trial, tuple(FinalistRun(s, scored(wrong), scored(wrong), 1, 1.0) for s in (0, 1)))

    record = make_record()
    context = replace(record.context, dense_test=scored(600))
    found = answer(replace(record, context=context, finalists=(finalist(13, 700), finalist(0, 730))))
    assert found.verdict.startswith("Significantly better"), "30 of 10000, and none the other way round"
    assert any("sample by sample" in caveat for caveat in found.caveats)
    assert found.dense is not None
    assert found.dense.gain.value == pytest.approx(-0.01)
    assert found.dense.gain.standard_error == pytest.approx(0.001, rel=0.02)
    apart = answer(with_finalists(make_record(), {13: (0.93, 0.93), 0: (0.927, 0.927)}, 0.0026))
    assert apart.verdict.startswith("No significant gain")
    assert any("independent" in caveat for caveat in apart.caveats)


def test_one_seed_is_said(make_record: MakeRecord) -> None:
    assert any("With one seed" in caveat for caveat in answer(make_record(seeds=1)).caveats)
    unknown = answer(make_record(seeds=1, standard_errors=False))
    assert "not known" in unknown.verdict
    assert any(caveat.startswith("No interval") for caveat in unknown.caveats)


def test_without_finalists_the_search_answers_with_a_warning(make_record: MakeRecord) -> None:
    found = answer(make_record(finalists=0))
    assert (found.kind, found.split) == ("search", "val")
    assert "flatters" in found.caveats[0]
    assert found.baseline is not None


def test_nothing_feasible_shows_the_closest(make_record: MakeRecord) -> None:
    record = make_record(over_budget=True, finalists=0)
    found = answer(record)
    assert found.kind == "closest"
    assert found.headline.startswith("No completed trial meets the budget.")
    near = closest(record)
    assert near is not None
    assert found.row is not None
    assert found.row.trial == near.number
    done = [trial for trial in record.trials if trial.evaluation]
    assert excess(record.context, near) == min(excess(record.context, trial) for trial in done) > 1


def test_nothing_completed(make_record: MakeRecord) -> None:
    found = answer(make_record(fail_all=True, finalists=0))
    assert (found.kind, found.row, found.score) == ("nothing", None, None)
    assert "40 of 40 trials failed" in found.headline
