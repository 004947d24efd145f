"""All randomness starts here: seeds are derived from what they are for, and global state is restored."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: object) -> int:
    """A 31-bit seed that depends on every part and on nothing else (stable across processes and versions)."""
    text = "\x1f".join(repr(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFF_FFFF


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by ``derive_seed``; prefer it over global state."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def seeded(*parts: object) -> Iterator[int]:
    """Seed Python, NumPy and torch for the block, then put their states back as they were.

    For code that draws from global generators (weight initialisation, dropout). Yields the seed.
    """
    seed = derive_seed(*parts)
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # saved to be restored
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # third-party code draws from it
        torch.manual_seed(seed)
        try:
            yield seed
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Let cuDNN choose only algorithms that give the same bits every time; the setting is put back afterwards."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
