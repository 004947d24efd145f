"""What every strategy has to satisfy, on a search without a network: a convex score with a known optimum."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.costs import Cost
from automl_prune.errors import EvaluationError
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation, RungScore
from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.space import ChoiceParameter, FloatParameter, Parameter
from automl_prune.study.baselines import Baseline
from automl_prune.study.record import Point, StudyContext, StudyRecord
from automl_prune.study.runner import run_study
from automl_prune.study.spec import Evaluate, Event, StudySpec
from automl_prune.study.storage import open_storage
from automl_prune.tasks import Metric, Score

Goal = Literal["front", "score"]
"""What a strategy improves: the front of score against cost, or the score at the whole budget."""

_GROUPS = tuple(f"layer{number}" for number in range(6))
_STEPS = 10_000
"""Widths stand for real numbers with so many steps between the bounds."""

_PARAMETERS: tuple[Parameter, ...] = (
    FloatParameter("target_cost", 0.5, 1.0),
    *(FloatParameter(f"residual/{group}", -0.5, 0.5) for group in _GROUPS),
    ChoiceParameter("criterion", ("a", "b", "c")),
)
_LOSS = {"a": 0.0, "b": 0.01, "c": 0.05}
_IDEAL = (0.3, -0.3, 0.2, -0.2, 0.35, -0.1)


def check_strategy(name: str, trials: int = 40) -> None:
    """Check a registered strategy in whole studies, with trials that fail and trials over budget among the first.

    It stays within the space, proposes the same again for the same seed and other points for another, goes on
    after a stop as if there had been none, and leaves global random states alone.

    Args:
        name: Registered name.
        trials: Of a study, at least 12; more than a strategy's warm-up.

    Raises:
        AssertionError: The contract that does not hold.
    """
    where = f"strategy {name!r}"
    states = (torch.get_rng_state(), str(np.random.get_state()), random.getstate())  # noqa: NPY002  # only compared
    whole = _study(name, trials, 1)
    now = (torch.get_rng_state(), str(np.random.get_state()), random.getstate())  # noqa: NPY002
    assert torch.equal(states[0], now[0]), f"{where} drew from torch's global random state"
    assert states[1:] == now[1:], f"{where} drew from the global random state of NumPy or Python"
    kinds = {(trial.state, trial.feasible) for trial in whole.trials}
    assert {("failed", None), ("complete", False), ("complete", True)} <= kinds  # the problem is what it is meant to be
    points = _points(whole)
    for point in points:
        _check_point(where, point)
    assert _points(_study(name, trials, 1)) == points, f"{where} proposes other points for the same seed"
    assert _points(_study(name, trials, 2)) != points, f"{where} does not depend on its seed"
    assert _points(_study(name, trials, 1, stop=trials // 2)) == points, f"{where} goes on differently after a stop"


def check_improvement(name: str, goal: Goal, *, share: float, trials: int = 60, seeds: int = 3) -> None:
    """Check that a strategy comes nearer to the optimum than chance does, in the median over seeds.

    Args:
        name: Registered name.
        goal: What it is for.
        share: How much of the gap that ``random`` leaves to the optimum it may leave, below 1.
        trials: Of a study, no baselines among them.
        seeds: How many studies, of the strategy and of ``random``.

    Raises:
        AssertionError: It does not; the message holds both gaps.
    """
    ours, chance = (
        statistics.median(_gap(each, trials, seed, goal) for seed in range(seeds)) for each in (name, "random")
    )
    assert ours <= share * chance, f"strategy {name!r} leaves {ours:.4f} to the best {goal}, random {chance:.4f}"


@cache  # several strategies are compared with one run of chance
def _gap(name: str, trials: int, seed: int, goal: Goal) -> float:
    return gap(_study(name, trials, seed, goal=goal), goal)


def gap(record: StudyRecord, goal: Goal) -> float:
    """What a study on the problem leaves to the optimum: of the score, or of the area under the front."""
    done = [trial for trial in record.trials if trial.evaluation is not None and trial.feasible]
    if goal == "score":
        return 1 - max(trial.evaluation.score.value for trial in done if trial.evaluation)
    points = [
        FrontPoint(trial.number, trial.evaluation.score.value, trial.evaluation.costs["macs"].value, True, 0)
        for trial in done
        if trial.evaluation
    ]
    area = ParetoFront.of(points, higher_is_better=True).hypervolume((0.5, 1.0))
    return 0.5 * (0.35 + 0.5) / 2 - area  # under the straight front from (0.5, 0.85) to (1, 1)


def _check_point(where: str, point: Point) -> None:
    assert set(point) == {parameter.name for parameter in _PARAMETERS}, f"{where} proposes {sorted(point)}"
    for parameter in _PARAMETERS:
        value = point[parameter.name]
        if isinstance(parameter, ChoiceParameter):
            assert value in parameter.choices, f"{where}: {parameter.name} is {value!r}"
        else:
            assert isinstance(value, float), f"{where}: {parameter.name} is {value!r}, no float"
            assert parameter.low <= value <= parameter.high, f"{where}: {parameter.name} is {value}"


def _points(record: StudyRecord) -> list[Point]:
    return [trial.point for trial in record.trials if trial.origin == "search"]


def _study(name: str, trials: int, seed: int, *, stop: int | None = None, goal: Goal | None = None) -> StudyRecord:
    """A study of the problem; with a goal without baselines and failures, with a stop interrupted there first."""
    spec = StudySpec(
        name="contract",
        context=_context(),
        identity={},
        parameters=_PARAMETERS,
        strategy=name,
        seed=seed,
        requested=trials,
        baselines=() if goal else _baselines(),
        network={f"residual/{group}": (1 / len(_GROUPS), 0.5) for group in _GROUPS},
    )
    evaluate = _evaluation(goal)
    with tempfile.TemporaryDirectory() as folder:
        if stop is not None:

            def interrupt(event: Event) -> None:
                if event.kind == "started" and event.trial == stop:
                    raise KeyboardInterrupt

            with suppress(KeyboardInterrupt):
                run_study(spec, open_storage(None, Path(folder)), _candidate, evaluate, interrupt)
        return run_study(spec, open_storage(None, Path(folder)), _candidate, evaluate)


def _context() -> StudyContext:
    return StudyContext(
        name="contract",
        config={},
        metric=Metric("accuracy", higher_is_better=True, percent=True),
        cost="macs",
        limits={"macs": 1.0},
        dense_costs={"macs": 2.0},
        dense_val=Score(1.0, 1000),
        dense_test=Score(1.0, 1000),
        group_widths=dict.fromkeys(_GROUPS, _STEPS + 1),
        skipped=(),
        environment={},
    )


def _baselines() -> tuple[Baseline, ...]:
    """The middle, one that fails, one over budget."""
    middle: Mapping[str, float | str] = {
        "target_cost": 1.0,
        "criterion": "b",
        **{f"residual/{group}": 0.0 for group in _GROUPS},
    }
    return (
        Baseline("middle", middle),
        Baseline("failing", {**middle, "residual/layer0": 0.5}),
        Baseline("too dear", {**middle, "residual/layer1": 0.5}),
    )


def _candidate(point: Point) -> Candidate:
    values = {group: float(point[f"residual/{group}"]) + 0.5 for group in _GROUPS}
    values["cost"] = float(point["target_cost"])
    return Candidate(
        {name: GroupChoice(1 + round(value * _STEPS), str(point["criterion"])) for name, value in values.items()}
    )


def _evaluation(goal: Goal | None) -> Evaluate:
    """A convex loss; cost is worth something unless the goal is the score; without a goal some corners fail."""

    def evaluate(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        values = {name: (choice.keep - 1) / _STEPS for name, choice in candidate.choices.items()}
        residuals = [values[group] - 0.5 for group in _GROUPS]
        cost = values["cost"]
        if goal is None and residuals[0] > 0.4:
            raise EvaluationError("the loss became nan")
        if goal is None and residuals[1] > 0.4:
            cost *= 1.1
        loss = sum((value - best) ** 2 for value, best in zip(residuals, _IDEAL, strict=True)) / len(_GROUPS)
        loss += _LOSS[candidate.choices["cost"].criterion] + (0.3 * (1 - cost) if goal != "score" else 0.0)
        return Evaluation(
            candidate,
            candidate.digest,
            (RungScore(0, Score(1 - loss, 1000), 0, 0.0),),
            {"macs": Cost("macs", cost, 2.0)},
            seed,
            "-",
        )

    return evaluate
