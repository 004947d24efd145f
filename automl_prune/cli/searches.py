"""Commands that search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from automl_prune.cli.options import (
    ConfigArgument,
    EventsOption,
    HereOption,
    RunArgument,
    RunDirOption,
    SetOption,
    StorageOption,
    TrustOption,
    load_config,
    watched,
)

if TYPE_CHECKING:
    from automl_prune.api import SearchResult
    from automl_prune.events import JsonLines
    from automl_prune.terminal import Terminal

app = typer.Typer()


@app.command()
def search(
    config: ConfigArgument,
    run_dir: RunDirOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all. [default: the config's]")] = None,
    storage: StorageOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that search. [default: 1, or one per device]")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Given out to the workers in turn, e.g. cuda:0,cuda:1. [default: the config's]")
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(help="Folder or s3://bucket/prefix for workers on other machines. [default: the run directory]"),
    ] = None,
    launcher: Annotated[
        Literal["processes", "ray"], typer.Option(help="Where workers run: on this machine, or on a Ray cluster.")
    ] = "processes",
    ray_address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster: auto, ray://head:10001. [default: Ray on this machine]")
    ] = None,
    worker_cpus: Annotated[float, typer.Option(min=0, help="Cores of each worker on Ray.")] = 1.0,
    worker_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker on Ray.")] = 0.0,
    log: Annotated[
        list[str] | None,
        typer.Option(help="Log to mlflow:URI or tensorboard:DIR too (extras mlflow, tensorboard). Repeatable."),
    ] = None,
    json: EventsOption = False,
    set_: SetOption = None,
) -> None:
    """Search for the best models under a budget, or resume the search a run directory holds.

    Example: automl-prune search experiments/digits/config.yaml --trials 60 --workers 2
    """
    from automl_prune import api
    from automl_prune.loggers import logged

    with watched(json=json) as view:
        loaded = load_config(config, set_)
        where = run_dir or Path("runs") / loaded.name
        given = tuple(name.strip() for name in devices.split(",")) if devices else ()
        ray = api.Ray(ray_address, worker_cpus, worker_gpus) if launcher == "ray" else None
        team = api.Team(workers or max(1, len(given)), given, artifacts, ray)
        with logged(view, log or (), where) as both:
            result = api.search_config(loaded, where, trials=trials, storage=storage, workers=team, view=both)
        show_result(result, view)


@app.command()
def retarget(
    run_dir: RunArgument,
    budget: Annotated[list[str], typer.Option(help="The new budget, e.g. macs=0.3. Repeatable.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Run directory. [default: RUN_DIR/retargets/macs=0.3]")] = None,
    storage: StorageOption = None,
    json: EventsOption = False,
    trust: TrustOption = None,
    set_: HereOption = None,
) -> None:
    """Answer a new budget from a finished search: its evaluations are reused, only the finalists are trained.

    Example: automl-prune retarget runs/digits --budget macs=0.3
    """
    from automl_prune import api

    with watched(json=json) as view:
        result = api.retarget(
            run_dir,
            budget=api.budget_of(budget),
            output=output,
            storage=storage,
            overrides=set_ or (),
            trusted=trust or (),
            view=view,
        )
        show_result(result, view)


def show_result(result: SearchResult, view: Terminal | JsonLines) -> None:
    """What a search has found: its front, the verdict, and where the report is."""
    from automl_prune import api
    from automl_prune.events import JsonLines

    if isinstance(view, JsonLines):
        return  # the last event said all that
    view.show_front(result.front, result.record.context)
    view.say(api.verdict(result.record))
    view.say(f"Report: {result.run_dir / 'report.html'}")
