"""Commands that look at studies beside their fronts and reports."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="A run directory, e.g. runs/tpe.", show_default=False)],
    run_b: Annotated[Path, typer.Argument(help="Another one, of the same data.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Compare two studies: hypervolumes of their fronts, and the best model of each at every cost.

    Example: automl-prune compare runs/tpe runs/random
    """
    from automl_prune import api
    from automl_prune.terminal import comparison_tables, open_terminal

    result = api.compare(run_a, run_b)
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
    run_dir: Annotated[Path, typer.Argument(help="A run directory, e.g. runs/digits.", show_default=False)],
    host: Annotated[str, typer.Option(help="Where to listen; others can then change the study.")] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Likewise.")] = 8080,
    storage: Annotated[str | None, typer.Option(help="Database URL.")] = None,
) -> None:
    """Open optuna-dashboard on a study, on this machine alone; runs until interrupted.

    Example: automl-prune dashboard runs/digits --port 8081
    """
    from automl_prune import api
    from automl_prune.terminal import open_terminal

    api.dashboard(run_dir, host=host, port=port, storage=storage, view=open_terminal())
