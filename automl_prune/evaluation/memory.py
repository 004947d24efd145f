"""Running out of memory, as the failure of one candidate."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from automl_prune.errors import EvaluationError


@contextmanager
def within_memory(device: torch.device) -> Iterator[None]:
    """Turn running out of memory into an ``EvaluationError``, and free what the block held, for whoever comes next."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        traceback.clear_frames(error.__traceback__)  # they hold the tensors
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise EvaluationError(
            f"out of memory on {device} ({said}); lower data.batch_size, or run fewer workers on this machine"
        ) from None


def _is_out_of_memory(error: Exception) -> bool:
    """Torch has a class of its own for accelerators only; on the CPU its allocator says so in words."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
