"""A run directory from somebody else: what it names is not run, and what it links to is not written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from automl_prune import api
from automl_prune.candidate import Candidate
from automl_prune.errors import CheckpointError, ConfigError, StudyError
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation
from automl_prune.study.runner import run_study
from automl_prune.study.storage import open_storage
from automl_prune.yaml_file import to_yaml
from tests.study.synthetic import evaluate, propose, spec

CONFIG: dict[str, Any] = {
    "name": "x",
    "model": {"factory": "automl_prune.models:resnet8", "args": {}},
    "data": {"name": "digits"},
    "budget": {"macs": 0.5},
    "space": "search_spaces/per_group.yaml",
}


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds a finished study; ``accomplice`` can be imported and would leave a file."""
    directory = tmp_path / "run"
    run_study(replace(spec(3), name="study"), open_storage(None, directory), propose, evaluate)
    (tmp_path / "accomplice.py").write_text("open('proof', 'w').close()\ndef net(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return directory


@pytest.mark.parametrize(
    "section",
    [
        {"model": {"factory": "accomplice:net", "args": {}}},
        {"model": {"factory": "os:system", "args": {"command": "touch proof"}}},
        {"model": {"factory": "automl_prune.models.vgg:nn.Module", "args": {}}},
        {"model": {"factory": "torchvision.models._api:import_module", "args": {"name": "accomplice"}}},
        {"data": {"factory": "accomplice:net"}},
        {"data": {"factory": "automl_prune.tasks.images:Path", "args": "x"}},
    ],
)
def test_code_that_a_run_directory_names_is_not_run(section: dict[str, Any], run_dir: Path) -> None:
    (run_dir / "config.yaml").write_text(to_yaml({**CONFIG, **section}))
    with pytest.raises(ConfigError):
        api.export(run_dir, trial=0)
    assert not Path("proof").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "..", "a/b", ".x"])
def test_a_name_leads_nowhere_else(name: str, run_dir: Path) -> None:
    (run_dir / "config.yaml").write_text(to_yaml({**CONFIG, "name": name}))
    with pytest.raises(ConfigError, match="the name becomes a folder"):
        api.export(run_dir, trial=0)


def test_yaml_makes_no_objects(run_dir: Path) -> None:
    (run_dir / "config.yaml").write_text("model: !!python/object/apply:os.system ['touch proof']\n")
    with pytest.raises(ConfigError):
        api.export(run_dir, trial=0)
    assert not Path("proof").exists()


@pytest.mark.parametrize("name", ["models", "models/.finalists", "sensitivity", "figures", "retargets"])
def test_a_linked_folder_is_not_written_through(name: str, run_dir: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (run_dir / name).parent.mkdir(exist_ok=True)
    (run_dir / name).symlink_to(outside)
    for use in (lambda: api.export(run_dir, trial=0), lambda: api.report(run_dir), lambda: api.status(run_dir)):
        with pytest.raises(CheckpointError, match="is a link"):
            use()
    assert not list(outside.iterdir())


def test_a_linked_journal_is_not_written_through(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "study.journal").rename(tmp_path / "journal")
    before = (tmp_path / "journal").read_bytes()
    (run_dir / "study.journal").symlink_to(tmp_path / "journal")
    with pytest.raises(CheckpointError, match="is a link"):
        api.status(run_dir)
    assert (tmp_path / "journal").read_bytes() == before


def test_linked_results_are_replaced_and_what_they_point_to_stays(run_dir: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("report.html", "front.csv", "front.json"):
        (run_dir / name).unlink(missing_ok=True)
        (run_dir / name).symlink_to(precious)
    api.report(run_dir)
    assert precious.read_text() == "mine"
    assert not (run_dir / "report.html").is_symlink()


def test_a_model_over_the_budget_is_not_exported(tmp_path: Path) -> None:
    def over(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        found = evaluate(candidate, seed, climb)
        return replace(found, costs={"macs": replace(found.costs["macs"], value=1e9)})

    run_study(replace(spec(3), name="study"), open_storage(None, tmp_path), propose, over)
    with pytest.raises(StudyError, match="trial 0 is over the budget"):
        api.export(tmp_path, trial=0)
