"""The record of one evaluation: everything a front, a report or a resume needs, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from automl_prune.candidate import Candidate
from automl_prune.costs import Cost
from automl_prune.tasks.base import Score


@dataclass(frozen=True, slots=True)
class RungScore:
    """What a candidate scored at one rung.

    Attributes:
        rung: 0 without training, 1 after a short fine-tuning.
        score: On the validation split.
        steps: Optimiser steps of this rung.
        seconds: Wall time of this rung.
    """

    rung: int
    score: Score
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one candidate scored and cost. Immutable; ``to_json`` and ``from_json`` are inverse.

    Attributes:
        candidate: What was evaluated.
        plan_digest: Identity of the kept channels (two candidates may give one plan).
        rungs: Every rung it climbed, from 0 without a gap.
        costs: By metric name, exact, of the pruned model.
        seed: Seed of everything random in it.
        worker: Who did it, ``host:pid``.
    """

    candidate: Candidate
    plan_digest: str
    rungs: tuple[RungScore, ...]
    costs: Mapping[str, Cost]
    seed: int
    worker: str

    def __post_init__(self) -> None:
        numbers = [rung.rung for rung in self.rungs]
        if not numbers or numbers != list(range(len(numbers))):
            raise ValueError(f"an evaluation has the rungs 0, 1, ... without a gap, got {numbers}")

    @property
    def rung(self) -> int:
        """The highest rung it climbed."""
        return self.rungs[-1].rung

    @property
    def score(self) -> Score:
        """At the highest rung; only scores at equal rungs can be compared."""
        return self.rungs[-1].score

    @property
    def steps(self) -> int:
        """Optimiser steps of all rungs."""
        return sum(rung.steps for rung in self.rungs)

    @property
    def seconds(self) -> float:
        """Wall time of all rungs."""
        return sum(rung.seconds for rung in self.rungs)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "candidate": self.candidate.to_json(),
            "plan_digest": self.plan_digest,
            "rungs": [asdict(rung) for rung in self.rungs],
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "seed": self.seed,
            "worker": self.worker,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evaluation:
        """Rebuild a record; missing or malformed entries raise ``ValueError``."""
        try:
            return cls(
                candidate=Candidate.from_json(value["candidate"]),
                plan_digest=value["plan_digest"],
                rungs=tuple(RungScore(**{**rung, "score": Score(**rung["score"])}) for rung in value["rungs"]),
                costs={name: Cost.from_json(cost) for name, cost in value["costs"].items()},
                seed=value["seed"],
                worker=value["worker"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an evaluation record: {error!r} in {value!r}") from error
