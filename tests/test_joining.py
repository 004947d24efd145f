"""Joining a study that runs already: what comes with it, what is refused, and what several workers come to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from automl_prune import api, joining
from automl_prune.config import Config
from automl_prune.errors import AutomlPruneError, CheckpointError, ConfigError, StudyError
from automl_prune.evaluation import Evaluator
from automl_prune.joining import join
from automl_prune.study.codec import CONTEXT, REQUESTED
from automl_prune.study.ledger import Ledger
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import read_study
from automl_prune.study.spec import Event
from automl_prune.study.storage import open_storage

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "experiments" / "digits" / "config.yaml"
TINY = (
    "model.args.width=4",
    "data.validation=800",
    "data.test=800",
    "training.epochs=1",
    "evaluation={calibration_samples: 64, finetune_steps: 1, finalists: 1, finetune_epochs: 0.1, seeds: 1}",
)
COMMAND = [sys.executable, "-m", "automl_prune"]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def _config(*overrides: str) -> Config:
    return Config.load(DIGITS, (*TINY, *overrides))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a finished search of 6 trials."""
    run_dir = tmp_path_factory.mktemp("joining") / "run"
    api.search_config(_config(), run_dir, trials=6)
    return run_dir


@pytest.fixture
def open_study(searched: Path, tmp_path: Path) -> Path:
    """A copy of it, of which one more trial is wanted."""
    run_dir = tmp_path / "run"
    shutil.copytree(searched, run_dir)
    Ledger(open_storage(None, run_dir), "study").set_attribute(REQUESTED, 7)
    return run_dir


def _join(run_dir: Path | None, *, number: int | None = None, **options: Any) -> list[Event]:
    events: list[Event] = []
    join(run_dir, **options).search(events.append, number=number)
    return events


def _record(run_dir: Path) -> StudyRecord:
    return read_study(open_storage(None, run_dir), "study")


def test_a_worker_with_nothing_but_the_study_does_what_the_search_would_have_done(
    searched: Path, open_study: Path, tmp_path: Path
) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(searched, resumed)
    api.search_config(_config(), resumed, trials=7)
    # as on another machine: the run directory of the search is not there, its files come from a folder
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(open_study / "study.journal", elsewhere)
    events = _join(elsewhere, artifacts=str(open_study), number=0, device="cpu")
    assert [event.trial for event in events if event.kind in ("complete", "reused")] == [6]
    assert [path.name for path in elsewhere.iterdir()] == ["study.journal"]
    found, expected = _record(elsewhere).trials, _record(resumed).trials
    assert [trial.point for trial in found] == [trial.point for trial in expected]
    assert [t.evaluation.score for t in found if t.evaluation] == [t.evaluation.score for t in expected if t.evaluation]


@pytest.mark.parametrize(
    ("overrides", "differs"),
    [
        (["data.validation=700"], "data: stored"),
        (["search.seed=1"], "seed: stored 0, now 1"),
        (["evaluation.finetune_steps=3"], "evaluation.finetuning.steps: stored 1, now 3"),
        (["budget.macs=0.4"], "budget.macs: stored"),
    ],
)
def test_whatever_differs_is_refused_by_name(overrides: list[str], differs: str, open_study: Path) -> None:
    with pytest.raises(StudyError, match=differs):
        _join(open_study, overrides=overrides)
    assert len(_record(open_study).trials) == 6


def test_another_version_is_refused(open_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "version", lambda name: "1.0.1" if name == "torch" else version(name))
    with pytest.raises(StudyError, match=r"torch: the study has .*, this machine 1\.0\.1"):
        _join(open_study)


@pytest.mark.parametrize("name", ["baseline.safetensors", "calibration.safetensors", "scores.safetensors"])
def test_a_changed_file_is_never_used(name: str, open_study: Path) -> None:
    path = open_study / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} .* is not the file that the study was started with"):
        _join(open_study)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} of the study is missing"):
        _join(open_study, artifacts=str(open_study))  # without it, the file where the study says would do


def test_a_study_without_a_configuration_cannot_be_joined(open_study: Path) -> None:
    ledger = Ledger(open_storage(None, open_study), "study")
    ledger.set_attribute(CONTEXT, {**ledger.attributes()[CONTEXT], "config": {}})
    with pytest.raises(StudyError, match="started from Python without a configuration"):
        _join(open_study)
    with pytest.raises(StudyError, match="name the study to join"):
        _join(None)


def test_a_study_that_is_not_there_yet_is_waited_for(
    open_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "later"
    with pytest.raises(StudyError, match="later holds no study"):
        _join(place)
    assert not place.exists()
    monkeypatch.setattr("automl_prune.joining.time.sleep", lambda seconds: open_study.rename(place))
    with pytest.raises(StudyError, match="seed: stored 0, now 1"):  # found, and looked at
        _join(place, wait=60, overrides=["search.seed=1"])


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("model", {"factory": "evil_package:net", "args": {}}),
        ("model", {"factory": "os:system", "args": {"command": "touch proof"}}),
        ("model", {"factory": "torchvision.models._api:load_state_dict_from_url", "args": {"url": "http://evil"}}),
        ("data", {"factory": "evil_package:data"}),
    ],
)
def test_a_study_cannot_make_a_worker_run_its_code(
    section: str, value: dict[str, Any], open_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_package.py").write_text("open('proof', 'w').close()\ndef net(): pass\ndata = net\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(open_storage(None, open_study), "study")
    context = ledger.attributes()[CONTEXT]
    ledger.set_attribute(CONTEXT, {**context, "config": {**context["config"], section: value}})
    with pytest.raises(ConfigError, match=rf"{section}\.factory is .*--trust"):
        _join(open_study)
    assert not (tmp_path / "proof").exists()
    if section == "data":  # trusted, it is imported; what it gives is no data
        with pytest.raises(AutomlPruneError, match="returned NoneType, not a Task"):
            _join(open_study, trusted=["evil_package"])
        assert (tmp_path / "proof").exists()


def test_several_workers_are_interrupted_and_resumed_to_the_exact_total(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = [part for override in TINY for part in ("--set", override)]
    command = [
        *COMMAND,
        "search",
        str(DIGITS),
        "--run-dir",
        str(run_dir),
        "--trials",
        "6",
        "--workers",
        "2",
        "--log",
        f"tensorboard:{tmp_path / 'tb'}",
        *settings,
    ]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_until(lambda: _finished(run_dir) >= 1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "2 workers with 1 thread each on" in out
    trials = _record(run_dir).trials
    assert {trial.state for trial in trials} <= {"complete", "waiting"}, "nothing is left running"
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = _record(run_dir)
    assert [trial.state for trial in record.trials] == ["complete"] * 6
    assert {trial.attempt for trial in record.trials} == {1}, "a trial handed back is not one lost"
    assert record.finalists
    scalars = EventAccumulator(str(tmp_path / "tb" / "run")).Reload().Scalars
    assert [(event.step, event.value) for event in scalars("trial/complete")] == [(n, 1.0) for n in range(6)]
    assert [event.step for event in scalars("finalist/accuracy_test")] == [f.trial for f in record.finalists]
    assert [event.step for event in scalars("best/trial")] == [6]


def test_finalists_are_trained_side_by_side_to_what_one_process_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two finalists with two seeds each, and their learning rate."""
    plain = "evaluation={calibration_samples: 64, finetune_steps: 0, finalists: %d, finetune_epochs: 0.4, seeds: 2}"
    api.search_config(Config.load(DIGITS, (*TINY[:-1], plain % 0)), tmp_path / "1", trials=6)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    records = {}
    for workers in (1, 2):
        if workers == 2:
            monkeypatch.setattr(Evaluator, "finalist", _nobody)
        config = Config.load(DIGITS, (*TINY[:-1], plain % 2))
        records[workers] = api.search_config(config, tmp_path / str(workers), trials=6, workers=workers).record
    alone, together = (
        [(f.trial, [(run.seed, run.val, run.test, run.steps) for run in f.runs]) for f in record.finalists]
        for record in records.values()
    )
    assert together == alone
    assert len(alone) >= 2
    assert records[1].sweep is not None
    assert records[2].sweep is not None
    assert records[2].sweep.rate == records[1].sweep.rate
    assert [entry.val for entry in records[2].sweep.tried] == [entry.val for entry in records[1].sweep.tried]


def _nobody(*_: Any, **__: Any) -> None:
    raise AssertionError("the searching process trains no run that its workers have trained")


def _finished(run_dir: Path) -> int:
    if not (run_dir / "study.journal").exists():
        return 0
    try:
        return sum(trial.state == "complete" for trial in _record(run_dir).trials)
    except StudyError:
        return 0


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 480
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
