"""Progress for machines: one JSON object per line, with stable names (docs/reference/events.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TextIO

from automl_prune.view import FrontSoFar, News, Pace, Spot, Stage, View

_SECONDS = 1.0
"""Least time between two lines on the progress of a stage, unless it has news or is done."""


class JsonLines:
    """A ``View`` that writes events.

    Args:
        stream: Where lines go; flushed after every one.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._front: tuple[Spot, ...] = ()

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Write one event; numbers that are not finite are null, since JSON has none."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **_finite(values)}, allow_nan=False)
        self._stream.write(line + "\n")
        self._stream.flush()

    def say(self, message: str) -> None:
        """An event ``message``."""
        self.write("message", {"text": message})

    def tell(self, news: News) -> None:
        """An event of the news' own name; a front only when its points have changed."""
        values = asdict(news)
        if isinstance(news, FrontSoFar):
            if news.points == self._front:
                return
            self._front = news.points
            del values["others"]  # each was an event of its own
        self.write(news.event, values)

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Events ``stage_started``, ``progress`` and, unless an error ends the block, ``stage_ended``."""
        self.write("stage_started", {"stage": title})
        pace = _Progress(self, title)
        yield pace
        self.write("stage_ended", {"stage": title, "seconds": round(pace.pace.seconds, 3)})


class _Progress:
    """One stage's progress: at most a line a second, and one at the end."""

    def __init__(self, events: JsonLines, title: str) -> None:
        self.pace, self._events, self._title = Pace(), events, title
        self._written, self._note = float("-inf"), ""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        left, now = self.pace.left(done, total), time.monotonic()
        if note == self._note and now - self._written < _SECONDS and done < total:
            return
        self._written, self._note = now, note
        seconds = None if left is None else round(left, 1)
        self._events.write(
            "progress", {"stage": self._title, "done": done, "total": total, "seconds_left": seconds, "note": note}
        )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _proof(events: JsonLines) -> View:
    return events  # the type checker proves that it is one
