"""A search without a network: widths from residuals, a score with a known optimum, MACs as their sum."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.costs import Cost
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation, RungScore
from automl_prune.seeding import derive_seed
from automl_prune.space import ChoiceParameter, FloatParameter
from automl_prune.study.baselines import Baseline
from automl_prune.study.record import Point, StudyContext, StudyRecord
from automl_prune.study.runner import run_study
from automl_prune.study.spec import StudySpec
from automl_prune.study.storage import open_storage
from automl_prune.tasks.base import Metric, Score

WIDTH = 1000


def groups(count: int) -> list[str]:
    return [f"layer{index}" for index in range(count)]


def context(count: int = 4, *, higher_is_better: bool = True) -> StudyContext:
    return StudyContext(
        name="synthetic",
        config={"search": {"trials": 8}},
        metric=Metric("accuracy" if higher_is_better else "loss", higher_is_better, percent=higher_is_better),
        cost="macs",
        limits={"macs": 0.5 * WIDTH * count},
        dense_costs={"macs": float(WIDTH * count)},
        dense_val=Score(0.9, 1000, 0.01),
        dense_test=Score(0.88, 1000, 0.01),
        group_widths=dict.fromkeys(groups(count), WIDTH),
        skipped=(("head", 10, "it is the output"),),
        environment={"torch": "none"},
    )


def parameters(count: int = 4) -> tuple[FloatParameter | ChoiceParameter, ...]:
    return (
        FloatParameter("target_cost", 0.5, 1.0),
        *(FloatParameter(f"residual/{group}", -0.5, 0.5) for group in groups(count)),
        ChoiceParameter("criterion", ("l1", "l2")),
    )


def uniform_point(criterion: str, target: float, count: int = 4) -> Point:
    return {"target_cost": target, "criterion": criterion, **{f"residual/{group}": 0.0 for group in groups(count)}}


def spec(
    requested: int,
    *,
    count: int = 4,
    worker: int = 0,
    lease: float = 60.0,
    attempts: int = 3,
    strategy: str = "tpe",
) -> StudySpec:
    baselines = tuple(
        Baseline(f"uniform {name}{tail}", uniform_point(name, share, count))
        for share, tail in ((1.0, ""), (0.75, " at 75% of the budget"), (0.5, " at 50% of the budget"))
        for name in ("l1", "l2")
    )
    return StudySpec(
        name="synthetic",
        context=context(count),
        identity={"model": "model digest", "data": {"train": "train digest", "val": "val digest"}},
        parameters=parameters(count),
        strategy=strategy,
        seed=7,
        requested=requested,
        baselines=baselines,
        worker=worker,
        lease=lease,
        attempts=attempts,
    )


def propose(point: Point) -> Candidate:
    """Widths in proportion to exp(residual) whose sum is the target's share of half the width."""
    names = [name.partition("/")[2] for name in point if name.startswith("residual/")]
    weights = {name: math.exp(float(point[f"residual/{name}"])) for name in names}
    scale = float(point["target_cost"]) * 0.5 * WIDTH * len(names) / sum(weights.values())
    return Candidate(
        {
            name: GroupChoice(max(1, min(WIDTH, int(scale * weight))), str(point["criterion"]))
            for name, weight in weights.items()
        }
    )


def stay(score: Score, costs: Mapping[str, Cost]) -> bool:
    return False


def evaluate(candidate: Candidate, seed: int, climb: Climb = stay) -> Evaluation:
    """Best where later groups are wider than earlier ones; l2 is better than l1; the seed shows in the score.

    Rung 1 takes 10 steps and halves what is missing to 1."""
    widths = list(candidate.widths.values())
    ideal = [0.3 + 0.4 * index / len(widths) for index in range(len(widths))]
    loss = sum((width / WIDTH - best) ** 2 for width, best in zip(widths, ideal, strict=True)) / len(widths)
    bonus = 0.01 if next(iter(candidate.choices.values())).criterion == "l2" else 0.0
    score = Score(0.9 - loss + bonus + seed * 1e-15, 1000, 0.005)
    costs = {"macs": Cost("macs", float(sum(widths)), float(WIDTH * len(widths)))}
    rungs = [RungScore(0, score, 0, 0.0)]
    if climb(score, costs):
        rungs.append(RungScore(1, Score((1 + score.value) / 2, 1000, 0.005), 10, 0.0))
    return Evaluation(candidate, candidate.digest, tuple(rungs), costs, seed, f"test:{os.getpid()}")


def rescored(evaluation: Evaluation, value: float) -> Evaluation:
    """The same with another score at rung 0, and no other rung."""
    return replace(evaluation, rungs=(RungScore(0, Score(value, 1000), 0, 0.0),))


def outcome(record: StudyRecord) -> list[Mapping[str, object]]:
    """What two equal runs have in common: everything but when, where and in which attempt."""
    rows: list[Mapping[str, object]] = []
    for trial in record.trials:
        assert trial.evaluation is not None
        rows.append(
            {
                "number": trial.number,
                "origin": trial.origin,
                "point": trial.point,
                "seed": trial.evaluation.seed,
                "scores": [rung.score.value for rung in trial.evaluation.rungs],
            }
        )
    return rows


def work(
    directory: Path,
    requested: int,
    *,
    seconds: float = 0.0,
    lease: float = 60.0,
    worker: int = 0,
    attempts: int = 3,
    poison: int | None = None,
    url: str | None = None,
) -> None:
    """One worker process, which the trial ``poison`` kills like the system's out-of-memory killer.

    Each evaluation leaves a line ``start <digest> <seed>`` and at its end ``end ...`` in ``directory/log``, each event
    a line ``<kind> <trial>`` in ``directory/events``, and before them the storage that was opened ``opened <worker>``.
    """

    def note(file: str, line: str) -> None:
        with (directory / file).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def slow(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        note("log", f"start {candidate.digest} {seed}")
        if poison is not None and seed == derive_seed(7, "evaluation", poison):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        evaluation = evaluate(candidate, seed, climb)
        note("log", f"end {candidate.digest} {seed}")
        return evaluation

    storage = open_storage(url, directory)
    note("events", f"opened {worker}")
    run_study(
        spec(requested, worker=worker, lease=lease, attempts=attempts),
        storage,
        propose,
        slow,
        lambda event: note("events", f"{event.kind} {event.trial}"),
    )


class Evaluator:
    """Evaluates, remembers what it was asked, and raises what it is told to at some call."""

    def __init__(self, failures: dict[int, BaseException] | None = None) -> None:
        self.calls: list[tuple[str, int]] = []
        self._failures = failures or {}

    def __call__(self, candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        self.calls.append((candidate.digest, seed))
        if len(self.calls) in self._failures:
            raise self._failures[len(self.calls)]
        return evaluate(candidate, seed, climb)
