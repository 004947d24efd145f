"""Opening storages: bad URLs, secrets, failures that pass."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from automl_prune.errors import StudyError
from automl_prune.study import storage as storage_module
from automl_prune.study.runner import read_study, run_study
from automl_prune.study.storage import open_storage, retrying
from tests.study.synthetic import evaluate, propose, spec


class Flaky(InMemoryStorage):
    """Fails the first calls."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def get_all_studies(self) -> list[optuna.study._frozen.FrozenStudy]:
        if self.failures:
            self.failures -= 1
            raise StorageInternalError("the connection was closed, password=hunter2")
        return super().get_all_studies()


def test_failing_storage_is_tried_again() -> None:
    flaky = Flaky(3)
    assert retrying(flaky, "there").get_all_studies() == []
    assert flaky.failures == 0


def test_storage_that_stays_away_is_given_up() -> None:
    with pytest.raises(StudyError, match=r"storage there failed for 0 s: the connection was closed") as caught:
        retrying(Flaky(10**6), "there", patience=0.2).get_all_studies()
    assert "hunter2" not in str(caught.value)


def test_errors_of_the_caller_are_not_tried_again() -> None:
    storage = retrying(InMemoryStorage(), "there")
    storage.create_new_study([StudyDirection.MINIMIZE], "name")
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        storage.create_new_study([StudyDirection.MINIMIZE], "name")
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("another")


def test_database_runs_a_study_and_says_what_it_is_good_for(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db", tmp_path)
    assert "one worker" in storage.notices[0]
    record = run_study(spec(8), storage, propose, evaluate)
    assert [trial.state for trial in record.trials] == ["complete"] * 8
    assert read_study(open_storage(f"sqlite:///{tmp_path}/study.db", tmp_path)) == record
    journal = run_study(spec(8), open_storage(None, tmp_path / "journal"), propose, evaluate)
    assert [trial.point for trial in journal.trials] == [trial.point for trial in record.trials]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("no url with hunter2", "not a database URL"),
        ("nosuch://user:hunter2@host/db", "nosuch"),
        ("sqlite:////no/such/folder/study.db", "/no/such/folder/study.db"),
    ],
)
def test_unusable_url_is_refused_without_its_password(url: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        open_storage(url, tmp_path)
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None, "a traceback must not show it either"


def test_relative_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage(None, Path("run")).location == str(tmp_path / "run" / "study.journal")


def test_user_and_password_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def refuse(url: str, engine_kwargs: object) -> None:
        seen.append(url)
        raise RuntimeError(f"{url} is unreachable: hunter2@x does not open the door")

    monkeypatch.setattr(storage_module, "RDBStorage", refuse)
    monkeypatch.setenv("DB_USER", "me")
    monkeypatch.setenv("DB_PASSWORD", "hunter2@x")
    for url in ("postgresql://$DB_USER:$DB_PASSWORD@host/db", "postgresql://me:${DB_PASSWORD}@host/db"):
        with pytest.raises(StudyError, match=r"postgresql://me@host/db cannot be opened") as caught:
            open_storage(url, tmp_path)
        assert seen.pop() == "postgresql://me:hunter2%40x@host/db"
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(StudyError, match="environment variable DB_PASSWORD, which is not set"):
        open_storage("postgresql://me:$DB_PASSWORD@host/db", tmp_path)
