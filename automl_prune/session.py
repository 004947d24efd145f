"""Everything a run needs, prepared once: the dense model, its channel graph, the budget's projection, the scores."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_prune.budget import Budget
from automl_prune.calibration import Calibration, CalibrationSettings, load_or_collect
from automl_prune.candidate import Candidate
from automl_prune.channels import ChannelGraph, prove
from automl_prune.costs import cost_metrics
from automl_prune.costs.latency import LatencyMeasurement, LatencySettings
from automl_prune.criteria import CriterionContext, is_measured, load_or_score, need_of
from automl_prune.criteria import criteria as known_criteria
from automl_prune.errors import ModelError
from automl_prune.evaluation.evaluator import Climb, Evaluator, Recipe, always
from automl_prune.evaluation.reconstruct import unreconstructible
from automl_prune.evaluation.record import Evaluation
from automl_prune.evaluation.score import score
from automl_prune.files import tensors_digest
from automl_prune.machine import cores, processor
from automl_prune.pricing import MakeMeter, Prices, measuring, price
from automl_prune.projection import Projector
from automl_prune.space import Space
from automl_prune.study.invitation import Invitation
from automl_prune.tasks import Score, Task
from automl_prune.view import View

_VERSIONS = ("automl-prune", "torch", "torchvision", "optuna", "onnx", "onnxruntime", "numpy")


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; any other name is torch's own.

    Raises:
        ModelError: The device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r} cannot be used here ({error}); choose 'auto' or 'cpu'") from error
    return device


def environment(device: torch.device) -> dict[str, str]:
    """Versions, processor and threads, for records that must say where they come from."""
    found = {name: version(name) for name in _VERSIONS}
    return {
        **found,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": str(cores()),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }


def known_identity(
    model: nn.Module, task: Task, space: Space, recipe: Recipe, *, strategy: str, seed: int
) -> dict[str, Any]:
    """What of a study's identity is known before anything is computed, and perhaps written over what another needs."""
    return {
        "model": tensors_digest(model.state_dict()),
        "data": task.digest,
        "metric": asdict(task.metric),
        "space": space.model_dump(mode="json"),
        "evaluation": asdict(recipe),
        "strategy": strategy,
        "seed": seed,
    }


@dataclass(frozen=True, slots=True)
class Findings:
    """What another process has found of the same model and data, so that it is not found again.

    Attributes:
        groups: Digest of the proved channel graph.
        protected: Reason by name of the groups that the proof protected, and of other channels that are skipped.
        dense_val: The dense model's score on validation data.
        dense_test: The dense model's score on test data.
    """

    groups: str
    protected: Mapping[str, str]
    dense_val: Score
    dense_test: Score

    @classmethod
    def of(cls, invitation: Invitation) -> Findings:
        """What the search that invites has found."""
        context = invitation.context
        protected = {name: reason for name, _, reason in context.skipped}
        return cls(str(invitation.identity.get("channel groups")), protected, context.dense_val, context.dense_test)

    def proved(self, graph: ChannelGraph) -> ChannelGraph | None:
        """The graph as it was proved; None when that cannot be told from these findings."""
        protected = {name: reason for name, reason in self.protected.items() if name in graph.widths}
        graph = graph.without(protected)
        return graph if graph.digest == self.groups else None


def trace_and_prove(
    model: nn.Module, task: Task, device: torch.device, view: View, findings: Findings | None = None
) -> ChannelGraph:
    """The model's proved channel graph; says what was found.

    Raises:
        ModelError: Nothing is prunable; the message holds the reasons.
    """
    example = tuple(tensor.to(device) for tensor in task.example_inputs)
    traced = ChannelGraph.trace(model, example)
    graph = findings.proved(traced) if findings else None
    if graph is None:
        with view.stage("Proving channel groups") as stage:
            graph = prove(model, traced, example, on_step=stage)
    if not graph.groups:
        reasons = "; ".join(f"{s.name}: {s.reason}" for s in graph.skipped[:5])
        raise ModelError(f"no channel of the model can be pruned ({reasons})")
    channels = sum(graph.widths.values())
    protected = f", {len(graph.skipped)} protected" if graph.skipped else ""
    view.say(f"{len(graph.groups)} prunable groups with {channels} channels, proved{protected}")
    return graph


def calibrate(
    model: nn.Module,
    graph: ChannelGraph,
    task: Task,
    recipe: Recipe,
    criteria: Sequence[str],
    path: Path | None,
    *,
    seed: int,
    device: torch.device,
    view: View,
) -> Calibration | None:
    """The dense model's calibration, from ``path`` or collected and kept there; None when nothing needs it.

    Reconstruction and criteria of statistics need it. Says which layers cannot be reconstructed.
    """
    needed = {need_of(known_criteria[name]) for name in criteria}
    if not recipe.reconstruct and needed <= {"weights"}:
        return None
    settings = CalibrationSettings(samples=recipe.calibration_samples, seed=seed)
    calibration = load_or_collect(
        path, model, task, settings, device=device, gradients="gradients" in needed, view=view
    )
    left = unreconstructible(graph, calibration) if recipe.reconstruct else {}
    if left:
        view.say(
            f"{len(left)} weights stay as they are cut, without reconstruction "
            f"({_some([f'{name}: {reason}' for name, reason in left.items()], '; ')})"
        )
    return calibration


def rank(
    graph: ChannelGraph, context: CriterionContext, criteria: Sequence[str], path: Path | None, view: View
) -> dict[str, dict[str, torch.Tensor]]:
    """Scores by criterion and group, from ``path`` or computed and kept there; says what is not ranked as asked."""
    calibrated = [name for name in criteria if need_of(known_criteria[name]) != "weights"]
    scores = load_or_score(path, graph, context, criteria, view)
    unread = [group.name for group in graph.groups if not is_measured(context, group)] if calibrated else []
    if unread:
        view.say(
            f"{len(unread)} groups are read by no layer with statistics; {', '.join(calibrated)} rank them by l1 "
            f"({_some(unread, ', ')})"
        )
    return scores


def _some(names: Sequence[str], separator: str) -> str:
    """The first few of many, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return separator.join(names[:5]) + more


@dataclass(frozen=True)
class Session:
    """A prepared search. Immutable; make it with ``Session.prepare``.

    Attributes:
        model: The dense model on ``device``, in evaluation mode.
        task: Its data.
        graph: Its proved channel graph.
        budget: As given.
        prices: What candidates cost, and the absolute bounds.
        space: What is searched.
        projector: From points to candidates within the budget.
        evaluator: From candidates to scores.
        dense_val: The dense model's score on validation data.
        dense_test: The dense model's score on test data.
        device: Where everything runs.
        seed: Of everything random.
    """

    model: nn.Module
    task: Task
    graph: ChannelGraph
    budget: Budget
    prices: Prices
    space: Space
    projector: Projector
    evaluator: Evaluator
    dense_val: Score
    dense_test: Score
    device: torch.device
    seed: int

    @property
    def limits(self) -> Mapping[str, float]:
        """Absolute bounds by metric."""
        return self.prices.limits

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        task: Task,
        budget: Budget,
        space: Space,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        view: View,
        calibration: Path | None = None,
        ranking: Path | None = None,
        latency: Path | None = None,
        make_meter: MakeMeter | None = None,
        findings: Findings | None = None,
    ) -> Session:
        """Trace, prove, check that the budget can be reached, calibrate, and score the dense model.

        ``calibration``, ``ranking`` and ``latency`` are the files where the calibration, the scores that come from it
        and the predictor of latency are kept; they are made when something needs them, latency by ``make_meter``.
        With ``findings``, groups are proved and the dense model is scored only where these do not say the result.

        Raises:
            ModelError: The model cannot run or be pruned.
            BudgetError: The budget cannot be reached; the message holds the reachable minimum.
        """
        model = model.to(device).eval()
        graph = trace_and_prove(model, task, device, view, findings)
        prices = price(
            model,
            graph,
            task,
            budget,
            space,
            make_meter=make_meter or measuring(LatencySettings()),
            path=latency,
            seed=seed,
            view=view,
        )
        graph = prices.graph
        found = calibrate(model, graph, task, recipe, space.criteria, calibration, seed=seed, device=device, view=view)
        scores = rank(graph, CriterionContext.of(model, seed, found), space.criteria, ranking, view)
        view.say(f"Budget: {budget.describe(prices.dense)}")
        projector = Projector(graph, space, prices.projected, scores, prices.predicted, prices.allowed)
        for metric, (least, most) in projector.reachable().items():
            dense, show = prices.dense[metric], cost_metrics[metric].show
            span = f"{least / dense:.1%} to {most / dense:.1%} of dense ({show(least)} to {show(most)})"
            view.say(f"Reachable {metric}: {span}")
        if findings is not None:
            dense_val, dense_test = findings.dense_val, findings.dense_test
        else:
            with view.stage("Scoring the dense model") as stage:
                dense_val = score(model, task, "val", device)
                stage(1, 2)
                dense_test = score(model, task, "test", device)
                stage(2, 2)
        show = task.metric.show
        view.say(f"Dense {task.metric.name}: {show(dense_val.value)} validation, {show(dense_test.value)} test")
        evaluator = Evaluator(model, graph, task, scores, recipe, device, found, prices.measured)
        return cls(model, task, graph, budget, prices, space, projector, evaluator, dense_val, dense_test, device, seed)

    def evaluate(self, candidate: Candidate, seed: int, climb: Climb = always) -> Evaluation:
        """``Evaluator.evaluate`` with the session's seed, whatever the trial's is.

        So all candidates are fine-tuned on the same batches in the same order: what differs between them is they
        themselves (common random numbers), and the teacher answers every batch once.
        """
        del seed
        return self.evaluator.evaluate(candidate, self.seed, climb)

    def measure_export(self, file: bytes, model: nn.Module) -> LatencyMeasurement:
        """The latency of an exported model beside the dense one's, given as an ONNX file and as the same module."""
        return self.prices.meter.measure_export(file, model)

    def identity(self, *, strategy: str) -> dict[str, Any]:
        """What makes two studies the same study: resuming checks each entry by name."""
        known = known_identity(
            self.model, self.task, self.space, self.evaluator.recipe, strategy=strategy, seed=self.seed
        )
        return {
            **known,
            "channel groups": self.graph.digest,
            "budget": {name: float(value) for name, value in self.limits.items()},
            **self.prices.identity,
        }
