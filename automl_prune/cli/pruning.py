"""Commands that prune without a search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from automl_prune.cli.options import (
    ConfigArgument,
    EventsOption,
    RunDirOption,
    SetOption,
    load_config,
    open_terminal,
    watched,
)

app = typer.Typer()


@app.command("one-shot")
def one_shot(
    config: ConfigArgument,
    criterion: Annotated[str, typer.Option(help="Chooses the channels.")] = "obs",
    widths: Annotated[
        Literal["uniform", "global", "global_per_cost"],
        typer.Option(help="The same fraction everywhere; the best channels of all groups; those per cost saved."),
    ] = "uniform",
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Reconstruct all layers at once: faster, a little worse.")
    ] = False,
    run_dir: RunDirOption = None,
    json: EventsOption = False,
    set_: SetOption = None,
) -> None:
    """Compress now, without any training, and export the verified model.

    Example: automl-prune one-shot experiments/digits/config.yaml --widths global
    """
    from automl_prune import api
    from automl_prune.events import JsonLines
    from automl_prune.terminal import compressed_as_table

    with watched(json=json) as view:
        loaded = load_config(config, set_)
        where, sequential = run_dir or Path("runs") / loaded.name, not at_once
        result = api.one_shot_config(
            loaded, where, criterion=criterion, widths=widths, sequential=sequential, view=view
        )
        if isinstance(view, JsonLines):
            view.write("result", {"path": str(result.directory), "models": result.flat()})
            return
        view.console.print(compressed_as_table(result))
        view.say(f"Exported and verified: {result.directory}")


@app.command()
def sensitivity(
    config: ConfigArgument,
    criterion: Annotated[str, typer.Option(help="Which channels of a group go first.")] = "l1",
    ratio: Annotated[
        list[float] | None, typer.Option(help="Share of channels to remove. Repeatable. [default: .25 .5 .75 .9]")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Validation samples. [default: all]")] = None,
    reconstruct: Annotated[bool, typer.Option(help="Measure once more with reconstructed layers.")] = True,
    run_dir: RunDirOption = None,
    set_: SetOption = None,
) -> None:
    """Show how much accuracy every channel group costs when it alone is pruned; the same command resumes.

    Example: automl-prune sensitivity experiments/digits/config.yaml --ratio 0.5 --ratio 0.75
    """
    from automl_prune import api
    from automl_prune.sensitivity import RATIOS
    from automl_prune.terminal import sensitivity_tables

    view, loaded = open_terminal(), load_config(config, set_)
    where = run_dir or Path("runs") / loaded.name
    result = api.sensitivity(
        loaded,
        where,
        criterion=criterion,
        ratios=ratio or RATIOS,
        samples=samples,
        reconstruct=reconstruct,
        view=view,
    )
    for table in sensitivity_tables(result):
        view.console.print(table)


@app.command()
def progressive(
    config: ConfigArgument,
    steps: Annotated[int, typer.Option(min=1, help="Cuts from the dense model to the budget.")] = 12,
    criterion: Annotated[str, typer.Option(help="Which channels of a group go first.")] = "l1",
    samples: Annotated[int | None, typer.Option(min=1, help="Validation samples per proposal. [default: all]")] = None,
    run_dir: RunDirOption = None,
    json: EventsOption = False,
    set_: SetOption = None,
) -> None:
    """Prune the least harmful group a little, fine-tune, repeat until the budget; the same command resumes.

    Example: automl-prune progressive experiments/digits/config.yaml --steps 8
    """
    from automl_prune import api
    from automl_prune.events import JsonLines

    with watched(json=json) as view:
        loaded = load_config(config, set_)
        where = run_dir or Path("runs") / loaded.name
        path = api.progressive_config(loaded, where, steps=steps, criterion=criterion, samples=samples, view=view)
        if isinstance(view, JsonLines):
            view.write("result", {"path": str(path)})


@app.command()
def sparsify(
    config: ConfigArgument,
    amount: Annotated[float, typer.Option(help="Share of the weights that become zero, between 0 and 1.")] = 0.8,
    method: Annotated[
        str, typer.Option(help="random, l1, ln_structured, global, or your own as package.module:name.")
    ] = "l1",
    layer: Annotated[list[str] | None, typer.Option(help="Mask only this layer. Repeatable. [default: all]")] = None,
    finetune_steps: Annotated[int, typer.Option(min=0, help="Steps of fine-tuning with the masks kept.")] = 0,
    run_dir: RunDirOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file when it exists.")] = False,
    set_: SetOption = None,
) -> None:
    """Set single weights to zero (unstructured pruning): smaller when compressed, but not faster.

    Example: automl-prune sparsify experiments/digits/config.yaml --amount 0.8 --method global
    """
    from automl_prune import api
    from automl_prune.redaction import command_without_secrets
    from automl_prune.terminal import sparsified_tables
    from automl_prune.training.unstructured import Masking

    view, loaded = open_terminal(), load_config(config, set_)
    masking = Masking(amount, method, tuple(layer or ()), loaded.search.seed)
    command = command_without_secrets(["automl-prune", *sys.argv[1:]])
    where = run_dir or Path("runs") / loaded.name
    result = api.sparsify(
        loaded, where, masking, finetune_steps=finetune_steps, force=force, command=command, view=view
    )
    for table in sparsified_tables(result, loaded.build_task().metric):
        view.console.print(table)
    view.say(result.verdict)
