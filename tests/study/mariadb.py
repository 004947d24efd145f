"""A MariaDB server of a test's own, in a temporary folder; the MySQL protocol, its locks and its isolation."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_SETTINGS = ("--skip-networking", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M")


class MariaDB:
    """A running server; it listens on a socket in its own folder only."""

    def __init__(self, folder: Path, user: str) -> None:
        self.folder, self.user = folder, user
        self._databases = count()
        self._process: subprocess.Popen[bytes] | None = None

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"study{next(self._databases)}"
        self._run(
            "mariadb", "--no-defaults", f"--socket={self.folder}/socket", "-uroot", "-e", f"create database {name}"
        )
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self.folder}/socket"

    def install(self) -> None:
        """The server's own tables."""
        self._run(
            "mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _program("mariadbd"), "--no-defaults", *_SETTINGS, f"--datadir={self.folder}/data",
                    f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid",
                ],
                user=self._as, group=self._as, extra_groups=[] if self._as else None, stdout=log, stderr=log,
            )  # fmt: skip
        ping = ["mariadb-admin", "--no-defaults", f"--socket={self.folder}/socket", "-uroot", "ping"]
        for _ in range(600):
            if subprocess.run(ping, capture_output=True).returncode == 0:
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """As in a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def _as(self) -> str | None:
        return self.user if os.geteuid() == 0 else None  # the server refuses to run as root

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [_program(program), *arguments], user=self._as, group=self._as,
            extra_groups=[] if self._as else None, capture_output=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()


def _program(name: str) -> str:
    return shutil.which(name) or f"/usr/sbin/{name}"


@contextmanager
def mariadb() -> Iterator[MariaDB]:
    """A new, empty server; the test is skipped where MariaDB or its driver is not installed."""
    pytest.importorskip("pymysql")
    missing = [name for name in ("mariadbd", "mariadb-install-db") if not Path(_program(name)).exists()]
    if missing:
        pytest.skip(f"MariaDB's {' and '.join(missing)} are not installed (Debian: apt-get install mariadb-server)")
    user = "mysql" if os.geteuid() == 0 else getpass.getuser()
    folder = Path(tempfile.mkdtemp(prefix="my-"))  # a short path: a socket's may have 107 characters
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, user, user)
        server = MariaDB(folder, user)
        server.install()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
