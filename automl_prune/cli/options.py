"""What commands share: arguments, options, and where their progress goes. Heavy imports wait until one runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automl_prune.errors import AutomlPruneError

if TYPE_CHECKING:
    from automl_prune.config import Config
    from automl_prune.events import JsonLines
    from automl_prune.terminal import Terminal

ConfigArgument = Annotated[Path, typer.Argument(help="A config.yaml.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(help="A run directory, e.g. runs/digits.", show_default=False)]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set search.seed=1. Repeatable.")]
HereOption = Annotated[
    list[str] | None, typer.Option("--set", help="What differs here: --set data.root=/data/images. Repeatable.")
]
EventsOption = Annotated[bool, typer.Option("--json", help="Events for machines: a JSON object per line on stdout.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable.")]
RunDirOption = Annotated[Path | None, typer.Option(help="Where everything is written. [default: runs/NAME]")]
StorageOption = Annotated[
    str | None,
    typer.Option(help="Database URL. [default: the journal in the run directory, else $AUTOML_PRUNE_STORAGE]"),
]
TrustOption = Annotated[
    list[str] | None,
    typer.Option("--trust", help="Package whose functions the study's configuration may name. Repeatable."),
]


def load_config(path: Path, overrides: list[str] | None) -> Config:
    """The configuration of a command."""
    from automl_prune.config import Config

    return Config.load(path, overrides or [])


def open_terminal() -> Terminal:
    """Where people read."""
    from automl_prune.terminal import open_terminal

    return open_terminal()


def message_of(error: AutomlPruneError | OSError) -> str:
    """What people are told of an error that they can mend."""
    if isinstance(error, AutomlPruneError):
        return str(error)
    place = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{place}; check the path, its permissions and free space"


@contextmanager
def watched(*, json: bool) -> Iterator[Terminal | JsonLines]:
    """Where a command's progress goes: the terminal, or events, of which an error is the last."""
    if not json:
        yield open_terminal()
        return
    from automl_prune.events import JsonLines

    events = JsonLines(sys.stdout)
    try:
        yield events
    except KeyboardInterrupt:
        events.write("error", {"message": "interrupted; the same command resumes", "status": 130})
        raise
    except (AutomlPruneError, OSError) as error:
        events.write("error", {"message": message_of(error), "status": 2})
        raise
