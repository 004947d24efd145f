"""Progressive pruning: cut the least harmful group a little, fine-tune shortly, repeat until the budget is met.

The schedule of NetAdapt (Yang et al. 2018, arXiv:1804.03230, section 3): every step has a cost to reach. For each
group the smallest cut that reaches it alone is proposed, all proposals are scored without training, the best one is
taken and fine-tuned before the next step. Unlike there the steps are equal ratios of the cost, and proposals are
scored with recalibrated norms instead of being trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from automl_prune.calibration import CalibrationSettings, collect, with_gradients
from automl_prune.channels import ChannelGraph, ChannelGroup, Plan, slice_model
from automl_prune.channels.plan import Slices
from automl_prune.criteria import CriterionContext, criteria, keep_best, need_of, score_groups
from automl_prune.errors import BudgetError, CheckpointError, ConfigError
from automl_prune.evaluation import FineTuning, Teacher, finetune, recalibrate, score
from automl_prune.files import load_tensors, save_tensors, tensors_digest
from automl_prune.seeding import derive_seed
from automl_prune.tasks.base import Score, Task


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
class Cut:
    """One cut and what followed.

    Attributes:
        group: What was cut.
        width: Its channels afterwards.
        cut: Validation score right after the cut, norms recalibrated.
        trained: Validation score after the fine-tuning.
        costs: Of the model, by metric.
    """

    group: str
    width: int
    cut: Score
    trained: Score
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a progressive pruning is.

    Attributes:
        plan: Kept channels, relative to the dense model.
        model: The pruned model, fine-tuned so far.
        cuts: What was done.
    """

    plan: Plan
    model: nn.Module
    cuts: tuple[Cut, ...]


def progressive(
    model: nn.Module,
    graph: ChannelGraph,
    task: Task,
    budget: Mapping[str, float],
    allowed: Mapping[str, tuple[int, ...]],
    schedule: Schedule,
    device: torch.device,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int, str], None] | None = None,
    on_cut: Callable[[Cut], None] | None = None,
) -> Progress:
    """Prune step by step until every budget is met; the dense model is not changed.

    Equal arguments on one machine give equal results; with a checkpoint, a killed run goes on after its last step.

    Args:
        model: The dense model, on ``device``.
        graph: Its proved channel graph.
        task: Its data; proposals are compared on validation data.
        budget: Absolute bounds by metric.
        allowed: Widths each group may take, ascending, the last being dense.
        schedule: How to get there.
        device: Where everything runs.
        checkpoint: Safetensors file, written after every step; read first when it exists.
        on_step: Called with (steps done, steps planned, a note).
        on_cut: Called after every step done here.

    Raises:
        BudgetError: The narrowest allowed widths cost more.
        CheckpointError: The checkpoint is damaged, or of another run.
        EvaluationError: A fine-tuning diverged.
    """
    run = _Run(model, graph, task, budget, allowed, schedule, device)
    run.check_reachable()
    progress = run.restore(checkpoint) if checkpoint is not None and checkpoint.is_file() else run.start()
    while not run.within(progress.plan.widths, budget):
        progress = run.step(progress)
        if checkpoint is not None:
            run.save(checkpoint, progress)
        if on_cut is not None:
            on_cut(progress.cuts[-1])
        if on_step is not None:
            on_step(len(progress.cuts), max(schedule.steps, len(progress.cuts)), "")
    return progress


def between(before: Plan, after: Plan) -> Slices:
    """The slices that lead from the model of one plan to that of a narrower one: positions in the smaller tensors.

    Slicing the dense model by ``before`` and the result by this equals slicing the dense model by ``after``.
    """
    slices: dict[str, dict[int, tuple[int, ...]]] = {}
    for parameter, axes in after.slices.items():
        for axis, kept in axes.items():
            old = before.slices.get(parameter, {}).get(axis)
            if old != kept:
                found = np.asarray(kept) if old is None else np.searchsorted(old, kept)
                slices.setdefault(parameter, {})[axis] = tuple(found.tolist())
    return slices


def narrowed(group: ChannelGroup, plan: Plan) -> ChannelGroup:
    """The group as it lies in the plan's model: its kept channels at their positions in the smaller tensors."""
    kept = np.asarray(plan.kept[group.name])
    members = []
    for member in group.members:
        positions = plan.slices.get(member.parameter, {}).get(member.axis)
        index = member.index[kept]
        members.append(member if positions is None else replace(member, index=np.searchsorted(positions, index)))
    return replace(group, width=len(kept), members=tuple(members))


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A cut that might be made."""

    group: str
    width: int
    reaches: bool
    """Whether it alone meets the step's limits."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run's fixed parts."""

    model: nn.Module
    graph: ChannelGraph
    task: Task
    budget: Mapping[str, float]
    allowed: Mapping[str, tuple[int, ...]]
    schedule: Schedule
    device: torch.device

    def start(self) -> Progress:
        plan = self.graph.plan({})
        return Progress(plan, slice_model(self.model, plan.slices, plan.sizes), ())

    def cost(self, metric: str, widths: Mapping[str, int]) -> float:
        return float(self.graph.cost_models[metric].at(widths))

    def within(self, widths: Mapping[str, int], limits: Mapping[str, float]) -> bool:
        return all(self.cost(metric, widths) <= limit for metric, limit in limits.items())

    def check_reachable(self) -> None:
        narrowest = {name: widths[0] for name, widths in self.allowed.items()}
        for metric, limit in self.budget.items():
            least = self.cost(metric, narrowest)
            if least > limit:
                raise BudgetError(
                    f"budget {metric} <= {limit:,.0f} cannot be reached: the narrowest allowed widths cost "
                    f"{least:,.0f}; raise it, or let groups be narrower (min_width, max_prune_ratio, round_to, exclude)"
                )

    def step(self, progress: Progress) -> Progress:
        """One cut with its fine-tuning."""
        number = len(progress.cuts)
        proposal, plan, small, cut = self._best(progress, self._limits(progress))
        trained = finetune(
            small,
            self.task,
            self.schedule.finetuning,
            seed=derive_seed("progressive", self.schedule.seed, number),
            device=self.device,
            teacher=Teacher(self.model),
        )
        result = score(trained, self.task, "val", self.device)
        costs = {metric: self.cost(metric, plan.widths) for metric in self.graph.cost_models}
        record = Cut(proposal.group, proposal.width, cut, result, costs)
        return Progress(plan, trained, (*progress.cuts, record))

    def _limits(self, progress: Progress) -> dict[str, float]:
        """The limits of the first step of the schedule that the model does not meet yet."""
        dense, widths = self.graph.dense_costs, progress.plan.widths
        every = (self.schedule.limits(dense, self.budget, step) for step in range(1, self.schedule.steps + 1))
        return next(limits for limits in every if not self.within(widths, limits))

    def _best(self, progress: Progress, limits: Mapping[str, float]) -> tuple[_Proposal, Plan, nn.Module, Score]:
        """The best proposal by score that reaches the limits; where none does, the one that loses least per cost."""
        proposals = list(self._proposals(progress.plan.widths, limits))
        reaching = [proposal for proposal in proposals if proposal.reaches]
        context = self._context(progress.model)
        groups = [narrowed(group, progress.plan) for group in self.graph.groups]
        scores = score_groups(groups, context, self.schedule.criterion)
        now = score(progress.model, self.task, "val", self.device)
        tried = []
        for proposal in reaching or proposals:
            best = keep_best(scores[proposal.group], proposal.width)
            kept = {**progress.plan.kept, proposal.group: [progress.plan.kept[proposal.group][i] for i in best]}
            plan = self.graph.plan(kept)
            small = slice_model(progress.model, between(progress.plan, plan), plan.sizes)
            recalibrate(small, self.task, samples=self.schedule.calibration_samples, device=self.device)
            tried.append((proposal, plan, small, score(small, self.task, "val", self.device)))
        sign = 1 if self.task.metric.higher_is_better else -1
        if reaching:
            return max(tried, key=lambda one: sign * one[3].value)
        return min(
            tried,
            key=lambda one: max(0.0, sign * (now.value - one[3].value)) / self._saved(progress.plan, one[1], limits),
        )

    def _context(self, model: nn.Module) -> CriterionContext:
        """What the criterion may look at: the model as it is now, calibrated anew where statistics are needed."""
        need = need_of(criteria[self.schedule.criterion])
        calibration = None
        if need != "weights":
            settings = CalibrationSettings(samples=self.schedule.calibration_samples, seed=self.schedule.seed)
            calibration = collect(model, self.task, settings, device=self.device)
        if calibration is not None and need == "gradients":
            calibration = with_gradients(calibration, model, self.task, device=self.device)
        return CriterionContext.of(model, self.schedule.seed, calibration)

    def _saved(self, before: Plan, after: Plan, limits: Mapping[str, float]) -> float:
        """How far a cut goes towards limits, as the sum of the logarithms of what it still takes."""
        over = [metric for metric, limit in limits.items() if self.cost(metric, before.widths) > limit]
        ratios = (self.cost(metric, before.widths) / self.cost(metric, after.widths) for metric in over)
        return sum(math.log(ratio) for ratio in ratios) or 1e-12

    def _proposals(self, widths: Mapping[str, int], limits: Mapping[str, float]) -> Iterator[_Proposal]:
        """For each group the widest allowed width that meets the limits; its narrowest where none does."""
        for group, allowed in self.allowed.items():
            narrower = [width for width in allowed if width < widths[group]]
            fitting = [width for width in narrower if self.within({**widths, group: width}, limits)]
            if narrower:
                yield _Proposal(group, fitting[-1] if fitting else narrower[0], bool(fitting))

    def _identity(self) -> dict[str, Any]:
        return {
            "model": tensors_digest(self.model.state_dict()),
            "channel groups": self.graph.digest,
            "data": self.task.digest,
            "budget": {metric: float(limit) for metric, limit in self.budget.items()},
            "allowed widths": {name: list(widths) for name, widths in self.allowed.items()},
            "schedule": asdict(self.schedule),
        }

    def save(self, path: Path, progress: Progress) -> None:
        """Write everything the next step depends on."""
        state = {
            "kept": {name: list(indices) for name, indices in progress.plan.kept.items()},
            "cuts": [asdict(cut) for cut in progress.cuts],
        }
        metadata = {"identity": json.dumps(self._identity()), "state": json.dumps(state)}
        save_tensors(path, progress.model.state_dict(), metadata)

    def restore(self, path: Path) -> Progress:
        """Read what ``save`` wrote."""
        tensors, metadata = load_tensors(path)
        try:
            identity, state = json.loads(metadata["identity"]), json.loads(metadata["state"])
            cuts = tuple(_cut(value) for value in state["cuts"])
            kept = dict(state["kept"])
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path} is no record of a progressive pruning ({error!r}); delete it to start again"
            ) from error
        differing = [key for key, value in self._identity().items() if identity.get(key) != value]
        if differing:
            raise CheckpointError(
                f"{path} belongs to another progressive pruning, with a different {' and '.join(differing)}; delete it "
                "to start again, or restore the old settings to go on"
            )
        plan = self.graph.plan(kept)
        small = slice_model(self.model, plan.slices, plan.sizes)
        try:
            small.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit the model ({error}); delete it to start again") from error
        return Progress(plan, small.eval(), cuts)


def _cut(value: Mapping[str, Any]) -> Cut:
    scores = {name: Score(**value[name]) for name in ("cut", "trained")}
    return Cut(value["group"], int(value["width"]), **scores, costs=dict(value["costs"]))
