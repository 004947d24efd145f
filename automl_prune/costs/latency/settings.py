"""How latency is measured: by which runtime, on what, with how many threads, and how precisely."""

from __future__ import annotations

from dataclasses import dataclass

from automl_prune.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """How latency is measured.

    Attributes:
        runtime: Registered name of a ``Runtime``.
        provider: What the runtime computes with, by the runtime's own name for it; None is its first.
        threads: Threads of a call on the CPU. The processor time of a call with one thread is measured, which what else
            runs on the machine hardly lengthens; of more threads, and on accelerators, the wall time.
        batch_size: Samples per call.
        precision: Half-width of the ratio's interval, relative to the ratio, at which a measurement ends.
        time_limit: Seconds after which it ends anyway, once it has an interval.
    """

    runtime: str = "onnxruntime"
    provider: str | None = None
    threads: int = 1
    batch_size: int = 1
    precision: float = 0.02
    time_limit: float = 10.0

    def __post_init__(self) -> None:
        for name in ("threads", "batch_size", "precision", "time_limit"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"latency.{name} is {value}; it must be more than 0")
