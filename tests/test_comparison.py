from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from automl_prune.comparison import Study, compare, score_of
from automl_prune.errors import StudyError
from automl_prune.report.estimate import Estimate
from automl_prune.report.table import front_table
from automl_prune.study.record import StudyRecord
from automl_prune.tasks import Score
from tests.report.conftest import Recipe, make


def study(label: str = "a", data: str = "d", **recipe: object) -> Study:
    return Study(label, make(Recipe(**recipe)), data)  # type: ignore[arg-type]  # fields of Recipe


def shifted(record: StudyRecord, gain: float) -> StudyRecord:
    """The same study with every finalist scoring higher on test data."""

    def better(score: Score) -> Score:
        return replace(score, value=score.value + gain)

    finalists = tuple(
        replace(f, runs=tuple(replace(run, test=better(run.test)) for run in f.runs)) for f in record.finalists
    )
    return replace(record, finalists=finalists)


def test_a_study_is_no_better_than_itself() -> None:
    result = compare(study("a"), study("b"))
    assert result.stage == "finalists"
    assert result.volumes is not None
    assert result.volumes[0] == result.volumes[1]
    assert all(level.gain is not None and level.gain.value == 0 and not level.significant for level in result.levels)
    assert result.verdict.startswith("No significant difference at any of ")


@pytest.mark.parametrize("gain", [0.05, -0.05])
def test_a_large_difference_is_significant_at_every_cost_and_has_its_sign(gain: float) -> None:
    first = study("a")
    second = Study("b", shifted(first.record, gain), "d")
    result = compare(first, second)
    assert all(level.gain and math.isclose(level.gain.value, gain, abs_tol=1e-9) for level in result.levels)
    assert all(level.significant for level in result.levels)
    winner, count = ("b" if gain > 0 else "a"), len(result.levels)
    assert result.verdict == f"{winner} is significantly better at {count} of {count} costs at which both have a model."


def test_the_verdict_wants_more_of_a_difference_the_more_costs_are_looked_at() -> None:
    """What would be just significant at one cost is not, when it is the best of several."""
    first = study("a")
    margins = [level.gain.margin for level in compare(first, study("b")).levels if level.gain and level.gain.margin]
    assert len(margins) > 2
    result = compare(first, Study("b", shifted(first.record, 1.02 * min(margins)), "d"))
    assert any(level.significant for level in result.levels)
    assert result.verdict == f"No significant difference at any of {len(margins)} costs at which both have a model."


def test_levels_are_the_best_that_each_study_has_at_a_cost() -> None:
    first, second = study("a"), study("b", seed=3)
    result = compare(first, second)
    assert [level.limit for level in result.levels] == sorted(level.limit for level in result.levels)
    for level in result.levels:
        for mine, row in zip((first, second), level.rows, strict=True):
            cheap = [r for r in front_table(mine.record, "finalists") if r.costs["macs"].value <= level.limit]
            assert row == max(cheap, key=lambda r: r.val.value, default=None)
        if level.gain is not None:
            before, after = (score_of(row) for row in level.rows if row is not None)
            expected: Estimate = after.minus(before)
            assert level.gain == expected


def test_of_a_metric_where_less_is_better_a_gain_is_a_decrease() -> None:
    first = study("a", regression=True)
    second = Study("b", shifted(first.record, -0.2), "d")
    assert all(level.gain is not None and level.gain.value > 0 for level in compare(first, second).levels)


def test_without_finalists_in_both_the_searches_are_compared_on_validation_data() -> None:
    result = compare(study("a"), study("b", finalists=0))
    assert result.stage == "search"
    assert all(row.test is None for level in result.levels for row in level.rows if row is not None)
    assert result.to_json()["split"] == "val"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (study("b", regression=True), "scored by accuracy, the other by rmse"),
        (study("b", data="e"), r"data, splits or preprocessing differ \(digests d and e\)"),
    ],
)
def test_what_does_not_compare_is_refused_with_the_reason(other: Study, message: str) -> None:
    with pytest.raises(StudyError, match=f"^a and b cannot be compared: .*{message}"):
        compare(study("a"), other)


def test_fronts_of_different_rungs_and_none_at_all_are_refused() -> None:
    first, empty = study("a", finalists=0), study("b", fail_all=True, finalists=0)
    trials = tuple(
        replace(t, evaluation=replace(t.evaluation, rungs=t.evaluation.rungs[:1])) if t.evaluation else t
        for t in first.record.trials
    )
    with pytest.raises(StudyError, match=r"different rungs \(1 and 0\)"):
        compare(first, Study("b", replace(first.record, trials=trials), "d"))
    with pytest.raises(StudyError, match="neither b nor c has a model within its budget"):
        compare(empty, replace(empty, label="c"))


def test_plain_values_are_json() -> None:
    plain = json.loads(json.dumps(compare(study("a"), study("b", seed=3)).to_json()))
    assert plain["metric"] == "accuracy"
    assert plain["studies"] == ["a", "b"]
    assert len(plain["levels"]) == len({level["limit"] for level in plain["levels"]})
