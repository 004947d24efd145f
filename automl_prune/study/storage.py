"""Where a study lives: a journal file that repairs itself, or a database that may go away and come back."""

from __future__ import annotations

import functools
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from automl_prune.errors import StudyError
from automl_prune.redaction import without_secrets
from automl_prune.study.journal import JOURNAL, open_journal
from automl_prune.study.proxy import is_proxy, open_proxy
from automl_prune.study.reader import TrialReader

T = TypeVar("T")

PATIENCE: Final = 120.0
"""Seconds for which a storage that fails is tried again before the study gives up."""

# A server or network that says nothing is noticed after half a minute, not after the system's hours.
_LIBPQ: Final = {
    "connect_timeout": 10,  # seconds, as the next two
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
_PYMYSQL: Final = {"connect_timeout": 10, "read_timeout": 30, "write_timeout": 30}
_RACES: Final = 20
_TRANSIENT = (StorageInternalError, DBAPIError, PoolTimeoutError, OSError)


_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class StudyStorage:
    """An open storage.

    Attributes:
        backend: Optuna's view of it; every call is tried again for ``PATIENCE`` seconds when the storage fails.
        location: Its path, or its URL without the password.
        notices: What was repaired or is unwise, for the user to read.
        close: Gives up the connections to it; it may be used again all the same.
    """

    backend: BaseStorage
    location: str
    notices: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None


def open_storage(url: str | None, directory: Path, *, connections: int = 4) -> StudyStorage:
    """Open the storage of a study, creating it when it does not exist.

    Args:
        url: SQLAlchemy URL (``postgresql://...``, ``sqlite:///...``), ``grpc://host:port`` of a proxy, or None for a
            journal file. User name and password may be ``$VARIABLES`` of the environment, so that they stand
            nowhere else.
        directory: Where the journal file lies.
        connections: To a database server, at most.

    Raises:
        StudyError: The storage cannot be opened; passwords are left out of the message.
    """
    if url is None:
        path = directory.resolve() / JOURNAL
        journal, notices = open_journal(path)
        return StudyStorage(retrying(journal, str(path)), str(path), tuple(notices))
    if is_proxy(url):
        proxy, failure = open_proxy(url)
        return StudyStorage(retrying(proxy, url, transient=(failure,)), url, close=proxy.close)
    return _open_database(url, connections)


def _pool(url: URL, connections: int) -> dict[str, Any]:
    """SQLAlchemy's options for a database server."""
    pool: dict[str, Any] = {
        "pool_pre_ping": True,
        "pool_size": connections // 2,
        "max_overflow": connections // 2,
    }
    driver = url.get_driver_name()
    if driver in ("psycopg", "psycopg2"):
        pool["connect_args"] = {**_LIBPQ, **url.query}
    if driver == "pymysql":
        pool["connect_args"] = _PYMYSQL
    return pool


def _open_database(url: str, connections: int) -> StudyStorage:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # SQLAlchemy would quote the text, and with it a password.
        raise StudyError("--storage is not a database URL; expected e.g. postgresql://user@host/database") from None
    parsed = parsed.set(username=_from_environment(parsed.username), password=_from_environment(parsed.password))
    location = without_secrets(parsed.render_as_string(hide_password=True))
    sqlite = parsed.get_backend_name() == "sqlite"
    try:
        pool = {} if sqlite else _pool(parsed, connections)
        with quiet():
            database = _with_tables(parsed.render_as_string(hide_password=False), pool)
    except (ImportError, NoSuchModuleError) as error:
        raise StudyError(
            f"storage {location}: no driver for {parsed.drivername} is installed ({_scrub(error, parsed.password)}); "
            "pip install 'automl-prune[postgresql]' (postgresql+psycopg://...) or 'automl-prune[mysql]' "
            "(mysql+pymysql://...)"
        ) from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError, OSError) as error:
        raise StudyError(
            f"storage {location} cannot be opened: {_scrub(error, parsed.password)}; "
            "check that the server runs, and the URL"
        ) from None
    notice = "SQLite hands a trial to several workers now and then: use it with one worker, else a journal file"

    def close() -> None:
        database.remove_session()
        database.engine.dispose()

    cached = get_storage(database)
    reading = delegating(
        "ReadingStorage",
        lambda name: getattr(TrialReader(database, cached) if name == "get_all_trials" else cached, name),
    )
    return StudyStorage(retrying(reading, location), location, (notice,) if sqlite else (), close)


def _with_tables(url: str, pool: dict[str, Any]) -> RDBStorage:
    """The database with Optuna's tables.

    Processes that create them at one moment fail each other, and try again. A server that stops meanwhile is waited
    for as by every later call; one that was never reached is not: the URL may be wrong.
    """
    deadline, races, reached = time.monotonic() + PATIENCE, 0, False
    while True:
        try:
            return RDBStorage(url, engine_kwargs=pool)
        except (DBAPIError, StorageInternalError) as error:
            if _is_race(error):
                reached, races = True, races + 1
                if races == _RACES:
                    raise
            else:
                reached = reached or getattr(error, "connection_invalidated", False)
                if not reached or time.monotonic() > deadline:
                    raise
        time.sleep(random.uniform(0.02, 0.2))


def _is_race(error: Exception) -> bool:
    """Whether another process made the same table or row; MySQL calls the former an operational error."""
    raced = isinstance(error, (IntegrityError, ProgrammingError, StorageInternalError))
    return raced or "already exists" in str(getattr(error, "orig", ""))


def _from_environment(text: object) -> str | None:
    """A part of a URL, or what the variable holds that it names."""
    found = _VARIABLE.fullmatch(str(text or ""))
    if found is None:
        return None if text is None else str(text)
    name = found[1] or found[2]
    if name not in os.environ:
        raise StudyError(f"--storage names the environment variable {name}, which is not set")
    return os.environ[name]


def _scrub(error: BaseException, password: object) -> str:
    """The innermost message in one line, without the password."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = without_secrets(str(getattr(error, "orig", None) or error))
    for secret in (str(password), quote(str(password), safe="")) if password else ():
        text = text.replace(secret, "***")
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


def retrying(
    storage: BaseStorage,
    location: str,
    patience: float = PATIENCE,
    transient: tuple[type[Exception], ...] = (),
) -> BaseStorage:
    """A storage whose every call backs off and tries again while the storage fails.

    A call that was carried out although its answer was lost is carried out twice; the worker's protocol bears
    that (see ``worker.py``).

    Args:
        storage: What is wrapped.
        location: How messages name it.
        patience: Seconds until ``StudyError`` is raised instead.
        transient: More kinds of failures that pass.
    """
    passing = (*_TRANSIENT, *transient)

    def method(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return _with_patience(
                functools.partial(getattr(storage, name), *args, **kwargs), location, patience, passing
            )

        return call

    return delegating("RetryingStorage", method)


def delegating(name: str, method: Callable[[str], Callable[..., Any]], **own: Callable[..., Any]) -> BaseStorage:
    """A storage whose every method is ``method(its name)``, except its ``own``, which get ``self`` too."""

    def bound(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args, **kwargs: call(*args, **kwargs)

    names = [name for name in dir(BaseStorage) if not name.startswith("_")]
    wrapper = type(name, (BaseStorage,), {name: bound(method(name)) for name in names} | own)
    return cast(BaseStorage, wrapper())


def _with_patience(call: Callable[[], T], location: str, patience: float, passing: tuple[type[Exception], ...]) -> T:
    deadline, pause = time.monotonic() + patience, 0.05
    while True:
        try:
            return call()
        except passing as error:
            if time.monotonic() + pause > deadline:
                raise StudyError(
                    f"storage {location} failed for {patience:.0f} s: {_scrub(error, None)}; "
                    "nothing is lost: run the same command again when it is back"
                ) from None
            time.sleep(pause * random.uniform(0.5, 1))  # many workers must not come back at one moment
            pause = min(2 * pause, 5.0)
