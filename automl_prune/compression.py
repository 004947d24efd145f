"""Compressing without training: widths within the budget, prune, reconstruct, recalibrate, export."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from automl_prune.budget import Budget
from automl_prune.candidate import Candidate
from automl_prune.channels import Plan
from automl_prune.costs import Cost, cost_metrics
from automl_prune.costs.latency import LatencySettings, cost_of
from automl_prune.errors import BudgetError, ConfigError
from automl_prune.evaluation import Evaluator, Recipe, score
from automl_prune.export.bundle import export_model
from automl_prune.pricing import measuring
from automl_prune.projection import Projector
from automl_prune.registry import nearest
from automl_prune.report.measured import latency_sentence
from automl_prune.session import Session, choose_device, environment
from automl_prune.space import Space
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Metric, Score, Task
from automl_prune.view import ModelExported, View

Widths = Literal["uniform", "global", "global_per_cost"]
"""The same fraction of every group; the best channels of all groups; the best per unit of cost they save."""
WIDTHS: tuple[Widths, ...] = get_args(Widths)
TRIES = 5
"""How often widths are narrowed because the model they give measures over budget."""
DENSE = "dense"
PLAIN = "uniform l1, only cut"
"""What the result is set beside: the usual pruning, with nothing done after the cut."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A model of the table: costs by metric, score on validation and on test data."""

    costs: Mapping[str, Cost]
    val: Score
    test: Score


@dataclass(frozen=True, slots=True)
class Compressed:
    """What compressing gives.

    Attributes:
        model: The smaller model, in evaluation mode, on the device.
        plan: Which channels it keeps.
        metric: What scores are.
        rows: By label: the dense model, plain uniform L1 pruning within the same budget, the result.
        directory: Where it was exported; None where it was not.
    """

    model: nn.Module
    plan: Plan
    metric: Metric
    rows: Mapping[str, Scored]
    directory: Path | None

    def flat(self) -> dict[str, dict[str, float]]:
        """The rows as plain values: costs in their units, and scores, e.g. ``accuracy_val``."""
        name = self.metric.name
        return {
            label: {
                **{metric: cost.value for metric, cost in row.costs.items()},
                f"{name}_val": row.val.value,
                f"{name}_test": row.test.value,
            }
            for label, row in self.rows.items()
        }


def compress(
    model: nn.Module,
    task: Task,
    budget: Budget,
    criterion: str,
    *,
    widths: Widths,
    space: Space,
    recipe: Recipe,
    directory: RunDirectory | None,
    factory: Callable[[], nn.Module] | None,
    latency: LatencySettings,
    seed: int,
    device: str,
    view: View,
) -> Compressed:
    """What ``api.one_shot`` does, with everything there is to know of its result; see there.

    Args:
        model: The trained dense model.
        task: Its data.
        budget: Hard bounds.
        criterion: Chooses the channels.
        widths: How many every group keeps.
        space: Its width limits are honoured.
        recipe: How the pruned model is repaired; nothing is trained.
        directory: Where calibration and export go; None writes nothing.
        factory: Builds the dense model anew; by default copies ``model``.
        latency: How latency is measured, where the budget or the space asks for it.
        seed: Chooses the calibration's samples.
        device: ``auto`` or a torch device.
        view: Where progress goes.
    """
    if widths not in WIDTHS:
        raise ConfigError(f"widths: unknown choice {widths!r}; {nearest(widths, WIDTHS)}")
    place, recipe = choose_device(device), replace(recipe, finetuning=None)
    chosen = space.model_copy(update={"criteria": tuple(dict.fromkeys((criterion, "l1")))})
    session = Session.prepare(
        model, task, budget, chosen, recipe, seed=seed, device=place, view=view,
        calibration=directory.calibration if directory else None, ranking=directory.scores if directory else None,
        latency=directory.latency if directory else None, make_meter=measuring(latency),
    )  # fmt: skip
    evaluator = session.evaluator
    plan = plan_within(session, criterion, widths)
    with view.stage("Compressing") as stage:
        small = evaluator.compress(plan, on_step=stage)
    plain = Evaluator(session.model, session.graph, task, evaluator.scores, Recipe(recalibrate=False), place)
    cut = plain.plan(choose_widths(session.projector, "l1", "uniform"))
    dense = evaluator.costs(session.graph.plan({}))
    rows = {
        DENSE: Scored(dense, session.dense_val, session.dense_test),
        PLAIN: _scored(plain.compress(cut), cut, session),
        f"{widths} {criterion}": _scored(small, plan, session),
    }
    result = Compressed(small, plan, task.metric, rows, None)
    if directory is None:
        return result
    output = directory.models / f"one-shot-{criterion}-{widths}"
    info = {
        "origin": f"one-shot, {widths} widths by {criterion}",
        "val": rows[f"{widths} {criterion}"].val.figures(),
    }
    _export(session, result, output, info, factory or partial(copy.deepcopy, session.model.cpu()), view)
    session.model.to(place)
    return replace(result, directory=output)


def _export(
    session: Session,
    result: Compressed,
    output: Path,
    info: Mapping[str, Any],
    factory: Callable[[], nn.Module],
    view: View,
) -> None:
    """Write and verify the result's files, and say how fast it is."""
    about = {
        **info,
        "seed": session.seed,
        "evaluation": asdict(session.evaluator.recipe),
        "environment": environment(session.device),
    }
    with view.stage("Exporting") as stage:
        manifest = export_model(
            result.model,
            result.plan,
            session.task,
            output,
            dense=factory(),
            info=about,
            measure=session.measure_export,
        )
        stage(1, 1)
    view.say(latency_sentence(cost_of(manifest["latency"]), session.limits.get("latency")))
    view.tell(ModelExported(str(output)))


def choose_widths(projector: Projector, criterion: str, widths: Widths, share: float = 1.0) -> Candidate:
    """The candidate that spends a share of the budget with widths of a kind."""
    if widths == "uniform":
        return projector.uniform(criterion, share)
    return projector.ranked(criterion, share, per_cost=widths == "global_per_cost")


def plan_within(session: Session, criterion: str, widths: Widths) -> Plan:
    """The plan of the chosen widths; narrower ones where a cost measures over its limit, which was only predicted."""
    share = 1.0
    for _ in range(TRIES):
        plan = session.evaluator.plan(choose_widths(session.projector, criterion, widths, share))
        costs = session.evaluator.costs(plan)
        metric = max(session.limits, key=lambda name: costs[name].value / session.limits[name])
        excess = costs[metric].value / session.limits[metric]
        if excess <= 1:
            return plan
        share /= excess
    show = cost_metrics[metric].show
    raise BudgetError(
        f"{widths} widths by {criterion} still measure {show(costs[metric].value)} {metric} after {TRIES} tries, where "
        f"at most {show(session.limits[metric])} are allowed; choose a larger budget"
    )


def _scored(model: nn.Module, plan: Plan, session: Session) -> Scored:
    val, test = (score(model, session.task, split, session.device) for split in ("val", "test"))
    return Scored(session.evaluator.costs(plan), val, test)
