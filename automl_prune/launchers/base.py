"""What every launcher has in common: one verb, and the sharing of a machine's cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

Say: TypeAlias = Callable[[str], None]
"""Shows one sentence."""


class Launcher(Protocol):
    """Runs one function in several workers at once."""

    def describe(self) -> str:
        """What was chosen, for the user to read: how many workers, on what."""
        ...

    def run(self, function: str, arguments: Mapping[str, Any], say: Say, tick: Callable[[], object]) -> None:
        """Run the function in every worker until all have returned.

        Args:
            function: ``package.module:function``; called with ``arguments`` and with ``number`` (from 0, differs
                between workers), ``device`` (None leaves it to the function) and ``say``.
            arguments: JSON-ready keyword arguments; they may hold secrets and are never shown or written.
            say: Told what workers say, and which of them died.
            tick: Called about every two seconds; what it raises ends the run.

        Raises:
            AutomlPruneError: What a worker raised, or that workers keep dying.
            BaseException: Whatever interrupted the call; the workers were told to hand back what they work on.
        """
        ...


def cores() -> int:
    """Cores this process may use: its affinity, or a container's limit where that is lower."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup of version 2, or no limit ("max")
        return count


def threads_each(workers: int) -> int:
    """Threads of each of several workers that share this machine; ``OMP_NUM_THREADS`` is a bound where it is set."""
    share = max(1, cores() // workers)
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(given)) if given.isdecimal() and int(given) else share
