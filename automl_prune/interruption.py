"""Signals that ask a process to stop, kept until it can."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_deferred() -> Iterator[Callable[[], bool]]:
    """Keep Ctrl-C and SIGTERM until the block ends, then let them have their effect.

    The block asks whether one came, and should then save what it has and end soon. A second one has its effect at
    once. In another thread than the main one, where Python delivers no signals, nothing changes.

    Yields:
        A function that says whether the process was asked to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    before = {number: signal.signal(number, keep) for number in _SIGNALS}
    try:
        yield lambda: bool(received)
    finally:
        restore()
    if received:
        signal.raise_signal(received[0])
