"""What a latency was measured on. Two latencies can be compared when their fingerprints are equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that decides how fast a model runs, the model apart.

    Attributes:
        runtime: Name and version, e.g. ``"onnxruntime 1.32.0"``.
        provider: What the runtime computes with, e.g. ``"CPUExecutionProvider"``.
        device: Name of the processor or accelerator.
        cores: Processors this machine shows.
        threads: Threads a call may use; 1 on an accelerator.
        batch_size: Samples per call.
        clock: What is counted: ``"processor time"`` of the calling thread, or ``"wall time"``.
    """

    runtime: str
    provider: str
    device: str
    cores: int
    threads: int
    batch_size: int
    clock: str

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify it."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """In words, the batch size apart."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''} of {self.cores} cores"
        return f"{self.runtime}, {self.provider}, {self.device}, {threads}, {self.clock}"

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """One text per attribute that differs, ``"threads: 1, not 2"``: this one's value, then the other's."""
        mine, its = asdict(self), asdict(other)
        return tuple(f"{name}: {mine[name]}, not {its[name]}" for name in mine if mine[name] != its[name])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; ``from_json`` inverts it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fingerprint:
        """Rebuild a fingerprint; missing or unknown entries raise ``ValueError``."""
        try:
            return cls(**value)
        except TypeError as error:
            raise ValueError(f"not a latency fingerprint: {error} in {value!r}") from error
