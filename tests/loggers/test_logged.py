from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from automl_prune.errors import ConfigError, Interrupted
from automl_prune.loggers import logged
from automl_prune.loggers.base import Outcome, Row
from automl_prune.loggers.logged import Logged
from automl_prune.view import EpochEnded, FrontSoFar, News, SearchEnded, SearchStarted, Silent
from tests.loggers.synthetic import NUMBERS, SHUFFLED, play


class Listener(Silent):
    def __init__(self) -> None:
        self.news: list[News] = []
        self.said: list[str] = []

    def tell(self, news: News) -> None:
        self.news.append(news)

    def say(self, message: str) -> None:
        self.said.append(message)


class Remembering:
    """A logger that raises at its nth call, if told so."""

    def __init__(self, error: BaseException | None = None, at: int = 0) -> None:
        self.rows: list[Row] = []
        self.outcomes: list[Outcome] = []
        self._error, self._left = error, at

    def start(self, study: SearchStarted) -> None:
        self._count()

    def log(self, rows: Sequence[Row]) -> None:
        self._count()
        self.rows += rows

    def finish(self, result: SearchEnded) -> None:
        self._count()

    def close(self, outcome: Outcome) -> None:
        self._count()
        self.outcomes.append(outcome)

    def _count(self) -> None:
        self._left -= 1
        if self._error is not None and self._left < 0:
            raise self._error


def test_the_other_view_is_told_everything_and_the_logger_the_trials_in_order() -> None:
    alone, beside, logger = Listener(), Listener(), Remembering()
    play(alone, SHUFFLED)
    both = Logged(beside, {"memory": logger})
    both.tell(EpochEnded(1, 2, 0.5, 0.5))  # before the search begins
    play(both, SHUFFLED)
    assert beside.news[1:] == alone.news
    assert [row.step for row in logger.rows[1:]] == list(NUMBERS)


def test_a_trial_waits_for_those_before_it() -> None:
    logger = Remembering()
    both = Logged(Silent(), {"memory": logger})
    play(both, [1, 2])
    assert len(logger.rows) == 1  # the dense model
    play(both, [0, 4], earlier=[1, 2])
    assert [row.step for row in logger.rows[2:]] == [0, 1, 2]


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_logger_that_fails_is_warned_of_once_and_the_others_go_on(at: int) -> None:
    view, failing, other = (
        Listener(),
        Remembering(OSError("disk of me:hunter2@host/x?token=abc is full"), at),
        Remembering(),
    )
    both = Logged(view, {"memory:x": failing, "memory:y": other})
    play(both, NUMBERS)
    both.close("finished")
    (warning,) = view.said
    assert warning.startswith("Warning: logging to memory:x failed (OSError: disk of")
    assert "abc" not in warning
    assert failing.outcomes == []
    assert other.outcomes == ["finished"]
    assert [row.step for row in other.rows[1:]] == list(NUMBERS)
    assert len([news for news in view.news if isinstance(news, FrontSoFar)]) == 30


def test_a_signal_within_a_logger_stops_the_search() -> None:
    both = Logged(Silent(), {"memory": Remembering(Interrupted("stopped by SIGTERM"), 3)})
    with pytest.raises(Interrupted):
        play(both, NUMBERS)


@pytest.mark.parametrize("target", ["mlflow", "mlflow:", "wandb:x", "", "http://me:secret@host"])
def test_a_malformed_target_is_refused_with_an_example(target: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="write it as mlflow:URI or tensorboard:DIR") as caught,
        logged(Silent(), [target], tmp_path),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_without_a_target_the_view_stays_as_it_is(tmp_path: Path) -> None:
    view = Silent()
    with logged(view, (), tmp_path) as same:
        assert same is view
