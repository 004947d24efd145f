"""The display of a running command: a bar and the front so far on a terminal, plain lines in a pipe or in CI."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from automl_prune.report.table import FrontRow
from automl_prune.report.words import cost_label, duration, percent
from automl_prune.study.record import StudyContext
from automl_prune.terminal.tables import front_as_table, front_costs
from automl_prune.text_plot import Axis, Series, scatter
from automl_prune.view import FrontSoFar, News, Pace, Stage, View

_QUIET_SECONDS = 10.0
"""How often a stage that cannot be redrawn prints a line."""
_LASTING_SECONDS = 2.0
"""A stage that took this long leaves a line on the terminal."""
_NARROW = 60
"""Columns; on a narrower terminal there are lines of text and no display."""
_PLOT = (76, 10)
"""Greatest width and height of the front's plot, in characters."""
_ROOM = 9
"""Lines of the display beside the plot's plane: bar, note, axes, legend, and the shell's prompt."""


class Terminal:
    """A ``View`` on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._front: FrontSoFar | None = None

    def say(self, message: str) -> None:
        """Print a sentence that stays; broken between words on a terminal, and nowhere in a pipe."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)

    def tell(self, news: News) -> None:
        """Keep the front, which is drawn below the stage that finds it; other news are said anyway."""
        if isinstance(news, FrontSoFar):
            self._front = news

    def show_front(self, rows: Sequence[FrontRow], context: StudyContext) -> None:
        """Print a front, in fewer words where there is little room."""
        narrow = self.console.width < 62 + 22 * len(front_costs(rows, context, narrow=False))
        self.console.print(front_as_table(rows, context, "Pareto front", narrow=narrow))

    @property
    def is_live(self) -> bool:
        """Whether a display can be drawn and redrawn: not in a pipe, in CI, or where there is no room."""
        plain = self.console.is_dumb_terminal or not self.console.is_terminal or "CI" in os.environ
        return not plain and self.console.width >= _NARROW

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """A progress bar while the block runs; lines every ten seconds where nothing can be redrawn."""
        if not self.is_live:
            yield _Lines(self, title)
            return
        self._front = None
        bar = _Bar(title)
        with Live(get_renderable=lambda: self._display(bar), console=self.console, transient=True):
            yield bar
        if bar.pace.seconds >= _LASTING_SECONDS:
            note = f", {bar.note}" if bar.note else ""
            self.say(f"{title}: {bar.steps or 'done'} in {duration(bar.pace.seconds)}{note}")

    def _display(self, bar: _Bar) -> RenderableType:
        height = min(_PLOT[1], self.console.height - _ROOM)
        if self._front is None or height < 4:
            return bar
        plot = plot_front(self._front, min(_PLOT[0], self.console.width - 4), height)
        return Group(bar, Padding(Text(plot, no_wrap=True), (1, 2, 0, 2)))


def plot_front(front: FrontSoFar, width: int, height: int) -> str:
    """The front and the models it beats, baselines marked, as text of so many columns and rows of plane."""

    def points(*, on_front: bool, baselines: bool) -> list[tuple[float, float]]:
        spots = front.points if on_front else front.others
        return [(spot.cost_ratio, spot.score) for spot in spots if (spot.origin != "search") == baselines]

    return scatter(
        [
            Series("·", "dominated", points(on_front=False, baselines=False)),
            Series("○", "dominated baseline", points(on_front=False, baselines=True)),
            Series("●", "front", points(on_front=True, baselines=False)),
            Series("◉", "front, a baseline", points(on_front=True, baselines=True)),
        ],
        Axis(f"{cost_label(front.cost)} (of dense)", percent),
        Axis(f"validation {front.metric}", percent if front.percent else lambda value: f"{value:.4g}"),
        width=width,
        height=height,
    )


class _Bar:
    """A stage as a line: title, bar, steps, time so far and time left; below it the latest note."""

    def __init__(self, title: str) -> None:
        self.title, self.note, self.pace = title, "", Pace()
        self._done = self._total = 0
        self._end: float | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        left = self.pace.left(done, total)
        self._done, self._total, self.note = done, total, note
        self._end = None if left is None else self.pace.seconds + left

    @property
    def steps(self) -> str:
        """How far it has come; empty before the first step."""
        return f"{self._done}/{self._total}" if self._total else ""

    def __rich__(self) -> RenderableType:
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._total or None, completed=self._done, width=20)
        times = duration(int(self.pace.seconds))
        if self._end is not None:  # counted down between steps, which may be minutes apart
            times += f", about {duration(max(0, int(self._end - self.pace.seconds)))} left"
        line.add_row(self.title, bar, self.steps, times)
        return Group(line, Text(self.note)) if self.note else line


def open_terminal() -> Terminal:
    """The console; in a pipe as wide as ``COLUMNS`` says."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "140"))
    return Terminal(Console(width=width))


class _Lines:
    """A stage as lines of text: when news comes, when it ends, and now and then."""

    def __init__(self, terminal: Terminal, title: str) -> None:
        self.terminal, self.title, self.pace = terminal, title, Pace()
        self.last = time.monotonic()
        self.note = ""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        left, now = self.pace.left(done, total), time.monotonic()
        if note == self.note and now - self.last < _QUIET_SECONDS:
            return
        self.last, self.note = now, note
        tail = f", about {left:.0f} s left" if left else ""
        self.terminal.say(f"{self.title}: {done}/{total}{tail}{f' ({note})' if note else ''}")


_proof: View = Terminal(Console())  # the type checker proves that it is one
