"""The journal file: torn and damaged lines, full disks, and a lock that its holder keeps and loses with its life."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from optuna.study import StudyDirection

from automl_prune.errors import StudyError
from automl_prune.study import journal as module
from automl_prune.study.journal import JournalFile, cut_torn_line, open_journal
from automl_prune.study.runner import run_study
from automl_prune.study.storage import StudyStorage, open_storage, retrying
from tests.study import processes
from tests.study.processes import kill, wait_for_end, wait_until
from tests.study.synthetic import evaluate, propose, spec


def made(directory: Path, content: bytes = b"") -> JournalFile:
    (directory / "study.journal").write_bytes(content)
    return JournalFile(directory / "study.journal")


def test_records_are_read_from_any_number(tmp_path: Path) -> None:
    writer, reader = made(tmp_path), JournalFile(tmp_path / "study.journal")
    for number in range(3):
        writer.append_logs([{"number": number}])
        assert list(reader.read_logs(number)) == [{"number": number}]
    assert list(reader.read_logs(3)) == []
    assert [record["number"] for record in JournalFile(tmp_path / "study.journal").read_logs(1)] == [1, 2]


def test_line_torn_while_others_write_is_cut_before_the_next_append(tmp_path: Path) -> None:
    writer, reader = open_storage(None, tmp_path), open_storage(None, tmp_path)
    study = writer.backend.create_new_study([StudyDirection.MINIMIZE], "one")
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker_i')  # another worker was killed in the middle of this
    assert [found.study_name for found in reader.backend.get_all_studies()] == ["one"]
    writer.backend.set_study_user_attr(study, "key", "value")
    assert reader.backend.get_study_user_attrs(study) == {"key": "value"}
    assert len(list(tmp_path.glob("*.torn-*"))) == 1


@pytest.mark.parametrize(
    ("content", "kept"),
    [(b"", b""), (b"a\n", b"a\n"), (b"a\nb", b"a\n"), (b"torn", b""), (b"a\n" + b"x" * 200000, b"a\n")],
)
def test_cut_torn_line(content: bytes, kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert (cut_torn_line(path) is None) == (content == kept)
    assert path.read_bytes() == kept
    assert b"".join(copy.read_bytes() for copy in tmp_path.glob("file.torn-*")) == content[len(kept) :]


@pytest.mark.parametrize("spoiled", [b"\x00" * 20 + b"\n", b'{"op_code":4,"wor{"op_code":5}\n', b"[]\n"])
def test_line_damaged_in_the_middle_is_refused_and_left_alone(spoiled: bytes, tmp_path: Path) -> None:
    run_study(spec(2), open_storage(None, tmp_path), propose, evaluate)
    path = tmp_path / "study.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = spoiled
    path.write_bytes(b"".join(lines))
    with pytest.raises(
        StudyError, match=rf"study\.journal is damaged: its line 4 .* and {len(lines) - 4} lines follow"
    ):
        open_storage(None, tmp_path)
    assert path.read_bytes() == b"".join(lines)
    # What the message offers works: the records before the damage are a study.
    path.write_bytes(b"".join(lines[:3]))
    open_storage(None, tmp_path)


def test_record_of_another_layout_is_refused(tmp_path: Path) -> None:
    made(tmp_path, b"{}\n")
    with pytest.raises(StudyError, match="lacks what Optuna reads"):
        open_storage(None, tmp_path)


def test_damage_while_the_study_runs_is_named(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b"no record\n")
    with pytest.raises(StudyError, match=r"line 1 .* is not a record"):
        storage.backend.get_all_studies()


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_record_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, write = made(tmp_path, b'{"old":1}\n'), os.write

    def half(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space left"):
        journal.append_logs([{"new": 2}])
    monkeypatch.undo()
    assert (tmp_path / "study.journal").read_bytes() == b'{"old":1}\n'
    journal.append_logs([{"new": 3}])
    assert list(journal.read_logs(0)) == [{"old": 1}, {"new": 3}]
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"], "its own half line needs no copy"


def test_whole_record_stays_when_only_the_sync_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = made(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.append_logs([{"new": 1}])
    assert list(journal.read_logs(0)) == [{"new": 1}], "another process may have read it"


def work_in_little_room(directory: Path, requested: int, room: int) -> None:
    """A worker whose files cannot grow beyond a few bytes more than its journal has; its error ends in a file."""
    journal, _ = open_journal(directory / "study.journal")
    size = (directory / "study.journal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    storage = StudyStorage(retrying(journal, "the journal", patience=0.3), "the journal")
    try:
        run_study(spec(requested), storage, propose, evaluate)
    except StudyError as error:
        (directory / "error").write_text(str(error), encoding="utf-8")


@pytest.mark.parametrize("room", [10, 3000])
def test_study_goes_on_after_its_disk_was_full(room: int, tmp_path: Path) -> None:
    run_study(spec(2), open_storage(None, tmp_path), propose, evaluate)
    wait_for_end(processes.start(work_in_little_room, tmp_path, 6, room))
    assert "File too large" in (tmp_path / "error").read_text(encoding="utf-8")
    whole = (tmp_path / "study.journal").read_bytes()
    assert whole.endswith(b"\n")
    record = run_study(spec(6), open_storage(None, tmp_path), propose, evaluate)
    assert [trial.state for trial in record.trials] == ["complete"] * 6
    assert (tmp_path / "study.journal").read_bytes().startswith(whole)
    assert not list(tmp_path.glob("*.torn-*"))


def hold(directory: Path) -> None:
    """Append in two steps, and stop in the middle, like a process that gets no processor time."""
    with JournalFile(directory / "study.journal").locked() as descriptor:
        os.write(descriptor, b'{"holder":')
        os.kill(os.getpid(), signal.SIGSTOP)
        os.write(descriptor, b"1}\n")


def starve_a_holder(directory: Path) -> BaseProcess:
    path = directory / "study.journal"
    holder = processes.start(hold, directory)
    wait_until(lambda: path.stat().st_size > 0, holder)
    return holder


def test_lock_outlasts_every_pause_of_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    journal = made(tmp_path)
    holder = starve_a_holder(tmp_path)
    os.utime(tmp_path / "study.journal", (0, 0))  # however old the lock may look
    with pytest.raises(TimeoutError, match=r"kept .* locked"):
        journal.append_logs([{"other": 2}])
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGCONT)
    wait_for_end(holder)
    journal.append_logs([{"other": 2}])
    assert list(journal.read_logs(0)) == [{"holder": 1}, {"other": 2}]
    assert journal.notices == []


def test_lock_is_free_once_its_holder_is_killed(tmp_path: Path) -> None:
    journal = made(tmp_path)
    kill(starve_a_holder(tmp_path))
    journal.append_logs([{"other": 2}])
    assert list(journal.read_logs(0)) == [{"other": 2}]
    (notice,) = journal.notices
    assert "10 bytes were cut off" in notice


def test_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StudyError, match=r"without locks .*NFSv4"):
        open_storage(None, tmp_path)
