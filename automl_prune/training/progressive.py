"""Progressive pruning: cut the least harmful group a little, fine-tune shortly, repeat until the budget is met.

The schedule of NetAdapt (Yang et al. 2018, arXiv:1804.03230, section 3): every step has a cost to reach. For each
group the smallest cut that reaches it alone is proposed, all proposals are scored without training, the best one is
taken and fine-tuned before the next step. Unlike there the steps are equal ratios of the cost, and proposals are
scored with recalibrated norms instead of being trained. Latency is predicted for proposals, corrected by how far the
prediction of the model before them was off, and measured for the model of every step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_prune.calibration import CalibrationSettings, collect, with_gradients
from automl_prune.channels import ChannelGraph, Plan, slice_model
from automl_prune.channels.narrowing import between, narrowed
from automl_prune.costs import cost_metrics
from automl_prune.criteria import CriterionContext, criteria, keep_best, need_of, score_groups
from automl_prune.errors import BudgetError, CheckpointError
from automl_prune.evaluation import Teacher, finetune, recalibrate, score
from automl_prune.files import load_tensors, save_tensors, tensors_digest
from automl_prune.seeding import derive_seed
from automl_prune.tasks.base import Score, Task
from automl_prune.training.goal import Goal, Schedule, within

_WIDTH_LIMITS = "(min_width, max_prune_ratio, round_to, exclude)"


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut and what followed.

    Attributes:
        group: What was cut.
        width: Its channels afterwards.
        cut: Validation score right after the cut, norms recalibrated.
        trained: Validation score after the fine-tuning.
        costs: Of the model, by metric, measured where they are not exact.
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
    goal: Goal,
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
        goal: What is to be reached.
        schedule: How to get there.
        device: Where everything runs.
        checkpoint: Safetensors file, written after every step; read first when it exists.
        on_step: Called with (steps done, steps planned, a note).
        on_cut: Called after every step done here.

    Raises:
        BudgetError: The narrowest allowed widths cost more, or all groups are narrowest and a measured cost is over.
        CheckpointError: The checkpoint is damaged, or of another run.
        EvaluationError: A fine-tuning diverged.
    """
    run = _Run(model, graph, task, goal, schedule, device)
    run.check_reachable()
    progress = run.restore(checkpoint) if checkpoint is not None and checkpoint.is_file() else run.start()
    while not goal.within(run.costs(progress)):
        progress = run.step(progress)
        if checkpoint is not None:
            run.save(checkpoint, progress)
        if on_cut is not None:
            on_cut(progress.cuts[-1])
        if on_step is not None:
            on_step(len(progress.cuts), max(schedule.steps, len(progress.cuts)), "")
    return progress


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A cut that might be made."""

    group: str
    width: int
    reaches: bool
    """Whether it alone meets the step's limits."""
    saved: float
    """How far it goes towards them, above 0."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """A cut that was made, with the model it gives and its validation score before any training."""

    proposal: _Proposal
    plan: Plan
    model: nn.Module
    score: Score


@dataclass(frozen=True, slots=True)
class _Run:
    """One run's fixed parts."""

    model: nn.Module
    graph: ChannelGraph
    task: Task
    goal: Goal
    schedule: Schedule
    device: torch.device

    def start(self) -> Progress:
        plan = self.graph.plan({})
        return Progress(plan, slice_model(self.model, plan.slices, plan.sizes), ())

    def costs(self, progress: Progress) -> Mapping[str, float]:
        """Of the model as it is."""
        return progress.cuts[-1].costs if progress.cuts else self.goal.dense

    def expected(self, progress: Progress, widths: Mapping[str, int]) -> dict[str, float]:
        """The costs of a proposal: a prediction is as far off as that of the model as it is; an exact cost is not."""
        now = self.costs(progress)
        return {
            metric: cost.at(widths) * (now[metric] / cost.at(progress.plan.widths))
            for metric, cost in self.goal.costs.items()
        }

    def check_reachable(self) -> None:
        """Of exact costs; whether a predicted one can be reached, only pruning shows."""
        narrowest = {name: widths[0] for name, widths in self.goal.allowed.items()}
        for metric, limit in self.goal.limits.items():
            least = self.goal.costs[metric].at(narrowest)
            if self.goal.costs[metric].monotone and least > limit:
                show = cost_metrics[metric].show
                raise BudgetError(
                    f"budget {metric} <= {show(limit)} cannot be reached: the narrowest allowed widths cost "
                    f"{show(least)}; raise it, or let groups be narrower {_WIDTH_LIMITS}"
                )

    def step(self, progress: Progress) -> Progress:
        """One cut with its fine-tuning."""
        number = len(progress.cuts)
        cut = self._best(progress, self._limits(progress))
        trained = finetune(
            cut.model,
            self.task,
            self.schedule.finetuning,
            seed=derive_seed("progressive", self.schedule.seed, number),
            device=self.device,
            teacher=Teacher(self.model),
        )
        result = score(trained, self.task, "val", self.device)
        costs = self.goal.costs_of(cut.plan.widths)
        record = Cut(cut.proposal.group, cut.proposal.width, cut.score, result, costs)
        return Progress(cut.plan, trained, (*progress.cuts, record))

    def _limits(self, progress: Progress) -> dict[str, float]:
        """The limits of the first step of the schedule that the model does not meet yet."""
        steps, costs = self.schedule.steps, self.costs(progress)
        every = (self.schedule.limits(self.goal.dense, self.goal.limits, step) for step in range(1, steps + 1))
        return next(limits for limits in every if not within(costs, limits))

    def _best(self, progress: Progress, limits: Mapping[str, float]) -> _Tried:
        """The best proposal by score that reaches the limits; where none does, the one that loses least per cost."""
        proposals = list(self._proposals(progress, limits))
        if not proposals:
            raise self._stuck(progress)
        reaching = [proposal for proposal in proposals if proposal.reaches]
        context = self._context(progress.model)
        groups = [narrowed(group, progress.plan) for group in self.graph.groups]
        scores = score_groups(groups, context, self.schedule.criterion)
        now = score(progress.model, self.task, "val", self.device)
        tried = [self._try(progress, proposal, scores[proposal.group]) for proposal in reaching or proposals]
        sign = 1 if self.task.metric.higher_is_better else -1
        if reaching:
            return max(tried, key=lambda one: sign * one.score.value)
        return min(tried, key=lambda one: max(0.0, sign * (now.value - one.score.value)) / one.proposal.saved)

    def _try(self, progress: Progress, proposal: _Proposal, scores: torch.Tensor) -> _Tried:
        """A proposal carried out, its norms recalibrated, nothing trained."""
        before = progress.plan.kept[proposal.group]
        kept = [before[channel] for channel in keep_best(scores, proposal.width)]
        plan = self.graph.plan({**progress.plan.kept, proposal.group: kept})
        small = slice_model(progress.model, between(progress.plan, plan), plan.sizes)
        recalibrate(small, self.task, samples=self.schedule.calibration_samples, device=self.device)
        return _Tried(proposal, plan, small, score(small, self.task, "val", self.device))

    def _stuck(self, progress: Progress) -> BudgetError:
        """No group can be cut any more, and the model is over budget."""
        costs = self.costs(progress)
        over = (
            f"{cost_metrics[metric].show(costs[metric])} {metric} where at most {cost_metrics[metric].show(limit)} "
            "are allowed"
            for metric, limit in self.goal.limits.items()
            if costs[metric] > limit
        )
        return BudgetError(
            f"every group is as narrow as it may be, and the model measures {' and '.join(over)}; raise the budget, or "
            f"let groups be narrower {_WIDTH_LIMITS}"
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

    def _proposals(self, progress: Progress, limits: Mapping[str, float]) -> Iterator[_Proposal]:
        """For each group the widest allowed width that meets the limits; where none does, the one that saves most."""
        for group, allowed in self.goal.allowed.items():
            found = []
            for width in allowed:
                if width < progress.plan.widths[group]:
                    costs = self.expected(progress, {**progress.plan.widths, group: width})
                    saved = self._saved(self.costs(progress), costs, limits)
                    found.append(_Proposal(group, width, within(costs, limits), saved))
            reaching = [proposal for proposal in found if proposal.reaches]
            if found:
                yield reaching[-1] if reaching else max(found, key=lambda proposal: proposal.saved)

    def _saved(self, before: Mapping[str, float], after: Mapping[str, float], limits: Mapping[str, float]) -> float:
        """How far a cut goes towards limits: the sum of the logarithms of what is over them; hardly at all if not."""
        over = [metric for metric, limit in limits.items() if before[metric] > limit]
        return max(sum(math.log(before[metric] / after[metric]) for metric in over), 1e-12)

    def _identity(self) -> dict[str, Any]:
        identity = {
            "model": tensors_digest(self.model.state_dict()),
            "channel groups": self.graph.digest,
            "data": self.task.digest,
            "budget": {metric: float(limit) for metric, limit in self.goal.limits.items()},
            "allowed widths": {name: list(widths) for name, widths in self.goal.allowed.items()},
            "schedule": asdict(self.schedule),
        }
        return dict(json.loads(json.dumps(identity)))  # as it is read back

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
