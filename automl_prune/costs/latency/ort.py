"""ONNX Runtime: whole models timed, and every kernel of one model by its own profiler."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Literal

import onnxruntime
import torch

from automl_prune.costs.latency.fingerprint import Fingerprint
from automl_prune.costs.latency.runtime import WALL, Model, Runner, choose_provider, runtimes, thread_clock
from automl_prune.costs.latency.settings import LatencySettings
from automl_prune.errors import ExportError
from automl_prune.machine import cores, processor

CPU = "CPUExecutionProvider"

_ON_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
"""Providers that compute on torch's CUDA device 0; inputs and outputs stay there while a model is timed."""

_WARM_UP = 5


class OnnxRuntime:
    """ONNX Runtime with any of its execution providers; what a provider cannot run, it runs on the CPU."""

    form: Literal["onnx", "torch"] = "onnx"

    def fingerprint(self, settings: LatencySettings) -> Fingerprint:
        """See ``Runtime.fingerprint``."""
        provider = _provider(settings)
        device = torch.cuda.get_device_name(0) if provider in _ON_CUDA else processor()
        version = f"onnxruntime {onnxruntime.__version__}"
        clock = thread_clock(settings) if provider == CPU else WALL
        return Fingerprint(version, provider, device, cores(), settings.threads, settings.batch_size, clock.name)

    def load(self, model: Model, inputs: Sequence[torch.Tensor], settings: LatencySettings) -> Runner:
        """See ``Runtime.load``."""
        session = _session(model, settings, _options(settings))
        if _provider(settings) in _ON_CUDA:
            return _on_device(session, inputs)
        feeds, now = _feeds(session, inputs), thread_clock(settings).now

        def run() -> float:
            start = now()
            session.run(None, feeds)
            return now() - start

        return run

    @contextmanager
    def pinned(self, settings: LatencySettings) -> Iterator[None]:
        """Nothing: every session has threads of its own."""
        yield


runtimes.register("onnxruntime")(OnnxRuntime())


def profile_nodes(
    model: bytes, inputs: Sequence[torch.Tensor], settings: LatencySettings, *, runs: int = 30
) -> dict[str, float]:
    """Seconds that every kernel of an ONNX model takes per call, as ONNX Runtime's profiler sees them.

    Args:
        model: A serialised ONNX file.
        inputs: On the CPU.
        settings: Provider and threads.
        runs: Calls after warming up; the median over them counts.

    Returns:
        By the name of the node in the optimised graph, in the order they run.
    """
    with tempfile.TemporaryDirectory(prefix="automl-prune-profile-") as folder:
        options = _options(settings)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "nodes")
        session = _session(model, settings, options)
        feeds = _feeds(session, inputs)
        for _ in range(_WARM_UP + runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    seconds: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seconds[event["name"].removesuffix("_kernel_time")].append(event["dur"] * 1e-6)
    return {name: median(samples[-runs:]) for name, samples in seconds.items()}


def _provider(settings: LatencySettings) -> str:
    found = onnxruntime.get_available_providers()
    return choose_provider(settings, [CPU, *(name for name in found if name not in (CPU, "AzureExecutionProvider"))])


def _options(settings: LatencySettings) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # threads that wait busily for their session's next call would take processors from the other model's turn
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors only; it warns about every graph it optimises
    return options


def _session(model: Model, settings: LatencySettings, options: Any) -> Any:
    provider = _provider(settings)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # its exceptions have no common base class but this
        raise ExportError(f"ONNX Runtime cannot load the model to time it: {error}") from error
    if session.get_providers()[0] != provider:  # it only warns when a provider cannot start
        raise ExportError(
            f"ONNX Runtime could not start {provider} and would run on {session.get_providers()[0]} instead; "
            "check the provider's libraries, or choose another latency.provider"
        )
    return session


def _feeds(session: Any, inputs: Sequence[torch.Tensor]) -> dict[str, Any]:
    names = [value.name for value in session.get_inputs()]
    return {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}


def _on_device(session: Any, inputs: Sequence[torch.Tensor]) -> Runner:
    """Calls without copies between host and device, ended by a synchronisation."""
    binding = session.io_binding()
    for name, array in _feeds(session, inputs).items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", 0)

    def run() -> float:
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return time.perf_counter() - start

    return run
