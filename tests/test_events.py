from __future__ import annotations

import io
import json
from typing import Any

import pytest

from automl_prune.events import JsonLines
from automl_prune.view import EpochEnded, FrontSoFar, ModelExported, Spot


class Stream(io.StringIO):
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def test_every_line_is_an_event_with_its_name_and_time() -> None:
    stream = Stream()
    view = JsonLines(stream)
    view.say("two\nlines")
    view.tell(EpochEnded(1, 2, float("nan"), 0.5))
    view.tell(ModelExported("runs/x/models/3", 3))
    message, epoch, model = stream.events()
    assert (message["event"], message["text"]) == ("message", "two\nlines")
    assert (epoch["event"], epoch["epoch"], epoch["loss"]) == ("epoch", 1, None)  # JSON has no NaN
    assert (model["event"], model["path"], model["trial"]) == ("model", "runs/x/models/3", 3)
    assert message["time"] <= epoch["time"] <= model["time"]


def test_a_front_is_an_event_only_when_its_points_change() -> None:
    stream = Stream()
    view, first = JsonLines(stream), Spot(0, 0.5, 0.9, "uniform l1")
    for points, others in (((first,), ()), ((first,), (Spot(1, 0.5, 0.8, "search"),)), ((), ())):
        view.tell(FrontSoFar("accuracy", True, True, "macs", points, others))
    assert [len(event["points"]) for event in stream.events()] == [1, 0]
    assert "others" not in stream.events()[0]


def test_a_stage_begins_goes_on_and_ends() -> None:
    stream = Stream()
    with JsonLines(stream).stage("Searching") as stage:
        for done in range(1, 1001):
            stage(done, 1000, "better" if done > 500 else "")
    started, *progress, ended = stream.events()
    assert (started["event"], started["stage"]) == ("stage_started", "Searching")
    assert (ended["event"], ended["stage"]) == ("stage_ended", "Searching")
    assert ended["seconds"] >= 0
    assert progress[-1]["done"] == 1000
    assert progress[-1]["seconds_left"] == 0
    assert [event for event in progress if event["done"] == 501], "news are never held back"
    assert len(progress) < 100


def test_a_stage_that_fails_does_not_end() -> None:
    stream = Stream()
    with pytest.raises(ValueError, match="no"), JsonLines(stream).stage("Searching"):
        raise ValueError("no")
    assert [event["event"] for event in stream.events()] == ["stage_started"]
