"""The database's side of Optuna's gRPC proxy: hundreds of workers share the connections of one process."""

from __future__ import annotations

import ipaddress
import socket
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, run_grpc_proxy_server

from automl_prune.errors import StudyError
from automl_prune.study.proxy import is_proxy, rpc_error
from automl_prune.study.storage import open_storage, quiet

_THREADS = 16
"""Requests served at once, each with a connection of its own to the database."""


def serve(
    url: str, host: str, port: int, *, say: Callable[[str], None], run: Callable[..., None] = run_grpc_proxy_server
) -> None:
    """Serve a database to workers until interrupted.

    Args:
        url: Of the database.
        host: Name or address to listen on.
        port: Port to listen on.
        say: Told where it listens, and what is risky about that.
        run: Blocks while it serves.

    Raises:
        StudyError: The database cannot be opened, or the address cannot be listened on.
    """
    rpc_error()
    _check_free(host, port)
    if is_proxy(url):
        raise StudyError(f"--storage is {url}, which is a proxy already; give the database's own URL")
    storage = open_storage(url, Path(), connections=_THREADS)
    for notice in storage.notices:
        say(notice)
    if not is_loopback(host):
        say(
            f"Warning: {host} can be reached from other machines, and the proxy asks for no password and encrypts "
            "nothing: whoever reaches it can read and change every study. Keep it inside a network you trust."
        )
    say(f"Serving {storage.location}; workers use --storage grpc://{host}:{port}")
    _serve(storage.backend, host, port, run)


def _check_free(host: str, port: int) -> None:
    """GRPC shares a port with whoever else listens on it, without a word."""
    name = host.strip("[]")
    try:
        family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((name, port), family=family).close()
    except OSError as error:
        raise StudyError(f"{host}:{port} cannot be listened on ({error}); choose another --host or --port") from None


def _serve(backend: BaseStorage, host: str, port: int, run: Callable[..., None]) -> None:
    with warnings.catch_warnings(), quiet(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter("ignore", ExperimentalWarning)
        run(backend, host=host, port=port, thread_pool=pool)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, out of reach for others."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
