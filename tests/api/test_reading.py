"""Where a study lives: as given, in the run directory's journal, as the environment says, or in a new journal."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from automl_prune import api
from automl_prune.api.reading import STORAGE_VARIABLE, storage_by_default
from automl_prune.config import Config
from automl_prune.errors import StudyError
from tests.api.test_retargeting import DIGITS, SHORT
from tests.views import Recorder


def test_the_journal_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)
    assert storage_by_default(tmp_path, None) is None
    monkeypatch.setenv(STORAGE_VARIABLE, "")
    assert storage_by_default(tmp_path, None) is None
    monkeypatch.setenv(STORAGE_VARIABLE, "postgresql://db/prune")
    assert storage_by_default(tmp_path, None) == storage_by_default(None, None) == "postgresql://db/prune"
    assert storage_by_default(tmp_path, "mysql://db/prune") == "mysql://db/prune"
    (tmp_path / "study.journal").touch()
    assert storage_by_default(tmp_path, None) is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_search_and_its_worker_find_the_database_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, f"sqlite:///{tmp_path / 'studies.db'}")
    run_dir, view = tmp_path / "run", Recorder()
    config = Config.load(DIGITS, SHORT)
    api.search_config(config, run_dir, trials=4, view=view)
    assert not (run_dir / "study.journal").exists()
    assert any("studies.db" in line and STORAGE_VARIABLE in line for line in view.said)
    api.search_config(config, tmp_path / "other", trials=4)
    view = Recorder()
    api.worker(run_dir, view=view)
    assert "All 4 trials of study run are finished" in view.said, "the run directory names the study"
    monkeypatch.delenv(STORAGE_VARIABLE)
    for use in (
        partial(api.worker, run_dir),
        partial(api.status, run_dir),
        partial(api.search_config, config, run_dir),
    ):
        with pytest.raises(StudyError, match=r"lives in sqlite.*studies\.db; give --storage URL"):
            use()
    assert not (run_dir / "study.journal").exists(), "no other study is begun beside it"
