"""A synthetic study that looks like a real one, and its awkward relatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.costs import Cost
from automl_prune.evaluation.record import Evaluation, RungScore
from automl_prune.report.data import ReportData, collect
from automl_prune.report.table import FrontRow
from automl_prune.study.record import Attempt, Finalist, FinalistRun, StudyContext, StudyRecord, TrialRecord
from automl_prune.tasks.base import Metric, Score

GROUPS = (
    {"conv1": 16}
    | {f"layer{stage}.{block}.conv1": 16 * 2 ** (stage - 1) for stage in (1, 2, 3) for block in range(3)}
    | {"layer2.0.conv2": 32, "layer3.0.conv2": 64}
)
DENSE = {"macs": 31_236_736.0, "params": 269_434.0}
START = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Recipe:
    """What kind of study to make up."""

    trials: int = 40
    seed: int = 0
    finalists: int = 5
    seeds: int = 3
    budget: float = 0.5
    regression: bool = False
    failures: bool = True
    fail_all: bool = False
    over_budget: bool = False
    standard_errors: bool = True


def _score(recipe: Recipe, accuracy: float, samples: int) -> Score:
    if recipe.regression:
        return Score(2.0 * (1 - accuracy) + 0.1, samples, 0.004 if recipe.standard_errors else None)
    score = Score.of_proportion(round(accuracy * samples), samples)
    return score if recipe.standard_errors else replace(score, standard_error=None)


def _candidate(rng: np.random.Generator, target: float, criterion: str | None) -> Candidate:
    keep = math.sqrt(target)
    choices = {}
    for name, width in GROUPS.items():
        noise = 1.0 if criterion else float(np.exp(rng.normal(0, 0.2)))
        chosen = criterion or str(rng.choice(["l1", "l2", "geometric_median", "bn_scale"]))
        choices[name] = GroupChoice(max(1, min(width, round(width * keep * noise))), chosen)
    return Candidate(choices)


def _trial(recipe: Recipe, number: int, rng: np.random.Generator) -> TrialRecord:
    baselines = ["uniform l1", "uniform l2", "uniform geometric_median", "uniform bn_scale", "uniform random"]
    origin = baselines[number] if number < len(baselines) else "search"
    target = recipe.budget * (1.3 if recipe.over_budget else float(rng.uniform(0.3, 1.0)) if number > 4 else 0.98)
    if number == 12:
        target = recipe.budget * 1.15
    candidate = _candidate(rng, target, origin.removeprefix("uniform ") if number < 5 else None)
    start = START + timedelta(seconds=14 * number)
    waiting = TrialRecord(
        number=number, state="waiting", origin=origin, evaluation=None, reason=None, feasible=None, started=start,
        point={"target": target, "exponent": float(rng.normal()), "criterion": "l1"}, finished=None,
        attempt=2 if number == 9 else 1,
        worker=f"box:{100 + number % 2}",
        lost=(Attempt("box:99", start - timedelta(seconds=30), start - timedelta(seconds=1)),) if number == 9 else (),
    )  # fmt: skip
    if recipe.fail_all or (recipe.failures and number in (17, 23)):
        reason = "the loss became NaN at step 41 of 100; lower evaluation.learning_rate (now 0.01)"
        return replace(waiting, state="failed", reason=reason, finished=start + timedelta(seconds=6))
    ratio = target * float(rng.uniform(0.98, 1.0))
    bonus = 0.006 * min(1, number / 25) if origin == "search" else -0.004 * number
    accuracy = 0.929 - 0.05 * (1 - ratio) ** 3 / 0.3 + bonus + float(rng.normal(0, 0.003))
    if number == 30:
        accuracy = 0.31
    costs = {
        "macs": Cost("macs", round(DENSE["macs"] * ratio), DENSE["macs"]),
        "params": Cost("params", round(DENSE["params"] * ratio**0.9), DENSE["params"]),
    }
    rungs = (
        RungScore(0, _score(recipe, accuracy - 0.05, 5000), 0, 1.0),
        RungScore(1, _score(recipe, accuracy, 5000), 100, 10.0 + number % 3),
    )
    evaluation = Evaluation(candidate, f"{number:016x}", rungs, costs, number, f"box:{100 + number % 2}")
    feasible = costs["macs"].value <= recipe.budget * DENSE["macs"]
    finished = start + timedelta(seconds=12.5)
    return replace(waiting, state="complete", evaluation=evaluation, feasible=feasible, finished=finished)


def _finalists(recipe: Recipe, trials: list[TrialRecord], rng: np.random.Generator) -> tuple[Finalist, ...]:
    done = [t for t in trials if t.evaluation and t.feasible]
    sign = 1 if recipe.regression else -1
    searched = sorted((t for t in done if t.origin == "search"), key=lambda t: sign * t.evaluation.score.value)  # type: ignore[union-attr]
    chosen = searched[: max(0, recipe.finalists - 1)] + [t for t in done if t.origin != "search"][:1]
    finalists = []
    for trial in sorted(chosen[: recipe.finalists], key=lambda t: t.number):
        assert trial.evaluation is not None
        base = (
            0.928 - 0.03 * (1 - trial.evaluation.costs["macs"].ratio) ** 3 - (0.004 if trial.origin != "search" else 0)
        )
        runs = []
        for seed in range(recipe.seeds):
            val, test = (base + float(rng.normal(0, 0.0015)) for _ in range(2))
            runs.append(FinalistRun(seed, _score(recipe, val, 5000), _score(recipe, test, 10_000), 1170, 95.0 + seed))
        finalists.append(Finalist(trial.number, tuple(runs)))
    return tuple(finalists)


def make(recipe: Recipe | None = None) -> StudyRecord:
    """A study record after the recipe; equal recipes give equal records."""
    recipe = recipe or Recipe()
    rng = np.random.default_rng(recipe.seed)
    trials = [_trial(recipe, number, rng) for number in range(recipe.trials)]
    metric = Metric("rmse", False) if recipe.regression else Metric("accuracy", True, percent=True)
    context = StudyContext(
        name="fashion_mnist_resnet20",
        config={
            "model": {"factory": "automl_prune.models:resnet20", "args": {"num_classes": 10, "in_channels": 1}},
            "data": {"name": "fashion_mnist", "root": "data/fashion-mnist", "batch_size": 128},
            "budget": {"macs": recipe.budget},
            "search": {"strategy": "tpe", "trials": recipe.trials, "seed": 0},
        },
        metric=metric,
        cost="macs",
        limits={"macs": recipe.budget * DENSE["macs"]},
        dense_costs=DENSE,
        dense_val=_score(recipe, 0.932, 5000),
        dense_test=_score(recipe, 0.929, 10_000),
        group_widths=GROUPS,
        skipped=(("fc", 10, "its channels are the model's outputs, which callers read by position"),),
        environment={"python": "3.11.2", "torch": "2.14.1", "processor": "x86_64, 2 cores", "threads": "1"},
    )
    finalists = _finalists(recipe, trials, rng) if recipe.finalists else ()
    return StudyRecord(context, tuple(trials), finalists, recipe.trials)


@pytest.fixture
def make_record() -> Callable[..., StudyRecord]:
    """Keyword arguments of ``Recipe`` to a record."""
    return lambda **changes: make(Recipe(**changes))


def data_of(record: StudyRecord) -> ReportData:
    return collect(record, Path("runs/x"))


def rows_of(part: object) -> tuple[FrontRow, ...]:
    assert isinstance(part, tuple)
    return part
