"""What runs a model to time it: one protocol, its registry, and what is known of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from automl_prune.costs.latency.fingerprint import Fingerprint
from automl_prune.costs.latency.settings import LatencySettings
from automl_prune.errors import ConfigError
from automl_prune.registry import Registry

Model = bytes | nn.Module
"""A model in the form a runtime takes: a serialised ONNX file, or a module."""

Runner = Callable[[], float]
"""Runs a loaded model once, to the end, and returns the seconds that took."""


class Runtime(Protocol):
    """One way to run a model. Stateless; models it has loaded do not know of one another."""

    @property
    def form(self) -> Literal["onnx", "torch"]:
        """The form of ``Model`` it takes."""
        ...

    def fingerprint(self, settings: LatencySettings) -> Fingerprint:
        """What a measurement with these settings is made on.

        Raises:
            ConfigError: The provider is not there; the message lists those that are.
        """
        ...

    def load(self, model: Model, inputs: Sequence[torch.Tensor], settings: LatencySettings) -> Runner:
        """A model ready to run on the inputs, which are on the CPU.

        Raises:
            ExportError: The runtime cannot load it.
        """
        ...

    def pinned(self, settings: LatencySettings) -> AbstractContextManager[None]:
        """The process as measuring wants it (threads), as it was before when the block ends."""
        ...


@dataclass(frozen=True, slots=True)
class Clock:
    """What counts as time: its name, and seconds since some moment."""

    name: str
    now: Callable[[], float]


WALL = Clock("wall time", time.perf_counter)
THREAD = Clock("processor time", time.thread_time)


def thread_clock(settings: LatencySettings) -> Clock:
    """The clock for calls on the CPU: the calling thread's processor time when it computes alone, and wall time else.

    Of a call that waits for nothing both are the same on an idle machine; on a busy one, wall time counts the turns of
    other processes too.
    """
    fine = time.get_clock_info("thread_time").resolution <= 1e-6
    return THREAD if settings.threads == 1 and fine else WALL


runtimes: Registry[Runtime] = Registry("latency_runtimes")


def choose_provider(settings: LatencySettings, available: Sequence[str]) -> str:
    """The provider to use: the one asked for, which must be there, or the first.

    Raises:
        ConfigError: It is not available; the message lists what is.
    """
    if settings.provider is None:
        return available[0]
    if settings.provider not in available:
        raise ConfigError(
            f"latency.provider: {settings.runtime} has no {settings.provider!r} here; available: {', '.join(available)}"
        )
    return settings.provider
