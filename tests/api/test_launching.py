"""Finalists' runs side by side: which are, and what becomes of those that are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from automl_prune.api.launching import Team, runs_ahead
from automl_prune.errors import StudyError
from automl_prune.evaluation import FineTuning
from automl_prune.finalists import Run
from tests.views import Recorder

RECIPE = FineTuning(steps=1)


class Dying:
    """A launcher whose workers die."""

    def __init__(self) -> None:
        self.given: list[Mapping[str, Any]] = []

    def describe(self) -> str:
        """See ``Launcher``."""
        return "dying workers"

    def run(
        self, function: str, arguments: Mapping[str, Any], say: Callable[[str], None], tick: Callable[[], object]
    ) -> None:
        """See ``Launcher``."""
        self.given.append(arguments)
        raise StudyError("every worker died")


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Dying:
    found = Dying()
    monkeypatch.setattr(Team, "launcher", lambda self, storage: found)
    return found


def test_runs_that_no_worker_survives_are_left_to_the_caller(launcher: Dying, tmp_path: Path) -> None:
    view = Recorder()
    ahead = runs_ahead(Team(3), "study", view, url=None, run_dir=tmp_path, config={})
    assert ahead is not None
    ahead([Run(trial, 0, RECIPE) for trial in (4, 7)])
    assert [Run.from_json(value).trial for value in launcher.given[0]["runs"]] == [4, 7]
    assert launcher.given[0]["workers"] == 2
    assert view.said == ["every worker died. Runs that are left are fine-tuned one after the other."]


def test_runs_with_devices_of_their_own_and_single_ones_are_not_shared_out(launcher: Dying, tmp_path: Path) -> None:
    ahead = runs_ahead(Team(2), "study", Recorder(), url=None, run_dir=tmp_path, config={})
    assert ahead is not None
    several = replace(RECIPE, devices=("cpu", "cpu"))
    ahead([Run(4, 0, RECIPE), *(Run(trial, 0, several) for trial in (5, 6))])
    assert not launcher.given
