"""Latency, measured: a model timed in turns with the dense one, what it ran on, and how sure the result is."""

from automl_prune.costs.latency.fingerprint import Fingerprint
from automl_prune.costs.latency.lock import exclusive
from automl_prune.costs.latency.measurement import OTHER, LatencyMeasurement, cost_of
from automl_prune.costs.latency.ort import profile_nodes
from automl_prune.costs.latency.runtime import Runtime, runtimes
from automl_prune.costs.latency.settings import LatencySettings
from automl_prune.costs.latency.timing import take_turns
from automl_prune.costs.latency.torch_runtime import TorchRuntime

__all__ = [
    "OTHER",
    "Fingerprint",
    "LatencyMeasurement",
    "LatencySettings",
    "Runtime",
    "TorchRuntime",
    "cost_of",
    "exclusive",
    "profile_nodes",
    "runtimes",
    "take_turns",
]
