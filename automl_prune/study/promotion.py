"""Which candidates earn the second rung: by comparison with those before them that cost as little, within an allowance.

Successive halving promotes the best of a group and has to wait for the group; its asynchronous form (Li et al. 2020,
"A System for Massively Parallel Hyperparameter Tuning", section 3.2) compares with what is there. Here the objective
is a front, so a candidate is compared with those of lower or equal cost alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from automl_prune.costs import Cost
from automl_prune.errors import ConfigError
from automl_prune.evaluation.record import Evaluation
from automl_prune.study.codec import within
from automl_prune.study.record import StudyContext
from automl_prune.tasks.base import Score


@dataclass(frozen=True, slots=True)
class Promotion:
    """The rule by which candidates climb from rung 0 to rung 1.

    Attributes:
        steps: Optimiser steps of rung 1, at least 1.
        share: What candidates within noise of a better rival may spend, as a fraction of what rung 1 would take of
            all candidates, in [0, 1].
    """

    steps: int
    share: float

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.share <= 1:
            raise ConfigError(
                f"rung 1 has {self.steps} steps and a share of {self.share}; give at least 1 step, a share in [0, 1]"
            )

    def climbs(
        self, score: Score, costs: Mapping[str, Cost], before: Sequence[Evaluation], context: StudyContext
    ) -> bool:
        """Whether a candidate climbs; a pure function of its arguments.

        The rivals are the feasible ones of ``before`` whose front's cost is not higher: every budget is met by both,
        so the front's cost alone says which of two can put the other off the front.

        - Its score is better than every rival's: it climbs, whatever was spent. So what ends on the front of rung 0
          has climbed.
        - The best rival is ahead by no more than a standard error of the difference: it climbs if the allowance
          holds another ``steps`` (``Score.error_against``). Where that is not known, only a tie is noise.
        - Else, and whenever a budget is missed, it stays.

        Args:
            score: Of the candidate at rung 0.
            costs: Of the candidate.
            before: Every evaluation before it in the study's order, each once.
            context: Of the study.
        """
        if not within(costs, context.limits):
            return False
        cost, sign = costs[context.cost].value, 1 if context.metric.higher_is_better else -1
        rivals = [
            rival.rungs[0].score
            for rival in before
            if within(rival.costs, context.limits) and rival.costs[context.cost].value <= cost
        ]
        best = max(rivals, key=lambda rival: sign * rival.value, default=None)
        if best is None or context.metric.better(score.value, best.value):
            return True
        behind = abs(best.value - score.value)
        spent = sum(evaluation.steps for evaluation in before)
        noise = score.error_against(best) or 0.0
        return behind <= noise and spent + self.steps <= self.share * self.steps * (len(before) + 1)
