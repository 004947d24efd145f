"""Where progressive pruning goes, in how many steps, and what tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from automl_prune.costs import Cost, CostModel
from automl_prune.errors import ConfigError
from automl_prune.evaluation import FineTuning


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the budget is approached.

    Attributes:
        steps: Cuts from the dense model to the budget; more, where a group runs out of channels.
        finetuning: After every step.
        criterion: Chooses which channels of a group go, from the model as it is then.
        calibration_samples: Training samples for the criterion and for BatchNorm recalibration of a proposal.
        seed: Of everything random.
    """

    steps: int
    finetuning: FineTuning
    criterion: str = "l1"
    calibration_samples: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"progressive pruning needs at least 1 step, got {self.steps}")

    def limits(self, dense: Mapping[str, float], budget: Mapping[str, float], step: int) -> dict[str, float]:
        """What each budgeted cost may be after a step, counted from 1: equal ratios from dense to the budget."""
        share = min(1.0, step / self.steps)
        return {
            metric: limit if share == 1 or limit >= dense[metric] else dense[metric] * (limit / dense[metric]) ** share
            for metric, limit in budget.items()
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """Where progressive pruning goes, and what tells how far it is.

    Attributes:
        limits: Absolute bounds by metric.
        allowed: Widths each group may take, ascending, the last being dense.
        dense: Costs of the dense model by metric.
        costs: By metric, of any widths: exact, or predicted.
        measured: What only measuring tells of the model of some widths, by metric; a predicted cost must be among it.
    """

    limits: Mapping[str, float]
    allowed: Mapping[str, tuple[int, ...]]
    dense: Mapping[str, float]
    costs: Mapping[str, CostModel]
    measured: Callable[[Mapping[str, int]], Mapping[str, Cost]] = lambda _: {}

    def costs_of(self, widths: Mapping[str, int]) -> dict[str, float]:
        """Every cost of the model of some widths, measured where it is not exact."""
        exact = {metric: float(cost.at(widths)) for metric, cost in self.costs.items()}
        return exact | {metric: cost.value for metric, cost in self.measured(widths).items()}

    def within(self, costs: Mapping[str, float]) -> bool:
        """Whether no limit is exceeded."""
        return within(costs, self.limits)


def within(costs: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    """Whether each limited cost is at most its limit."""
    return all(costs[metric] <= limit for metric, limit in limits.items())
