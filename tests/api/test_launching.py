"""Finalists' runs for the team: which are shared out, and what becomes of those that no worker survives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from automl_prune.api import launching
from automl_prune.api.launching import Team, open_to_workers
from automl_prune.errors import EvaluationError, StudyError
from automl_prune.evaluation import FineTuning
from automl_prune.finalist_jobs import Trainer
from automl_prune.finalists import Ahead, Run
from automl_prune.session import Session
from automl_prune.study.directory import RunDirectory
from automl_prune.study.storage import open_storage
from tests.study.synthetic import spec
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
        tick()
        raise StudyError("every worker died")


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Dying:
    found = Dying()
    monkeypatch.setattr(Team, "launcher", lambda self, storage: found)
    return found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trials whose runs this process has trained; those of trial 9 diverge."""
    found: list[int] = []

    def train(self: Trainer, order: Mapping[str, Any]) -> dict[str, Any]:
        if order["trial"] == 9:
            raise EvaluationError("it diverged")
        found.append(order["trial"])
        return {"weights": None}

    monkeypatch.setattr(Trainer, "train", train)
    monkeypatch.setattr(launching, "trained_run", lambda session, record, run, directory: None)
    return found


@contextmanager
def opened(team: Team, run_dir: Path, view: Recorder) -> Iterator[Ahead]:
    storage, session = open_storage(None, run_dir), cast(Session, None)
    with open_to_workers(team, spec(4), session, storage, RunDirectory(run_dir), view, url=None, config={}) as ahead:
        yield ahead


def test_runs_that_no_worker_survives_are_trained_by_the_search(
    launcher: Dying, trained: list[int], tmp_path: Path
) -> None:
    view = Recorder()
    with opened(Team(3), tmp_path, view) as ahead:
        assert ahead([Run(trial, 0, RECIPE) for trial in (4, 7)]) == {}
    assert trained == [4, 7]
    assert len(launcher.given) == 1
    assert launcher.given[0]["shares_run_dir"]
    assert view.said == ["every worker died. Runs that are left are fine-tuned one after the other."]


def test_single_runs_and_those_with_devices_of_their_own_are_not_shared_out(
    launcher: Dying, trained: list[int], tmp_path: Path
) -> None:
    several = replace(RECIPE, devices=("cpu", "cpu"))
    with opened(Team(2), tmp_path, Recorder()) as ahead:
        assert ahead([Run(5, 0, several)]) == {}
        assert ahead([Run(4, 0, RECIPE), *(Run(trial, 0, several) for trial in (5, 6))]) == {}
    assert not launcher.given
    assert trained == [4]


def test_a_run_that_fails_is_reported_and_tried_again_when_it_is_asked_for_again(
    trained: list[int], tmp_path: Path
) -> None:
    runs = [Run(9, 0, RECIPE), Run(4, 0, RECIPE)]
    for _ in range(2):
        with opened(Team(), tmp_path, Recorder()) as ahead:
            assert ahead(runs) == {runs[0]: "it diverged"}
    assert trained == [4], "what is done is not done again"
