"""Commands that look at studies, and take models from them."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from automl_prune.cli.options import HereOption, JsonOption, RunArgument, StorageOption, TrustOption, open_terminal

app = typer.Typer()


@app.command()
def status(
    run_dir: RunArgument,
    json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Show a study's trials by state, who works on what, what failed and why, the best so far, and the time left.

    Example: automl-prune status runs/digits
    """
    from automl_prune import api

    found = api.status(run_dir, storage)
    if json:
        print(json_module.dumps(found.to_json(), indent=1))
        return
    open_terminal().say(found.in_words())


@app.command()
def front(
    run_dir: RunArgument,
    json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Show the Pareto front of a study.

    Example: automl-prune front runs/digits --json
    """
    from automl_prune import api

    record, rows = api.front(run_dir, storage)
    if json:
        print(json_module.dumps([row.flat(record.context.metric.name) for row in rows], indent=1))
        return
    view = open_terminal()
    view.show_front(rows, record.context)
    view.say(api.verdict(record))


@app.command()
def export(
    run_dir: RunArgument,
    trial: Annotated[int | None, typer.Option(help="Which trial.", show_default=False)] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Instead: the best within a budget, e.g. macs=0.4. Repeatable.")
    ] = None,
    storage: StorageOption = None,
    trust: TrustOption = None,
    set_: HereOption = None,
) -> None:
    """Fine-tune and export one chosen model as verified ONNX, weights and plan.

    Example: automl-prune export runs/digits --budget macs=0.4
    """
    from automl_prune import api

    view = open_terminal()
    model = api.export(
        run_dir,
        trial=trial,
        budget=budget or (),
        storage=storage,
        overrides=set_ or (),
        trusted=trust or (),
        view=view,
    )
    view.say(f"Exported: {model}")


@app.command()
def report(
    run_dir: RunArgument,
    figures: Annotated[bool, typer.Option("--figures", help="Write every figure as SVG and PNG too.")] = False,
    storage: StorageOption = None,
) -> None:
    """Rebuild report.html, summary.md and the front's tables from the study's records alone.

    Example: automl-prune report runs/digits --figures
    """
    from automl_prune import api

    page, *images = api.report(run_dir, storage, figures=figures)
    view = open_terminal()
    view.say(f"Report: {page}")
    if images:
        view.say(f"Figures: {len(images)} files in {images[0].parent}")


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="A run directory, e.g. runs/tpe.", show_default=False)],
    run_b: Annotated[Path, typer.Argument(help="Another one, of the same data.", show_default=False)],
    json: JsonOption = False,
    storage: StorageOption = None,
) -> None:
    """Compare two studies: hypervolumes of their fronts, and the best model of each at every cost.

    Example: automl-prune compare runs/tpe runs/random
    """
    from automl_prune import api
    from automl_prune.terminal import comparison_tables

    result = api.compare(run_a, run_b, storage)
    if json:
        print(json_module.dumps(result.to_json(), indent=1))
        return
    view = open_terminal()
    for table in comparison_tables(result):
        view.console.print(table)
    if any(level.gain for level in result.levels):
        view.say(f"gain: how much better {run_b} is; * the 95 % interval leaves out zero")
    view.say(result.verdict)


@app.command()
def dashboard(
    run_dir: RunArgument,
    host: Annotated[str, typer.Option(help="Where to listen; others can then change the study.")] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Likewise.")] = 8080,
    storage: StorageOption = None,
) -> None:
    """Open optuna-dashboard on a study, with our front attached, on this machine alone; runs until interrupted.

    Example: automl-prune dashboard runs/digits --port 8081
    """
    from automl_prune import api

    api.dashboard(run_dir, host=host, port=port, storage=storage, view=open_terminal())
