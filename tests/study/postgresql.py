"""A PostgreSQL server of a test's own, in a temporary folder, that can be stopped and started again."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_SETTINGS = "-c listen_addresses='' -c fsync=off -c shared_buffers=16MB -c max_connections=50"


def _program(name: str) -> str | None:
    """Where a server program lies; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


class Server:
    """A running server; it listens on a socket in its own folder only."""

    def __init__(self, folder: Path, user: str, settings: str) -> None:
        self.folder, self.user, self.settings = folder, user, settings
        self._databases = count()

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"study{next(self._databases)}"
        self.run("createdb", "-h", str(self.folder), "-U", self.user, name)
        return f"postgresql+psycopg://{self.user}@/{name}?host={self.folder}"

    def start(self) -> None:
        options = f"{self.settings} -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        """As in a crash: every connection breaks, nothing is written any more."""
        self.run("pg_ctl", "stop", "-w", "-D", "data", "-m", "immediate")

    def run(self, program: str, *arguments: str) -> None:
        user = self.user if os.geteuid() == 0 else None  # the server refuses to run as root
        done = subprocess.run(
            [str(_program(program)), *arguments],
            cwd=self.folder,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()


@contextmanager
def postgresql(settings: str = _SETTINGS) -> Iterator[Server]:
    """A new, empty server with command-line options; the test is skipped where PostgreSQL is not installed."""
    missing = [name for name in ("initdb", "pg_ctl", "createdb") if _program(name) is None]
    if missing:
        pytest.skip(f"PostgreSQL's {' and '.join(missing)} are not installed (Debian: apt-get install postgresql)")
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a short path: a socket's may have 107 characters
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, user, user)
        server = Server(folder, user, settings)
        server.run("initdb", "-D", "data", "-U", user, "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder)
