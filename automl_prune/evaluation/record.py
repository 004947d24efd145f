"""The record of one evaluation: everything a front, a report or a resume needs, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from automl_prune.candidate import Candidate
from automl_prune.costs import Cost
from automl_prune.tasks.base import Score


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one candidate scored and cost. Immutable; ``to_json`` and ``from_json`` are inverse.

    Attributes:
        candidate: What was evaluated.
        plan_digest: Identity of the kept channels (two candidates may give one plan).
        rung: 0 without training, 1 after a short fine-tuning, 2 as a finalist.
        score: On the validation split.
        costs: By metric name, exact, of the pruned model.
        steps: Optimiser steps of fine-tuning it got.
        seconds: Wall time of the evaluation.
        seed: Seed of everything random in it.
        worker: Who did it, ``host:pid``.
    """

    candidate: Candidate
    plan_digest: str
    rung: int
    score: Score
    costs: Mapping[str, Cost]
    steps: int
    seconds: float
    seed: int
    worker: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "candidate": self.candidate.to_json(),
            "plan_digest": self.plan_digest,
            "rung": self.rung,
            "score": asdict(self.score),
            "costs": {name: asdict(cost) for name, cost in self.costs.items()},
            "steps": self.steps,
            "seconds": self.seconds,
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
                rung=value["rung"],
                score=Score(**value["score"]),
                costs={name: Cost(**cost) for name, cost in value["costs"].items()},
                steps=value["steps"],
                seconds=value["seconds"],
                seed=value["seed"],
                worker=value["worker"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an evaluation record: {error!r} in {value!r}") from error
