"""What a logger of searches does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from automl_prune.view import SearchEnded, SearchStarted

Outcome = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class Row:
    """Numbers of one step.

    Attributes:
        step: A trial's number where the numbers are a trial's.
        values: By name, in groups: ``trial/accuracy``.
        origin: Of a trial that is a baseline, its name; else empty.
    """

    step: int
    values: Mapping[str, float]
    origin: str = ""


class Logger(Protocol):
    """Where one search is logged. What a method raises ends the logging, not the search."""

    def start(self, study: SearchStarted) -> None:
        """Called once, first. What is logged again after a resume takes the place of what was logged before."""
        ...

    def log(self, rows: Sequence[Row]) -> None:
        """Log numbers; the steps of one name come in ascending order."""
        ...

    def finish(self, result: SearchEnded) -> None:
        """Log the answer and the files of a search that is done."""
        ...

    def close(self, outcome: Outcome) -> None:
        """Called once, last: write what is held back."""
        ...
