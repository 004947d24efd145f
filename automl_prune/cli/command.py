"""The program: its commands in the order of ``--help``, and what becomes of errors and signals."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from automl_prune.cli import dense, pruning, searches, studies, workers
from automl_prune.cli.options import message_of
from automl_prune.errors import AutomlPruneError, Interrupted

app = typer.Typer(
    name="automl-prune",
    help="Budgeted structured pruning of vision models: from a trained network and a budget to a verified front.",
    epilog="Exit status: 0 done, 2 wrong input (one message says what and how to fix it), 130 interrupted (the same "
    "command resumes).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (searches, studies, pruning, dense, workers):
    app.add_typer(part.app)


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
    except KeyboardInterrupt:
        status = 130
    except (AutomlPruneError, OSError) as error:
        print(f"Error: {message_of(error)}", file=sys.stderr)
    if status == 130:
        print("\nInterrupted; what was finished is kept. The same command resumes.", file=sys.stderr)
    sys.exit(status)
