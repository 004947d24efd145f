"""One process at a time times on a device."""

from __future__ import annotations

import getpass
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from automl_prune.costs.latency.fingerprint import Fingerprint


@contextmanager
def exclusive(fingerprint: Fingerprint) -> Iterator[None]:
    """Waits until no other process of this user times on the same device of this machine; others wait meanwhile.

    The operating system gives the lock back when a process ends, killed or not.
    """
    folder = Path(tempfile.gettempdir()) / f"automl-prune-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    device = hashlib.sha256(fingerprint.device.encode()).hexdigest()[:8]
    with FileLock(folder / f"latency-{device}.lock"):
        yield
