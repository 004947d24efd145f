"""Finalists' runs trained by workers that see nothing of the search's machine, to what it would give alone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from automl_prune import api
from automl_prune.api import running
from automl_prune.api.launching import Team
from automl_prune.config import Config
from automl_prune.errors import EvaluationError, StudyError
from automl_prune.evaluation import Evaluator, FineTuning
from automl_prune.files import load_tensors, save_tensors, sha256, tensors_digest
from automl_prune.finalist_jobs import RunJob, Trainer, key_of, read_runs
from automl_prune.finalists import Run
from automl_prune.joining import join
from automl_prune.session import Session
from automl_prune.study.artifacts import Folder
from automl_prune.study.directory import RunDirectory
from automl_prune.study.jobs import Jobs
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import start_study
from automl_prune.study.storage import open_storage
from tests.study.processes import kill, lines, start, wait_for_end, wait_until
from tests.study.synthetic import spec
from tests.views import Recorder

pytestmark = pytest.mark.timeout(1800)  # several searches; minutes where the machine is shared

CONFIG = """
model: {factory: "automl_prune.models:resnet8", args: {num_classes: 10, in_channels: 1, width: 4}}
data: {name: digits, batch_size: 128, validation: 400, test: 400}
budget: {macs: 0.5}
space: space.yaml
search: {trials: 4}
evaluation: {calibration_samples: 64, finetune_steps: 0, finalists: FINALISTS, finetune_epochs: 0.4, seeds: 2}
training: {epochs: 1}
device: cpu
"""


def config(folder: Path, finalists: int) -> Config:
    (folder / "space.yaml").write_text("criteria: [l1]\n", encoding="utf-8")
    path = folder / f"{finalists}.yaml"
    path.write_text(CONFIG.replace("FINALISTS", str(finalists)), encoding="utf-8")
    return Config.load(path)


def kept(*_: Any, **__: Any) -> None:
    """In place of the export, which takes longest: every run's weights stay in the run directory."""


def noted(folder: Path, who: str, until: Path | None = None) -> None:
    """From here on, this process notes every fine-tuning, and before it waits for a file."""
    finalist = Evaluator.finalist

    def noting(self: Evaluator, *arguments: Any) -> Any:
        with (folder / "log").open("a", encoding="utf-8") as file:
            file.write(f"{who} trains\n")
        while until is not None and not until.exists():
            time.sleep(0.05)
        return finalist(self, *arguments)

    Evaluator.finalist = noting  # type: ignore[assignment,method-assign]  # the process is ours


def search(folder: Path, run_dir: Path) -> None:
    pytest.MonkeyPatch().setattr(running, "export_finalist", kept)
    noted(folder, "search", until=folder / "go")
    api.search_config(config(folder, 1), run_dir, workers=Team(artifacts=str(folder / "artifacts")))


def work(folder: Path, elsewhere: Path, who: str) -> None:
    noted(folder, who, until=folder / "never" if who == "victim" else None)
    member = join(elsewhere, artifacts=str(folder / "artifacts"), shares_run_dir=False)
    assert member.finetune(patience=300), "the search has concluded"


def runs_of(run_dir: Path) -> tuple[RunJob, ...]:
    return read_runs(open_storage(None, run_dir), "study")


def outcome(run_dir: Path, record: StudyRecord) -> dict[str, Any]:
    """What two equal searches have in common."""
    assert record.sweep is not None
    return {
        "sweep": [(entry.rate, entry.val) for entry in record.sweep.tried],
        "finalists": [
            (f.trial, [(run.seed, run.val, run.test, run.steps) for run in f.runs]) for f in record.finalists
        ],
        "weights": {
            path.name: tensors_digest(load_tensors(path)[0]) for path in RunDirectory(run_dir).finalists.iterdir()
        },
    }


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run directory of a search without finalists, and what they come to where nobody helps and nobody dies."""
    folder = tmp_path_factory.mktemp("searched")
    run_dir, alone = folder / "run", folder / "alone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "export_finalist", kept)
        api.search_config(config(folder, 0), run_dir)
        shutil.copytree(run_dir, alone)
        return run_dir, outcome(alone, api.search_config(config(folder, 1), alone).record)


def two_machines(folder: Path, searched: Path) -> tuple[Path, Path]:
    """A copy of the run directory, and one on another machine, which sees the study alone of it."""
    run_dir, elsewhere = folder / "run", folder / "elsewhere"
    shutil.copytree(searched, run_dir)
    elsewhere.mkdir()
    os.link(run_dir / "study.journal", elsewhere / "study.journal")
    return run_dir, elsewhere


def completed(run_dir: Path) -> int:
    return sum(run.state == "complete" for run in runs_of(run_dir))


def runs_in(expected: Mapping[str, Any]) -> int:
    """How many fine-tunings an outcome takes: the best rate's is a finalist's first."""
    return len(expected["sweep"]) + sum(len(runs) for _, runs in expected["finalists"]) - 1


def left_in(store: Path) -> set[str]:
    return {path.name.partition("-")[2] for path in store.iterdir()}


def test_workers_elsewhere_take_runs_and_one_that_is_killed_loses_none(
    tmp_path: Path, searched: tuple[Path, dict[str, Any]]
) -> None:
    (run_dir, elsewhere), expected = two_machines(tmp_path, searched[0]), searched[1]
    searching = start(search, tmp_path, run_dir)
    wait_until(lambda: bool(lines(tmp_path, "search")), searching)
    victim = start(work, tmp_path, elsewhere, "victim")
    wait_until(lambda: bool(lines(tmp_path, "victim")), victim)
    status = api.status(run_dir)
    assert f":{victim.pid}" in status.in_words()
    assert "finalists: 0 of 3 runs fine-tuned, 2 running, 1 waiting, 0 failed" in status.in_words()
    assert {run["worker"]["pid"] for run in status.to_json()["finalist_runs"] if run["worker"]} == {
        searching.pid,
        victim.pid,
    }
    kill(victim)
    survivor = start(work, tmp_path, elsewhere, "survivor")
    wait_until(lambda: completed(run_dir) == 2, survivor)
    (tmp_path / "go").touch()
    wait_for_end(searching)
    wait_for_end(survivor)
    assert outcome(run_dir, api.read(run_dir)) == expected
    assert len(expected["weights"]) >= 2
    assert len(lines(tmp_path, "survivor")) >= 2
    assert len(lines(tmp_path, "search")) + len(lines(tmp_path, "survivor")) == runs_in(expected), (
        "each is trained once"
    )
    assert [path.name for path in elsewhere.iterdir()] == ["study.journal"]
    assert left_in(tmp_path / "artifacts") == {"baseline.safetensors", "calibration.safetensors"}, "no weights stay"


def test_the_search_is_killed_while_a_worker_elsewhere_trains_and_goes_on(
    tmp_path: Path, searched: tuple[Path, dict[str, Any]]
) -> None:
    (run_dir, elsewhere), expected = two_machines(tmp_path, searched[0]), searched[1]
    searching = start(search, tmp_path, run_dir)
    wait_until(lambda: bool(lines(tmp_path, "search")), searching)
    worker = start(work, tmp_path, elsewhere, "worker")
    wait_until(lambda: bool(lines(tmp_path, "worker")), worker)
    kill(searching)
    wait_until(lambda: completed(run_dir) == 3, worker)  # the run of the dead search too
    (tmp_path / "go").touch()
    again = start(search, tmp_path, run_dir)
    wait_for_end(again)
    wait_for_end(worker)
    assert outcome(run_dir, api.read(run_dir)) == expected
    trained = len(lines(tmp_path, "search")) + len(lines(tmp_path, "worker"))
    assert trained == runs_in(expected) + 1, "each is trained once, and one that was begun by who died once more"
    assert left_in(tmp_path / "artifacts") == {"baseline.safetensors", "calibration.safetensors"}, "no weights stay"


RECIPE = FineTuning(steps=1)


def test_weights_come_back_unless_they_are_not_what_was_trained(tmp_path: Path) -> None:
    storage, view = open_storage(None, tmp_path), Recorder()
    start_study(spec(4), storage)
    jobs, store, directory = Jobs(storage, "synthetic", host=True), Folder(tmp_path / "store"), RunDirectory(tmp_path)
    runs = [Run(trial, 0, RECIPE) for trial in range(4)]
    jobs.offer({key_of(run): run.to_json() for run in runs})

    def do(order: Mapping[str, Any]) -> Mapping[str, Any]:
        if order["trial"] == 3:
            raise EvaluationError("it diverged")
        path = tmp_path / "made" / f"{order['trial']}.safetensors"
        save_tensors(path, {"weight": torch.full((1,), float(order["trial"]))})
        return {"weights": store.put(path, sha256(path)).to_json()}

    jobs.work(do)
    first, second, third = sorted((tmp_path / "store").iterdir(), key=lambda path: path.name.partition("-")[2])
    second.write_bytes(first.read_bytes())
    third.unlink()
    trainer = Trainer(cast(Session, None), storage, "synthetic", jobs, directory, None, view)
    assert trainer.collect(runs, store) == {runs[3]: "it diverged"}
    assert load_tensors(runs[0].weights(directory))[0]["weight"].item() == 0
    assert [run.weights(directory).exists() for run in runs] == [True, False, False, False]
    assert not first.exists(), "it is here now"
    assert ["not the file" in said or "is missing" in said for said in view.said] == [True, True]


@pytest.mark.parametrize(
    "changed",
    [
        {"kept": "/../../../outside"},
        {"trial": "../outside"},
        {"number": None},
        {"finetuning": {"steps": 0, "devices": []}},
        {"finetuning": None},
        {"more": 1},
    ],
)
def test_a_study_cannot_order_what_is_no_run(changed: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="is no run of a finalist"):
        Run.from_json({**Run(4, 0, RECIPE).to_json(), **changed})
    assert Run.from_json(Run(4, 0, RECIPE, "rate-0.1").to_json()) == Run(4, 0, RECIPE, "rate-0.1")
