from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from torch import nn

from automl_prune.cli import app
from automl_prune.models import resnet8
from automl_prune.sections import EvaluationSection
from automl_prune.tasks import Task
from tests.docs.pages import ROOT, Reader, blocks, indented_commands
from tests.tasks.test_images import write_idx_set

README = ROOT / "README.md"
COMMANDS = tuple(indented_commands(README))
REAL = tuple(command for command in COMMANDS if command.startswith("automl-prune") and "experiments/" in command)
SKETCHED = tuple(command for command in COMMANDS if command.startswith("automl-prune") and command not in REAL)
TINY = (
    "evaluation.calibration_samples=32", "evaluation.finetune_steps=1", "evaluation.finalists=1",
    "evaluation.finetune_epochs=0.1", "evaluation.seeds=1", "search.trials=3",
)  # fmt: skip


OPTIONS = {
    name: {option for parameter in command.params for option in parameter.opts}
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]  # it is a group
}


def test_make_search_is_the_command_that_readme_says() -> None:
    done = subprocess.run(["make", "-n", "search"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "automl-prune search experiments/digits/config.yaml" in done.stdout
    assert "make search" in COMMANDS
    assert "make test" in COMMANDS


@pytest.mark.parametrize("command", SKETCHED)
def test_commands_with_names_of_the_readers_own_have_options_that_exist(command: str) -> None:
    assert set(re.findall(r"--[a-z-]+", command)) <= OPTIONS[command.split()[1]]


def test_the_table_of_commands_is_that_of_the_command_line() -> None:
    rows = re.findall(r"^\| `automl-prune (\S+)(.*?)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, _ in rows} == OPTIONS.keys()
    for name, rest in rows:
        assert set(re.findall(r"--[a-z-]+", rest)) <= OPTIONS[name]


@pytest.mark.pages
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("command", REAL)
def test_commands_of_readme_run(command: str, tmp_path: Path) -> None:
    write_idx_set(tmp_path / "data", compressed=True, train=160, test=40)
    sets = (*TINY, "data.validation=40", "data.batch_size=32", f"data.root={tmp_path / 'data'}")
    reader = Reader(tmp_path, sets if "fashion" in command else TINY)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    assert "xported and verified" in reader.run(command)


@pytest.mark.pages
@pytest.mark.timeout(3000)
def test_the_python_of_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_task: Task) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = [block.text for block in blocks(README) if block.language == "python"]
    assert "n_trials=100, " in code

    def factory() -> nn.Module:
        return resnet8(num_classes=10, in_channels=1, width=8)

    short = EvaluationSection(calibration_samples=64, finetune_steps=1, finalists=1, finetune_epochs=0.1, seeds=1)
    names: dict[str, Any] = {
        "model": factory(),
        "factory": factory,
        "task": digits_task,
        "example_inputs": digits_task.example_inputs,
        "short": short,
    }
    exec(code.replace("n_trials=100, ", "n_trials=3, evaluation=short, "), names)
    assert sum(p.numel() for p in names["small"].parameters()) < sum(p.numel() for p in factory().parameters())
