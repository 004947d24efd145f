"""The real search, killed at every stage and resumed: the same trials, the same front, nothing half-written."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from automl_prune import api
from automl_prune.files import load_tensors, read_json, tensors_digest
from automl_prune.study.directory import RunDirectory
from tests.killing import STAGES, run
from tests.study import processes

pytestmark = pytest.mark.timeout(1800)  # a dozen starts of the command; minutes where the machine is shared

CONFIG = """
name: killed
model: {factory: "automl_prune.models:resnet8", args: {num_classes: 10, in_channels: 1, width: 4}}
data: {name: digits, batch_size: 128}
budget: {macs: 0.5}
space: space.yaml
search: {trials: 5}
evaluation: {calibration_samples: 128, finetune_steps: 3, finalists: 1, finetune_epochs: 1, seeds: 2}
training: {epochs: 3}
device: cpu
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "space.yaml").write_text("criteria: [obs, l1]\n", encoding="utf-8")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return folder / "config.yaml"


def search(config: Path, run_dir: Path, stage: str | None = None) -> None:
    """Run the command to its end, or to a stage at which it is killed or asked to stop."""
    log = run_dir.with_suffix(".log")
    process = processes.start(run, ["search", str(config), "--run-dir", str(run_dir)], log, stage)
    process.join(300)
    expected = 0 if stage is None else 130 if stage == "asked to stop" else -signal.SIGKILL
    assert process.exitcode == expected, log.read_text(encoding="utf-8")
    if stage == "asked to stop":
        (checkpoint,) = (run_dir / "models" / ".finalists").glob("*.training.safetensors")
        assert json.loads(load_tensors(checkpoint)[1]["progress"])["steps_done"] == 5, "written at once"


@pytest.fixture(scope="module")
def whole(config: Path) -> dict[str, Any]:
    """What an uninterrupted search gives."""
    run_dir = config.with_name("whole")
    search(config, run_dir)
    return outcome(run_dir)


MEASURED = {"latency", "latency_ratio", "latency_noisy", "efficiency"}
"""Columns of a front that no repetition gives exactly."""


def outcome(run_dir: Path) -> dict[str, Any]:
    """What two equal searches have in common: all but times and processes."""
    record, rows = api.front(run_dir)
    models = dict(RunDirectory(run_dir).exported())
    flat = [row.flat(record.context.metric.name) for row in rows]
    assert json.loads(json.dumps(flat)) == read_json(run_dir / "front.json")
    found = {
        "trials": [
            (t.number, t.state, t.origin, dict(t.point), t.evaluation and (t.evaluation.seed, t.evaluation.score))
            for t in record.trials
        ],
        "finalists": [(f.trial, [(r.seed, r.val, r.test, r.steps) for r in f.runs]) for f in record.finalists],
        "front": [{name: value for name, value in row.items() if name not in MEASURED} for row in flat],
        "weights": {
            trial: tensors_digest(load_tensors(path / "weights.safetensors")[0]) for trial, path in models.items()
        },
    }
    assert (run_dir / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    return found


def check_nothing_is_left(run_dir: Path) -> None:
    left = [path for path in run_dir.rglob("*") if path.name.startswith(".") or "training" in path.name]
    assert left == []


def check_whole_files(run_dir: Path) -> None:
    """Whatever has its own name is complete, also right after a kill."""
    for path in run_dir.rglob("*"):
        if not any(part.endswith(".tmp") for part in path.relative_to(run_dir).parts):
            if path.suffix == ".safetensors":
                load_tensors(path)
            elif path.suffix == ".json":
                read_json(path)


def test_search_killed_at_every_stage_in_turn_ends_like_one_that_never_was(config: Path, whole: dict[str, Any]) -> None:
    run_dir = config.with_name("in-turn")
    for stage in STAGES:
        search(config, run_dir, stage)
        check_whole_files(run_dir)
    search(config, run_dir)
    assert outcome(run_dir) == whole
    check_nothing_is_left(run_dir)


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
def test_search_killed_at_a_stage_ends_like_one_that_never_was(stage: str, config: Path, whole: dict[str, Any]) -> None:
    run_dir = config.with_name(stage)
    search(config, run_dir, stage)
    check_whole_files(run_dir)
    search(config, run_dir)
    assert outcome(run_dir) == whole
    check_nothing_is_left(run_dir)
