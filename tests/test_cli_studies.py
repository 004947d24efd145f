from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from automl_prune import api
from automl_prune.cli import app
from automl_prune.errors import StudyError
from automl_prune.study.runner import run_study
from automl_prune.study.storage import open_storage
from tests.study.synthetic import evaluate, propose, spec


def searched(folder: Path, *, seed: int = 7, data: str = "digest") -> Path:
    study = replace(spec(6), name="study", seed=seed, identity={"model": "m", "data": data})
    run_study(study, open_storage(None, folder), propose, evaluate)
    return folder


def test_compare_is_a_table_or_json(tmp_path: Path) -> None:
    first, second = searched(tmp_path / "a"), searched(tmp_path / "b", seed=8)
    done = CliRunner().invoke(app, ["compare", str(first), str(second)])
    assert done.exit_code == 0, done.output
    for words in ("hypervolume of the front", "6 of 6", "Best model by macs", "at most"):
        assert words in done.output
    done = CliRunner().invoke(app, ["compare", str(first), str(second), "--json"])
    plain = json.loads(done.output)
    assert plain["stage"] == "search"
    assert plain["verdict"] == api.compare(first, second).verdict


def test_studies_of_other_data_are_not_compared(tmp_path: Path) -> None:
    first, second = searched(tmp_path / "a"), searched(tmp_path / "b", data="other")
    with pytest.raises(StudyError, match="data, splits or preprocessing differ"):
        api.compare(first, second)


def test_a_study_in_a_database_is_found_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    same = {"model": "m", "data": "digest"}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run_study(replace(spec(4), name=name, identity=same), open_storage(url, tmp_path), propose, evaluate)
    journal = searched(tmp_path / "journal")

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert "AUTOML_PRUNE_STORAGE" in str(run("status", a).exception)
    assert "4 of 4 trials finished" in run("status", a, "--storage", url).output
    monkeypatch.setenv("AUTOML_PRUNE_STORAGE", url)
    for command in (["status", a], ["front", a], ["report", a], ["compare", a, b], ["compare", a, str(journal)]):
        done = run(*command)
        assert done.exit_code == 0, done.output
    assert "6 of 6 trials finished" in run("status", str(journal)).output, "the run directory's own journal comes first"
