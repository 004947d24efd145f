"""What a study has evaluated, by its point and by its plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from automl_prune.evaluation.record import Evaluation
from automl_prune.study.chains import Chain
from automl_prune.study.codec import POISON, evaluation_of, reused_from


@dataclass(slots=True)
class Known:
    """Evaluations of a growing study, each once: points that reuse another one's are left out.

    Attributes:
        plan_of: The digest of the plan that a trial stands for.
        by_point: By the place of the point.
        by_plan: The first point of every plan digest.
        poison: Likewise, of the plans that were set aside because every worker died of them.
    """

    plan_of: Callable[[FrozenTrial], str]
    by_point: dict[int, Evaluation] = field(default_factory=dict)
    by_plan: dict[str, int] = field(default_factory=dict)
    poison: dict[str, int] = field(default_factory=dict)
    _read: set[int] = field(default_factory=set)

    def read(self, chains: Sequence[Chain]) -> None:
        """Take up what has been finished since."""
        for chain in chains:
            if chain.index not in self._read and chain.finished:
                self._read.add(chain.index)
                self._take(chain, chain.current)

    def _take(self, chain: Chain, trial: FrozenTrial) -> None:
        if chain.state == "failed":
            if POISON in trial.user_attrs:
                self.poison.setdefault(self.plan_of(trial), chain.index)
        elif reused_from(trial) is None:
            evaluation = evaluation_of(trial)
            self.by_point[chain.index] = evaluation
            self.by_plan.setdefault(evaluation.plan_digest, chain.index)

    def before(self, index: int) -> list[Evaluation]:
        """What lies before a point, in the study's order."""
        return [self.by_point[point] for point in sorted(self.by_point) if point < index]
