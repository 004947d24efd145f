"""Progressive pruning of a configured model, up to the verified export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from automl_prune.config import Config
from automl_prune.costs.latency import cost_of
from automl_prune.dense import load_or_train
from automl_prune.errors import ConfigError
from automl_prune.evaluation import Teacher, finetune, score
from automl_prune.export.bundle import MANIFEST, export_model
from automl_prune.pricing import measuring, price
from automl_prune.report.measured import latency_sentence
from automl_prune.seeding import derive_seed
from automl_prune.session import choose_device, environment, trace_and_prove
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Task
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
    whole = config.build_task()
    task: Task = BoundedValidation(whole, samples) if samples is not None else whole
    model = load_or_train(config, whole, directory.baseline, view).to(device).eval()
    budget, space, seed = config.parsed_budget(), config.load_space(), config.search.seed
    prices = price(
        model, trace_and_prove(model, whole, device, view), whole, budget, space,
        make_meter=measuring(config.latency.settings()), path=directory.latency, seed=seed, view=view,
    )  # fmt: skip
    graph, dense = prices.graph, prices.dense
    view.say(f"Budget: {budget.describe(dense)}")
    allowed = prices.allowed or {name: limit.widths() for name, limit in space.limits(graph.groups).items()}
    goal = Goal(prices.limits, allowed, dense, {**graph.cost_models, **prices.predicted}, prices.measured)
    evaluation = config.evaluation
    finetuning = evaluation.finetuning(evaluation.finetune_steps)
    schedule = Schedule(steps, finetuning, criterion, evaluation.calibration_samples, seed)
    show = whole.metric.show

    def on_cut(cut: Cut) -> None:
        costs = ", ".join(f"{metric} {cut.costs[metric] / dense[metric]:.1%}" for metric in budget.metrics)
        view.say(
            f"{cut.group} cut to {cut.width}: {costs} of dense; {whole.metric.name} {show(cut.cut.value)}, after "
            f"fine-tuning {show(cut.trained.value)}"
        )

    with view.stage("Pruning step by step") as stage:
        progress = progressive(
            model, graph, task, goal, schedule, device,
            checkpoint=run_dir / "progressive.safetensors", on_step=stage, on_cut=on_cut,
        )  # fmt: skip
    longer = evaluation.finalist(whole)
    with view.stage("Fine-tuning the result") as stage:
        small = finetune(
            progress.model, whole, longer, seed=derive_seed("progressive", seed, "final"), device=device,
            teacher=Teacher(model), on_step=stage,
        )  # fmt: skip
    val = score(small, whole, "val", device)
    info = {
        "origin": "progressive pruning",
        "schedule": asdict(schedule),
        "cuts": [asdict(cut) for cut in progress.cuts],
        "finetuning": asdict(longer),
        "val": asdict(val),
        "environment": environment(device),
    }
    manifest = export_model(
        small, progress.plan, whole, output, dense=config.build_model(), info=info, measure=prices.meter.measure_export
    )
    test = manifest["accuracies"]["onnxruntime"]
    view.say(f"{whole.metric.name}: {show(val.value)} validation, {show(test)} test; exported and verified in {output}")
    view.say(latency_sentence(cost_of(manifest["latency"]), prices.limits.get("latency")))
    view.tell(ModelExported(str(output)))
    return output
