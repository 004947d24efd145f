"""The worker's side of Optuna's gRPC proxy, which many share to reach a database; ``serving.py`` is the other side."""

from __future__ import annotations

import re
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy

from automl_prune.errors import StudyError

_URL = re.compile(r"grpc://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})/?")


def is_proxy(url: str) -> bool:
    """Whether a storage is a proxy's."""
    return url.startswith("grpc:")


def open_proxy(url: str) -> tuple[GrpcStorageProxy, type[Exception]]:
    """The storage behind a proxy, and what is raised while it cannot be reached.

    Args:
        url: ``grpc://host:port``.

    Raises:
        StudyError: The URL is malformed, grpcio is missing, or no proxy answers.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise StudyError("--storage grpc://... is not of the form grpc://host:port, e.g. grpc://localhost:13000")
    error = rpc_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=found["host"], port=int(found["port"]))
    try:
        proxy.wait_server_ready(timeout=10)
    except ConnectionError:
        raise StudyError(
            f"storage {url}: no proxy answers; start one with: automl-prune storage-proxy --storage URL"
        ) from None
    return proxy, error


def rpc_error() -> type[Exception]:
    """What a failed call raises; ``StudyError`` where grpcio is not installed."""
    try:
        from grpc import RpcError
    except ImportError as error:
        raise StudyError("the storage proxy needs grpcio; install it with: pip install 'automl-prune[grpc]'") from error
    return RpcError  # type: ignore[no-any-return]  # grpcio publishes no types
