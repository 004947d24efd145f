"""Where a study lives: a journal file that repairs itself, or a database that may go away and come back."""

from __future__ import annotations

import functools
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from automl_prune.errors import StudyError

T = TypeVar("T")

JOURNAL: Final = "study.journal"
PATIENCE: Final = 120.0
"""Seconds for which a storage that fails is tried again before the study gives up."""

# A write to the journal takes milliseconds; a lock this old was left by a process that was killed with it.
_LOCK_GRACE: Final = 10
_TRANSIENT = (StorageInternalError, DBAPIError, PoolTimeoutError, OSError)
_SECRETS = re.compile(r"((?:password|passwd|pwd|token|secret)=)[^&\s]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StudyStorage:
    """An open storage.

    Attributes:
        backend: Optuna's view of it; every call is tried again for ``PATIENCE`` seconds when the storage fails.
        location: Its path, or its URL without the password.
        notices: What was repaired or is unwise, for the user to read.
    """

    backend: BaseStorage
    location: str
    notices: tuple[str, ...] = ()


def open_storage(url: str | None, directory: Path) -> StudyStorage:
    """Open the storage of a study, creating it when it does not exist.

    Args:
        url: SQLAlchemy URL (``postgresql://...``, ``sqlite:///...``), or None for a journal file.
        directory: Where the journal file lies.

    Raises:
        StudyError: The storage cannot be opened; passwords are left out of the message.
    """
    if url is None:
        return _open_journal(directory.resolve() / JOURNAL)
    return _open_database(url)


def _open_journal(path: Path) -> StudyStorage:
    # An absolute path: with a relative one Optuna's lock waits for ever once its holder was killed.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _RepairingLock(path)
        backend = JournalFileBackend(str(path), lock_obj=lock)
        lock.acquire()
        lock.release()
        storage = JournalStorage(backend)
    except OSError as error:
        raise StudyError(f"the study's journal {path} cannot be opened ({error}); choose another --run-dir") from error
    except (ValueError, KeyError) as error:
        raise StudyError(
            f"the study's journal {path} is damaged ({error}); restore it from a backup or choose another --run-dir"
        ) from error
    return StudyStorage(retrying(storage, str(path)), str(path), tuple(lock.notices))


class _RepairingLock(JournalFileSymlinkLock):
    """Optuna's lock, which also cuts off a torn last line before its holder appends to it.

    A process killed in the middle of a write leaves half a line; whatever is appended to it makes the whole
    file unreadable for everyone. So the check belongs under the lock, before every append.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), grace_period=_LOCK_GRACE)
        self._path = path
        self.notices: list[str] = []

    def acquire(self) -> bool:
        taken = super().acquire()
        try:
            notice = cut_torn_line(self._path)
        except BaseException:
            self.release()
            raise
        if notice:
            self.notices.append(notice)
        return taken


def cut_torn_line(path: Path) -> str | None:
    """Cut a journal back to its last complete line, keeping a copy; the caller holds the journal's lock.

    Returns:
        What was done, or None when there was nothing to do.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return None
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return None
        end = _last_newline(file.fileno(), size)
        copy = path.with_name(f"{path.name}.torn-{time.time_ns()}")
        shutil.copyfile(path, copy)
        file.truncate(end)
        os.fsync(file.fileno())
    return f"the last line of {path} was torn ({size - end} bytes): cut off, the file as it was is {copy.name}"


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


def _open_database(url: str) -> StudyStorage:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # SQLAlchemy would quote the text, and with it a password.
        raise StudyError("--storage is not a database URL; expected e.g. postgresql://user@host/database") from None
    location = _SECRETS.sub(r"\1***", parsed.render_as_string(hide_password=True))
    sqlite = parsed.get_backend_name() == "sqlite"
    pool = {} if sqlite else {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 2}
    try:
        with quiet():
            storage = get_storage(RDBStorage(url, engine_kwargs=pool))
    except (ImportError, NoSuchModuleError) as error:
        raise StudyError(
            f"storage {location}: no driver for {parsed.drivername} is installed "
            f"({_scrub(error, parsed.password)}); for PostgreSQL: pip install 'psycopg[binary]'"
        ) from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError, OSError) as error:
        raise StudyError(
            f"storage {location} cannot be opened: {_scrub(error, parsed.password)}; "
            "check that the server runs, and the URL"
        ) from None
    notice = "SQLite hands a trial to several workers now and then: use it with one worker, else a journal file"
    return StudyStorage(retrying(storage, location), location, (notice,) if sqlite else ())


def _scrub(error: BaseException, password: object) -> str:
    """The innermost message in one line, without the password."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = _SECRETS.sub(r"\1***", str(getattr(error, "orig", None) or error))
    if password:
        text = text.replace(str(password), "***")
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's chatter on stderr; its level is put back."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def retrying(storage: BaseStorage, location: str, patience: float = PATIENCE) -> BaseStorage:
    """A storage whose every call backs off and tries again while the storage fails.

    A call that was carried out although its answer was lost is carried out twice; the worker's protocol bears
    that (see ``worker.py``).

    Args:
        storage: What is wrapped.
        location: How messages name it.
        patience: Seconds until ``StudyError`` is raised instead.
    """

    def method(name: str) -> Callable[..., Any]:
        def call(self: object, *args: Any, **kwargs: Any) -> Any:
            return _with_patience(functools.partial(getattr(storage, name), *args, **kwargs), location, patience)

        return call

    names = [name for name in dir(BaseStorage) if not name.startswith("_")]
    wrapper = type("RetryingStorage", (BaseStorage,), {name: method(name) for name in names})
    return cast(BaseStorage, wrapper())


def _with_patience(call: Callable[[], T], location: str, patience: float) -> T:
    deadline, pause = time.monotonic() + patience, 0.05
    while True:
        try:
            return call()
        except _TRANSIENT as error:
            if time.monotonic() + pause > deadline:
                raise StudyError(
                    f"storage {location} failed for {patience:.0f} s: {_scrub(error, None)}; "
                    "nothing is lost: run the same command again when it is back"
                ) from None
            time.sleep(pause * random.uniform(0.5, 1))  # many workers must not come back at one moment
            pause = min(2 * pause, 5.0)
