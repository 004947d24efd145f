"""Workers as Ray tasks, on a stand-in for Ray that runs them at once, and on Ray itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from automl_prune.errors import ConfigError, StudyError
from automl_prune.launchers import RayTasks


class FakeRay(ModuleType):
    """The calls that the launcher makes. A task runs when it is asked for; ``lost`` are those whose machine is gone."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.asked: dict[str, Any] = {}
        self.cancelled: list[tuple[Any, bool]] = []
        self.running = False
        self.hold = False
        self.lost = False
        error = type("RayError", (Exception,), {})
        self.exceptions = type("exceptions", (), {"RayError": error})

    def is_initialized(self) -> bool:
        return self.running

    def init(self, address: str | None, **options: Any) -> None:
        self.asked["address"] = address
        self.running = True

    def shutdown(self) -> None:
        self.running = False

    def remote(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        self.asked |= options

        def decorate(function: Callable[..., Any]) -> Any:
            return type("Task", (), {"remote": staticmethod(lambda *given: (function, given))})

        return decorate

    def wait(self, pending: list[Any], num_returns: int = 1, timeout: float = 0) -> tuple[list[Any], list[Any]]:
        return ([], pending) if self.hold else (pending[:1], pending[1:])

    def get(self, tasks: list[Any]) -> list[Any]:
        if self.lost:
            raise self.exceptions.RayError("the node of the task\nhas died")  # type: ignore[attr-defined]  # made above
        return [function(*given) for function, given in tasks]

    def cancel(self, task: Any, force: bool) -> None:
        self.cancelled.append((task, force))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return fake


def _run(launcher: RayTasks, job: str, folder: Path, tick: Callable[[], object] = lambda: None, **more: Any) -> None:
    launcher.run(f"tests.launchers.jobs:{job}", {"folder": str(folder), **more}, print, tick)


def test_workers_are_tasks_that_declare_what_they_need(ray: FakeRay, tmp_path: Path) -> None:
    launcher = RayTasks(2, "auto", cpus=4, gpus=0.5)
    _run(launcher, "note", tmp_path, url="sqlite://")
    assert ray.asked == {"address": "auto", "num_cpus": 4, "num_gpus": 0.5, "max_retries": 5, "max_calls": 1}
    assert launcher.describe() == "2 workers as Ray tasks with 4 CPUs and 0.5 GPUs each on auto"
    assert [json.loads((tmp_path / f"{n}.json").read_text())["url"] for n in range(2)] == ["sqlite://"] * 2
    assert not ray.running
    assert not ray.cancelled


def test_an_error_of_one_ends_all_and_is_told(ray: FakeRay, tmp_path: Path) -> None:
    (tmp_path / "started-0").touch()
    with pytest.raises(ZeroDivisionError):
        _run(RayTasks(1), "crash", tmp_path)
    with pytest.raises(StudyError, match="no data here"):
        RayTasks(2).run("tests.launchers.jobs:refuse", {"folder": str(tmp_path)}, print, lambda: None)
    assert [force for _, force in ray.cancelled] == [False]
    ray.lost = True
    with pytest.raises(StudyError, match="a worker on Ray failed for good: has died"):
        _run(RayTasks(1), "note", tmp_path)


def test_an_interrupt_cancels_the_tasks_gently_and_then_kills_them(ray: FakeRay, tmp_path: Path) -> None:
    ray.hold = True

    def tick() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(RayTasks(2, grace=0), "note", tmp_path, tick)
    assert [force for _, force in ray.cancelled] == [False, False, True, True]
    assert not ray.running


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"pip install 'automl-prune\[ray\]'"):
        _run(RayTasks(1), "note", tmp_path)


def test_a_team_on_a_cluster_needs_a_database_and_leaves_devices_to_ray() -> None:
    from automl_prune.api import Ray, Team

    assert isinstance(Team(4, ray=Ray("auto")).launcher("postgresql://host/db"), RayTasks)
    assert isinstance(Team(1, ray=Ray()).launcher(None), RayTasks)
    with pytest.raises(ConfigError, match="cluster auto need a study in a database"):
        Team(4, ray=Ray("auto")).launcher(None)
    with pytest.raises(ConfigError, match="Ray gives out its own"):
        Team(4, devices=("cpu",), ray=Ray())


# The dev extra brings Ray, so `make test` runs this; who installs less has no Ray to launch workers on.
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra ray)")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_itself_runs_workers_and_restarts_those_that_die(tmp_path: Path) -> None:
    _run(RayTasks(2, cpus=0.5), "note", tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["0.json", "1.json"]
    _run(RayTasks(1, cpus=0.5), "die", tmp_path, times=1)
    assert (tmp_path / "deaths-0").read_text() == "xx"
