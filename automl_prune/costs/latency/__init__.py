"""Latency, measured: a model timed in turns with the dense one, what it ran on, and how sure the result is."""

from automl_prune.costs.latency.fingerprint import Fingerprint
from automl_prune.costs.latency.measurement import OTHER, LatencyMeasurement, Measure, Profile

__all__ = ["OTHER", "Fingerprint", "LatencyMeasurement", "Measure", "Profile"]
