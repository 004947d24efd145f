"""Fused operators as plain ones, so that what they compute can be followed and counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def followable() -> Iterator[None]:
    """``nn.MultiheadAttention`` runs operator by operator instead of as one that hides its layers."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def unfused() -> Iterator[None]:
    """``followable``, and attention runs as matrix products and softmax."""
    with followable(), sdpa_kernel(SDPBackend.MATH):
        yield
