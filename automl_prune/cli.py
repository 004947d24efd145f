"""The command ``automl-prune``. Every command is a thin call of ``api``; heavy imports wait until one runs."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from automl_prune import cli_studies, cli_workers
from automl_prune.errors import AutomlPruneError, Interrupted

if TYPE_CHECKING:
    from automl_prune.api import SearchResult
    from automl_prune.config import Config
    from automl_prune.events import JsonLines
    from automl_prune.terminal import Terminal

app = typer.Typer(
    name="automl-prune",
    help="Budgeted structured pruning of vision models: from a trained network and a budget to a verified front.",
    epilog="Exit status: 0 done, 2 wrong input (one message says what and how to fix it), 130 interrupted (the same "
    "command resumes).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigArgument = Annotated[Path, typer.Argument(help="A config.yaml.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(help="A run directory, e.g. runs/digits.", show_default=False)]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set search.seed=1. Repeatable.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Events for machines: a JSON object per line on stdout.")]
RunDirOption = Annotated[Path | None, typer.Option(help="Where everything is written. [default: runs/NAME]")]


def _config(path: Path, overrides: list[str] | None) -> Config:
    from automl_prune.config import Config

    return Config.load(path, overrides or [])


def _terminal() -> Terminal:
    from automl_prune.terminal import open_terminal

    return open_terminal()


@contextmanager
def _watched(*, json: bool) -> Iterator[Terminal | JsonLines]:
    """Where a command's progress goes: the terminal, or events, of which an error is the last."""
    if not json:
        yield _terminal()
        return
    from automl_prune.events import JsonLines

    events = JsonLines(sys.stdout)
    try:
        yield events
    except (KeyboardInterrupt, Interrupted):
        events.write("error", {"message": "interrupted; the same command resumes", "status": 130})
        raise
    except AutomlPruneError as error:
        events.write("error", {"message": str(error), "status": 2})
        raise


@app.command()
def search(
    config: ConfigArgument,
    run_dir: RunDirOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all. [default: the config's]")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL. [default: a journal in the run directory]")] = None,
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
    json: JsonOption = False,
    set_: SetOption = None,
) -> None:
    """Search for the best models under a budget, or resume the search a run directory holds.

    Example: automl-prune search experiments/digits/config.yaml --trials 60 --workers 2
    """
    from automl_prune import api

    with _watched(json=json) as view:
        loaded = _config(config, set_)
        where = run_dir or Path("runs") / loaded.name
        given = tuple(name.strip() for name in devices.split(",")) if devices else ()
        ray = api.Ray(ray_address, worker_cpus, worker_gpus) if launcher == "ray" else None
        team = api.Team(workers or max(1, len(given)), given, artifacts, ray)
        result = api.search_config(loaded, where, trials=trials, storage=storage, workers=team, view=view)
        _show(result, view)


def _show(result: SearchResult, view: Terminal | JsonLines) -> None:
    """What a search has found: its front, the verdict, and where the report is."""
    from automl_prune import api
    from automl_prune.events import JsonLines

    context, verdict, report = result.record.context, api.verdict(result.record), result.run_dir / "report.html"
    if isinstance(view, JsonLines):
        rows = [row.flat(context.metric.name) for row in result.front]
        view.write("result", {"run_dir": str(result.run_dir), "report": str(report), "verdict": verdict, "front": rows})
        return
    view.show_front(result.front, context)
    view.say(verdict)
    view.say(f"Report: {report}")


@app.command()
def train(
    config: ConfigArgument,
    output: Annotated[Path | None, typer.Option(help="File to write. [default: the config's model.weights]")] = None,
    sparse: Annotated[
        Literal["bn", "kernel"] | None,
        typer.Option(help="Also drive channels to zero: their BatchNorm scales, or all their weights."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file when it exists.")] = False,
    json: JsonOption = False,
    set_: SetOption = None,
) -> None:
    """Train the dense model: deterministic, with a checkpoint after every epoch; the same command resumes.

    Example: automl-prune train experiments/fashion_mnist_resnet20/config.yaml --set data.root=/data/fashion-mnist
    """
    from automl_prune import api
    from automl_prune.config import without_secrets
    from automl_prune.events import JsonLines

    command = without_secrets(shlex.join(["automl-prune", *sys.argv[1:]]))
    with _watched(json=json) as view:
        weights = api.train(_config(config, set_), output, sparse=sparse, force=force, command=command, view=view)
        if isinstance(view, JsonLines):
            view.write("result", {"weights": str(weights)})


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
    from automl_prune.config import without_secrets
    from automl_prune.terminal import sparsified_tables
    from automl_prune.training.unstructured import Masking

    view, loaded = _terminal(), _config(config, set_)
    masking = Masking(amount, method, tuple(layer or ()), loaded.search.seed)
    command = without_secrets(shlex.join(["automl-prune", *sys.argv[1:]]))
    where = run_dir or Path("runs") / loaded.name
    result = api.sparsify(
        loaded, where, masking, finetune_steps=finetune_steps, force=force, command=command, view=view
    )
    for table in sparsified_tables(result, loaded.build_task().metric):
        view.console.print(table)
    view.say(result.verdict)


@app.command()
def profile(config: ConfigArgument, set_: SetOption = None) -> None:
    """Show the dense model's costs, latency, slowest layers and channel groups, and what cannot be pruned and why.

    Example: automl-prune profile experiments/digits/config.yaml
    """
    from automl_prune import api

    view = _terminal()
    view.say(api.profile(_config(config, set_), view).explain())


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
    json: JsonOption = False,
    set_: SetOption = None,
) -> None:
    """Compress now, without any training, and export the verified model.

    Example: automl-prune one-shot experiments/digits/config.yaml --widths global
    """
    from automl_prune import api
    from automl_prune.events import JsonLines
    from automl_prune.terminal import compressed_as_table

    with _watched(json=json) as view:
        loaded = _config(config, set_)
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

    view, loaded = _terminal(), _config(config, set_)
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
    json: JsonOption = False,
    set_: SetOption = None,
) -> None:
    """Prune the least harmful group a little, fine-tune, repeat until the budget; the same command resumes.

    Example: automl-prune progressive experiments/digits/config.yaml --steps 8
    """
    from automl_prune import api
    from automl_prune.events import JsonLines

    with _watched(json=json) as view:
        loaded = _config(config, set_)
        where = run_dir or Path("runs") / loaded.name
        path = api.progressive_config(loaded, where, steps=steps, criterion=criterion, samples=samples, view=view)
        if isinstance(view, JsonLines):
            view.write("result", {"path": str(path)})


@app.command()
def status(
    run_dir: RunArgument,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    storage: Annotated[str | None, typer.Option(help="Database URL.")] = None,
) -> None:
    """Show a study's trials by state, who works on what, what failed and why, the best so far, and the time left.

    Example: automl-prune status runs/digits
    """
    import json as json_module

    from automl_prune import api

    found = api.status(run_dir, storage)
    if json:
        print(json_module.dumps(found.to_json(), indent=1))
        return
    _terminal().say(found.in_words())


@app.command()
def front(
    run_dir: RunArgument,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    storage: Annotated[str | None, typer.Option(help="Database URL.")] = None,
) -> None:
    """Show the Pareto front of a study.

    Example: automl-prune front runs/digits --json
    """
    import json as json_module

    from automl_prune import api

    record, rows = api.front(run_dir, storage)
    if json:
        print(json_module.dumps([row.flat(record.context.metric.name) for row in rows], indent=1))
        return
    view = _terminal()
    view.show_front(rows, record.context)
    view.say(api.verdict(record))


@app.command()
def export(
    run_dir: RunArgument,
    trial: Annotated[int | None, typer.Option(help="Which trial.", show_default=False)] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Instead: the best within a budget, e.g. macs=0.4. Repeatable.")
    ] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL.")] = None,
    trust: cli_workers.TrustOption = None,
) -> None:
    """Fine-tune and export one chosen model as verified ONNX, weights and plan.

    Example: automl-prune export runs/digits --budget macs=0.4
    """
    from automl_prune import api

    view = _terminal()
    model = api.export(run_dir, trial=trial, budget=budget or [], storage=storage, trusted=trust or (), view=view)
    view.say(f"Exported: {model}")


@app.command()
def retarget(
    run_dir: RunArgument,
    budget: Annotated[list[str], typer.Option(help="The new budget, e.g. macs=0.3. Repeatable.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Run directory. [default: RUN_DIR/retargets/macs=0.3]")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL of the search.")] = None,
    json: JsonOption = False,
    trust: cli_workers.TrustOption = None,
) -> None:
    """Answer a new budget from a finished search: its evaluations are reused, only the finalists are trained.

    Example: automl-prune retarget runs/digits --budget macs=0.3
    """
    from automl_prune import api

    with _watched(json=json) as view:
        wanted, trusted = api.budget_of(budget), tuple(trust or ())
        _show(api.retarget(run_dir, budget=wanted, output=output, storage=storage, trusted=trusted, view=view), view)


@app.command()
def report(
    run_dir: RunArgument,
    figures: Annotated[bool, typer.Option("--figures", help="Write every figure as SVG and PNG too.")] = False,
    storage: Annotated[str | None, typer.Option(help="Database URL.")] = None,
) -> None:
    """Rebuild report.html, summary.md and the front's tables from the study's records alone.

    Example: automl-prune report runs/digits --figures
    """
    from automl_prune import api

    page, *images = api.report(run_dir, storage, figures=figures)
    view = _terminal()
    view.say(f"Report: {page}")
    if images:
        view.say(f"Figures: {len(images)} files in {images[0].parent}")


app.add_typer(cli_studies.app)
app.add_typer(cli_workers.app)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"automl-prune {installed('automl-prune')}")
        raise typer.Exit


def _stop(number: int, frame: Any) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def main() -> None:
    """Run the command line; errors the user can fix are one message and exit status 2."""
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, _stop)  # the terminal or the connection was closed
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # factories of a configuration may lie where the command is run
    status = 2
    try:
        app(prog_name="automl-prune")
    except SystemExit as ended:  # typer always ends so: 0, 2 for wrong usage, 130 for Ctrl-C
        status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except (KeyboardInterrupt, Interrupted):
        status = 130
    except AutomlPruneError as error:
        print(f"Error: {error}", file=sys.stderr)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(
            f"Error: {error.strerror or error}{place}; check the path, its permissions and free space", file=sys.stderr
        )
    if status == 130:
        print("\nInterrupted; what was finished is kept. The same command resumes.", file=sys.stderr)
    sys.exit(status)
