"""The journal file of a study: one writer at a time, whatever happens to it, and no half line stays in the file.

The writer holds ``flock`` on the file itself. The system frees it the moment its holder dies, and never before: a
holder that was paused for minutes still has it. (Optuna's own locks are files that are broken when they get old; a
holder that was merely slow then wrote together with another.) On NFS, Linux turns it into a lock of the server's,
so machines exclude each other with NFSv4, or NFSv3 with its lock daemon; a machine that dies there keeps its lock
until the server's lease ends, 90 s as a rule. Mounts with ``nolock`` or ``local_lock`` do not exclude other machines.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from automl_prune.errors import StudyError
from automl_prune.files import atomic_path

JOURNAL: Final = "study.journal"

_PATIENCE: Final = 30.0
"""Seconds for which the lock is waited for before the caller hears of it; a write takes milliseconds."""


def open_journal(path: Path) -> tuple[JournalStorage, list[str]]:
    """Open a journal, creating it when it does not exist.

    Args:
        path: Absolute.

    Returns:
        Optuna's storage, and what was repaired.

    Raises:
        StudyError: It cannot be opened, or is damaged elsewhere than at its end.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        journal = JournalFile(path)
        with journal.locked():
            pass
        return JournalStorage(journal), journal.notices
    except OSError as error:
        raise StudyError(f"the study's journal {path} cannot be opened ({error}); choose another --run-dir") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StudyError(
            f"the study's journal {path} is damaged: a record lacks what Optuna reads ({error!r}); restore the file "
            "from a backup, or choose another --run-dir"
        ) from error


class JournalFile(BaseJournalBackend):
    """Records as lines of JSON, only ever appended. A line counts once it is complete.

    Args:
        path: Of an existing file.

    Attributes:
        notices: What was repaired, for the user to read.
    """

    def __init__(self, path: Path) -> None:
        self.notices: list[str] = []
        self._path = path
        self._offsets = [0]  # where each record begins that was read so far, and the next one

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Records from a number on, counted from 0."""
        number = min(log_number_from, len(self._offsets) - 1)
        with self._path.open("rb") as file:
            file.seek(self._offsets[number])
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written, or torn: not there yet
                record = _record(line)
                if record is None:
                    line, record = self._read_again(number)
                number += 1
                if number == len(self._offsets):
                    self._offsets.append(self._offsets[-1] + len(line))
                if number > log_number_from:
                    yield record

    def _read_again(self, number: int) -> tuple[bytes, dict[str, Any]]:
        """A record that was no JSON, once nobody writes: a torn line may just have been cut off and written over."""
        with self.locked(), self._path.open("rb") as file:
            file.seek(self._offsets[number])
            line = file.readline()
            record = _record(line)
            if record is None:
                later = sum(1 for _ in file)
                raise StudyError(
                    f"the study's journal {self._path} is damaged: its line {number + 1} (at byte "
                    f"{self._offsets[number]}) is not a record, and {later} lines follow; nothing was changed. Restore "
                    f"the file from a backup, or give up the later records: head -n {number} study.journal > repaired"
                )
            return line, record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records durably; what does not fit on the disk leaves nothing behind."""
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self.locked() as descriptor:
            end = os.fstat(descriptor).st_size
            written = 0
            try:
                while written < len(content):
                    written += os.write(descriptor, content[written:])
            finally:
                if written < len(content):
                    os.ftruncate(descriptor, end)
            os.fsync(descriptor)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """A descriptor to append to, while no other process has one; a torn last line has been cut off.

        Raises:
            OSError: The file is gone, or another process keeps the lock.
            StudyError: The file system has no locks.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND)
        try:
            _lock(descriptor, self._path)
            try:
                notice = cut_torn_line(self._path)
                if notice:
                    self.notices.append(notice)
                yield descriptor
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile would keep it through a mere close
        finally:
            os.close(descriptor)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _lock(descriptor: int, path: Path) -> None:
    deadline, pause = time.monotonic() + _PATIENCE, 0.0005
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"another process has kept {path} locked for {_PATIENCE:.0f} s; is one of the workers stopped? "
                    f"'fuser -v {path}' shows them: continue it (kill -CONT) or end it",
                ) from None
        except OSError as error:
            raise StudyError(
                f"{path} lies on a file system without locks ({error.strerror}); put the run directory on a local disk "
                "or on NFSv4, or keep the study in a database: --storage postgresql://user@host/database"
            ) from error
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, 0.02)


def cut_torn_line(path: Path) -> str | None:
    """Cut a journal back to its last complete line, keeping what is cut off; the caller holds the lock.

    A process killed in the middle of a write leaves half a line; the next append would spoil both.

    Returns:
        What was done, or None when there was nothing to do.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n":
            return None
        end = _last_newline(file.fileno(), size)
        copy = path.with_name(f"{path.name}.torn-{time.time_ns()}")
        with atomic_path(copy) as temporary:
            temporary.write_bytes(os.pread(file.fileno(), size - end, end))
        file.truncate(end)
        os.fsync(file.fileno())
    return f"the last line of {path} was torn: {size - end} bytes were cut off and are kept in {copy.name}"


def _last_newline(descriptor: int, size: int) -> int:
    """Offset just after the last newline before ``size``; 0 when there is none."""
    end = size
    while end > 0:
        start = max(0, end - 65536)
        position = os.pread(descriptor, end - start, start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0
