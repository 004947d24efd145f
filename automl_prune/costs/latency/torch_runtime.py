"""PyTorch itself: eager, or compiled by ``torch.compile``; on the CPU, or on CUDA timed by events."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from automl_prune.costs.latency.fingerprint import Fingerprint
from automl_prune.costs.latency.runtime import WALL, Model, Runner, choose_provider, runtimes, thread_clock
from automl_prune.costs.latency.settings import LatencySettings
from automl_prune.errors import ExportError
from automl_prune.machine import cores, processor


class TorchRuntime:
    """PyTorch in inference mode; its providers are ``cpu`` and ``cuda``.

    Args:
        compiled: Whether ``torch.compile`` compiles every model, for its own shapes.
    """

    form: Literal["onnx", "torch"] = "torch"

    def __init__(self, *, compiled: bool) -> None:
        self._compiled = compiled

    def fingerprint(self, settings: LatencySettings) -> Fingerprint:
        """See ``Runtime.fingerprint``."""
        provider = _provider(settings)
        device = processor() if provider == "cpu" else torch.cuda.get_device_name()
        runtime = f"{'torch.compile' if self._compiled else 'torch'} {torch.__version__}"
        clock = thread_clock(settings) if provider == "cpu" else WALL
        return Fingerprint(runtime, provider, device, cores(), settings.threads, settings.batch_size, clock.name)

    def load(self, model: Model, inputs: Sequence[torch.Tensor], settings: LatencySettings) -> Runner:
        """See ``Runtime.load``."""
        assert isinstance(model, nn.Module)
        device = torch.device(_provider(settings))
        module = copy.deepcopy(model).to(device).eval()
        placed = tuple(tensor.to(device) for tensor in inputs)
        forward = torch.compile(module, dynamic=False) if self._compiled else module
        timed = _on_cuda if device.type == "cuda" else _on_cpu
        run = timed(forward, placed, settings)
        if self._compiled:
            try:
                run()
            except Exception as error:  # the compiler's back ends raise many kinds
                raise ExportError(f"torch.compile cannot compile the model to time it: {error}") from error
        return run

    @contextmanager
    def pinned(self, settings: LatencySettings) -> Iterator[None]:
        """So many threads; what was compiled for earlier models is dropped, for torch keeps only a few per function."""
        before = torch.get_num_threads()
        if self._compiled:
            torch.compiler.reset()
        torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


runtimes.register("torch")(TorchRuntime(compiled=False))
runtimes.register("torch.compile")(TorchRuntime(compiled=True))


def _provider(settings: LatencySettings) -> str:
    return choose_provider(settings, ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])


def _on_cpu(model: Callable[..., Any], inputs: tuple[torch.Tensor, ...], settings: LatencySettings) -> Runner:
    now = thread_clock(settings).now

    def run() -> float:
        with torch.inference_mode():
            start = now()
            model(*inputs)
            return now() - start

    return run


def _on_cuda(model: Callable[..., Any], inputs: tuple[torch.Tensor, ...], settings: LatencySettings) -> Runner:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def run() -> float:
        with torch.inference_mode():
            torch.cuda.synchronize()
            start.record()
            model(*inputs)
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / 1000

    return run
