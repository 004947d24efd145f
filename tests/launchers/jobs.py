"""What the launchers' tests have workers do. Imports nothing heavy, so that a worker starts at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from automl_prune.errors import DataError


def note(folder: str, number: int, device: str | None, say: Callable[[str], None], **rest: object) -> None:
    """Leaves a file that says what it was given."""
    print("what the user's code prints is no word of the worker")
    facts = {"device": device, "threads": os.environ["OMP_NUM_THREADS"], **rest}
    (Path(folder) / f"{number}.json").write_text(json.dumps(facts), encoding="utf-8")
    say("done")


def die(folder: str, number: int, device: str | None, say: Callable[[str], None], times: int = 10**6) -> None:
    """Kills itself, so many times for every number."""
    marks = Path(folder) / f"deaths-{number}"
    with marks.open("a", encoding="utf-8") as file:
        file.write("x")
    if marks.stat().st_size <= times:
        os.kill(os.getpid(), 9)


def fail(folder: str, number: int, device: str | None, say: Callable[[str], None]) -> None:
    """The second finds its data missing while the first works."""
    if number == 0:
        wait(folder, number, device, say)
    while not (Path(folder) / "started-0").exists():
        time.sleep(0.01)
    raise DataError("no data here")


def crash(folder: str, number: int, device: str | None, say: Callable[[str], None]) -> None:
    """An error that nobody expected."""
    raise ZeroDivisionError("a mistake of the programmer")


def wait(folder: str, number: int, device: str | None, say: Callable[[str], None]) -> None:
    """Works until it is interrupted, which it takes note of."""
    (Path(folder) / f"started-{number}").write_text(str(os.getpid()), encoding="utf-8")
    try:
        for _ in range(60_000):  # an evaluation comes back to Python often, which Ray's interrupt waits for
            time.sleep(0.01)
    except KeyboardInterrupt:
        say("handed back")
        (Path(folder) / f"interrupted-{number}").touch()
        raise


def refuse(folder: str, number: int, device: str | None, say: Callable[[str], None]) -> None:
    """Finds its data missing at once."""
    raise DataError("no data here")
