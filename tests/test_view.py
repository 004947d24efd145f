"""How long a stage is said to take."""

from __future__ import annotations

import pytest

from automl_prune.view import Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("automl_prune.view.time.monotonic", lambda: now[0])
    return now


def test_the_steps_so_far_say_how_long_the_others_take(clock: list[float]) -> None:
    pace = Pace()
    assert pace.left(0, 10) is None
    clock[0] += 6
    assert pace.left(2, 10) == pytest.approx(24)
    assert pace.seconds == 6


def test_steps_of_an_earlier_session_took_no_time_in_this_one(clock: list[float]) -> None:
    pace = Pace()
    assert pace.left(15, 30) is None, "nothing was done here yet"
    clock[0] += 8
    assert pace.left(16, 30) == pytest.approx(8 * 14)
