from __future__ import annotations

import io

import pytest
from rich.console import Console

from automl_prune.terminal import Terminal
from automl_prune.terminal.display import plot_front
from automl_prune.view import FrontSoFar, Spot

FRONT = FrontSoFar(
    "accuracy", True, True, "macs",
    (Spot(4, 0.3, 0.90, "search"), Spot(1, 0.5, 0.93, "uniform l1")),
    (Spot(0, 0.5, 0.89, "uniform l2"), Spot(5, 0.4, 0.88, "search")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def terminal(*, live: bool, width: int = 80) -> Terminal:
    return Terminal(Console(file=io.StringIO(), force_terminal=live, width=width, height=30))


def written(view: Terminal) -> str:
    assert isinstance(view.console.file, io.StringIO)
    return view.console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100])
def test_a_terminal_shows_the_bar_the_best_and_the_front(width: int) -> None:
    view = terminal(live=True, width=width)
    with view.stage("Searching") as stage:
        view.tell(FRONT)
        stage(3, 30, "best accuracy 93.00 %")
    text = written(view)
    assert "Searching" in text
    assert "3/30" in text
    assert "best accuracy 93.00 %" in text
    assert "validation accuracy" in text
    assert "MACs (of dense)" in text
    assert "\x1b[2K" in text, "it is taken away at the end"


@pytest.mark.parametrize(("live", "width"), [(False, 140), (True, 50)])
def test_a_pipe_and_a_narrow_terminal_get_plain_lines(live: bool, width: int) -> None:
    view = terminal(live=live, width=width)
    with view.stage("Searching") as stage:
        view.tell(FRONT)
        stage(3, 30, "best accuracy 93.00 %")
        stage(4, 30, "best accuracy 93.00 %")
    assert written(view).startswith("Searching: 3/30 (best accuracy 93.00 %)"), "resumed: no time is known yet"
    assert "┤" not in written(view)
    assert "4/30" not in written(view), "no news"


def test_ci_gets_plain_lines_even_where_it_pretends_to_be_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert not terminal(live=True).is_live
    monkeypatch.delenv("CI")
    assert terminal(live=True).is_live


def test_sentences_are_never_broken_in_a_pipe() -> None:
    piped, shown = terminal(live=False, width=40), terminal(live=True, width=40)
    for view in (piped, shown):
        view.say("word " * 30)
    assert len(written(piped).splitlines()) == 1
    assert all(len(line) <= 40 for line in written(shown).splitlines())


def test_the_front_and_baselines_have_marks_of_their_own() -> None:
    plot = plot_front(FRONT, 70, 10)
    legend = plot.splitlines()[-1]
    assert all(plot.removesuffix(legend).count(mark) == 1 for mark in "·○●◉")
    assert all(name in legend for name in ("dominated", "front", "baseline"))
