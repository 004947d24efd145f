"""Progressive pruning of a configured model, up to the verified export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from torch import nn

from automl_prune.config import Config
from automl_prune.costs.latency import cost_of
from automl_prune.dense import load_or_train
from automl_prune.errors import ConfigError
from automl_prune.evaluation import Teacher, finetune, score
from automl_prune.export.bundle import MANIFEST, export_model
from automl_prune.pricing import Prices, measuring, price
from automl_prune.report.measured import latency_sentence
from automl_prune.seeding import derive_seed
from automl_prune.session import choose_device, environment, trace_and_prove
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Metric, Task
from automl_prune.tasks.bounded import BoundedValidation
from automl_prune.training.goal import Goal, Schedule
from automl_prune.training.progressive import Cut, progressive
from automl_prune.view import ModelExported, Silent, View


def progressive_config(
    config: Config,
    run_dir: Path,
    *,
    steps: int = 12,
    criterion: str = "l1",
    samples: int | None = None,
    view: View | None = None,
) -> Path:
    """Prune step by step to the configured budget, fine-tune as a finalist, export and verify.

    Args:
        config: Its dense model, data, budget, space and evaluation; ``evaluation.finetune_steps`` follow every cut.
        run_dir: Progress is kept in ``progressive.safetensors`` there (the same call goes on); the model goes to
            ``progressive/``.
        steps: Cuts to the budget.
        criterion: Chooses which channels of a group go.
        samples: Validation samples for comparing proposals; by default all.
        view: Where progress goes.

    Returns:
        The model's directory.

    Raises:
        ConfigError: The directory holds a finished model, or no fine-tuning is configured.
        BudgetError: The budget cannot be reached.
    """
    directory, view, device = RunDirectory(run_dir), view or Silent(), choose_device(config.device)
    output = run_dir / "progressive"
    if (output / MANIFEST).is_file():
        raise ConfigError(f"{output} holds a finished model; remove it, or choose another --run-dir")
    if not config.evaluation.finetune_steps:
        raise ConfigError("evaluation.finetune_steps is 0; progressive pruning fine-tunes after every cut, e.g. 50")
    task = config.build_task()
    model = load_or_train(config, task, directory.baseline, view).to(device).eval()
    prices, goal = _goal(config, model, task, directory, view)
    schedule = _schedule(config, steps, criterion)
    with view.stage("Pruning step by step") as stage:
        progress = progressive(
            model, prices.graph, task if samples is None else BoundedValidation(task, samples), goal, schedule, device,
            checkpoint=run_dir / "progressive.safetensors", on_step=stage,
            on_cut=lambda cut: view.say(_in_words(cut, goal, task.metric)),
        )  # fmt: skip
    finetuning = config.evaluation.finalist(task)
    with view.stage("Fine-tuning the result") as stage:
        small = finetune(
            progress.model, task, finetuning, seed=derive_seed("progressive", config.search.seed, "final"),
            device=device, teacher=Teacher(model), on_step=stage,
        )  # fmt: skip
    val = score(small, task, "val", device)
    info = {
        "origin": "progressive pruning",
        "schedule": asdict(schedule),
        "cuts": [{**asdict(cut), "cut": cut.cut.figures(), "trained": cut.trained.figures()} for cut in progress.cuts],
        "finetuning": asdict(finetuning),
        "val": val.figures(),
        "environment": environment(device),
    }
    manifest = export_model(
        small, progress.plan, task, output, dense=config.build_model(), info=info, measure=prices.meter.measure_export
    )
    show, test = task.metric.show, manifest["accuracies"]["onnxruntime"]
    view.say(f"{task.metric.name}: {show(val.value)} validation, {show(test)} test; exported and verified in {output}")
    view.say(latency_sentence(cost_of(manifest["latency"]), prices.limits.get("latency")))
    view.tell(ModelExported(str(output)))
    return output


def _goal(config: Config, model: nn.Module, task: Task, directory: RunDirectory, view: View) -> tuple[Prices, Goal]:
    """What the model's candidates cost, and what is to be reached."""
    device, budget, space = choose_device(config.device), config.parsed_budget(), config.load_space()
    prices = price(
        model, trace_and_prove(model, task, device, view), task, budget, space,
        make_meter=measuring(config.latency.settings()), path=directory.latency, seed=config.search.seed, view=view,
    )  # fmt: skip
    view.say(f"Budget: {budget.describe(prices.dense)}")
    allowed = prices.allowed or {name: own.widths() for name, own in space.limits(prices.graph.groups).items()}
    costs = {**prices.graph.cost_models, **prices.predicted}
    return prices, Goal(prices.limits, allowed, prices.dense, costs, prices.measured)


def _schedule(config: Config, steps: int, criterion: str) -> Schedule:
    evaluation = config.evaluation
    finetuning = evaluation.finetuning(evaluation.finetune_steps)
    return Schedule(steps, finetuning, criterion, evaluation.calibration_samples, config.search.seed)


def _in_words(cut: Cut, goal: Goal, metric: Metric) -> str:
    costs = ", ".join(f"{name} {cut.costs[name] / goal.dense[name]:.1%}" for name in goal.limits)
    return (
        f"{cut.group} cut to {cut.width}: {costs} of dense; {metric.name} {metric.show(cut.cut.value)}, after "
        f"fine-tuning {metric.show(cut.trained.value)}"
    )
