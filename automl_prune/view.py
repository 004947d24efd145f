"""What a long run tells whoever watches: stages with progress, and sentences. The command line draws it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """A running stage: call it as (steps done, steps in all), with a short note if there is news."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """The stage has come this far."""
        ...


class View(Protocol):
    """Where progress goes."""

    def stage(self, title: str) -> AbstractContextManager[Stage]:
        """A context manager that shows a stage while its block runs and yields its ``Stage``."""
        ...

    def say(self, message: str) -> None:
        """Show one sentence that stays."""
        ...


class Silent:
    """Shows nothing; the default of the Python interface."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """A stage nobody sees."""
        yield _ignore

    def say(self, message: str) -> None:
        """Nothing."""


def _ignore(done: int, total: int, note: str = "") -> None:
    pass


_proof: View = Silent()  # the type checker proves that it is one
