"""A view that remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from automl_prune.view import Silent, Stage


class Recorder(Silent):
    """Remembers the titles of stages, and sentences."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.said: list[str] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        self.stages.append(title)
        yield lambda done, total, note="": None

    def say(self, message: str) -> None:
        self.said.append(message)
