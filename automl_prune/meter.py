"""Latency of a model's candidates: cut, timed beside the dense model, and looked into layer by layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from statistics import median

import torch
from torch import nn

from automl_prune.channels import ChannelGraph, prune
from automl_prune.costs import Cost
from automl_prune.costs.latency import (
    OTHER,
    LatencyMeasurement,
    LatencySettings,
    cost_of,
    exclusive,
    profile_nodes,
    runtimes,
    take_turns,
)
from automl_prune.costs.latency.runtime import Model
from automl_prune.errors import ConfigError
from automl_prune.export.kernels import layer_of_kernels
from automl_prune.export.recut import Recutter

Widths = Mapping[str, int]


class LatencyMeter:
    """Measures the candidates of one dense model; what was measured once is remembered.

    Only widths matter to speed, so a candidate is measured with the first channels of every group and the dense
    model's weights. The dense model is exported when something is measured for the first time.

    Args:
        model: The dense model; not changed.
        graph: Its proved channel graph.
        example_inputs: Positional inputs, the batch first.
        settings: How to measure.
        reference: Seconds per call of the dense model, when a study has measured it before.

    Raises:
        ConfigError: The runtime or its provider is unknown or not there.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        example_inputs: tuple[torch.Tensor, ...],
        settings: LatencySettings,
        reference: float | None = None,
    ) -> None:
        self.settings, self.graph = settings, graph
        self._model = model
        self._runtime = runtimes[settings.runtime]
        self.fingerprint = self._runtime.fingerprint(settings)
        self._example = tuple(tensor.detach().cpu() for tensor in example_inputs)
        samples = torch.arange(settings.batch_size) % len(self._example[0])
        self._inputs = tuple(tensor[samples].contiguous() for tensor in self._example)
        self._given = reference
        self._measured: dict[tuple[int, ...], LatencyMeasurement] = {}

    @property
    def tells_layers(self) -> bool:
        """Whether ``profile`` works: the runtime runs ONNX files, which ONNX Runtime's profiler reads."""
        return self._runtime.form == "onnx"

    @property
    def exported(self) -> str | None:
        """Why every candidate is exported anew, which takes seconds each; None when they are cut from one graph."""
        return self._recutter.unfaithful if self._runtime.form == "onnx" else None

    @cached_property
    def reference(self) -> float:
        """Seconds per call of the dense model: the median over the rounds of each one's fastest call."""
        return self._given if self._given is not None else self._dense.reference

    def quick(self) -> LatencyMeter:
        """A meter of the same model, graph and dense measurement that is content with less: for what a fit averages."""
        found = copy.copy(self._ready())
        settings = self.settings
        found.settings = replace(
            settings, precision=max(settings.precision, 0.05), time_limit=min(settings.time_limit, 1.0)
        )
        found._measured = {}
        return found

    def _ready(self) -> LatencyMeter:
        """This meter, with what is made once for both it and its copies."""
        _ = self.reference, self._dense_model, self._dense
        return self

    def dense(self) -> LatencyMeasurement:
        """The dense model beside itself: its seconds, and how far from 1 the ratio of equal models comes to lie."""
        return replace(self._dense, reference=self.reference)

    def measure(self, widths: Widths) -> LatencyMeasurement:
        """Measure the model of some group widths; groups that are not named keep all their channels.

        Raises:
            PlanError: An unknown group, or a width it cannot have.
            ExportError: The model cannot be exported or loaded.
        """
        complete = self._complete(widths)
        key = tuple(complete.values())
        if key not in self._measured:
            dense = complete == self.graph.widths
            self._measured[key] = self.dense() if dense else self.measure_model(self._form(complete))
        return self._measured[key]

    def measure_model(self, model: Model) -> LatencyMeasurement:
        """Measure a given model of the same inputs, such as an exported file.

        Args:
            model: In the form the runtime takes; see ``Runtime.form``.
        """
        return replace(self._take_turns(model), reference=self.reference)

    def measure_export(self, file: bytes, model: nn.Module) -> LatencyMeasurement:
        """Measure an exported model itself.

        Args:
            file: Its ONNX file, for a runtime that runs those.
            model: The same as a module, for PyTorch.
        """
        return self.measure_model(file if self.tells_layers else copy.deepcopy(model).cpu().eval())

    def cost(self, widths: Widths) -> Cost:
        """The latency in seconds as a cost beside the dense model's, with its interval."""
        return cost_of(self.measure(widths).summary())

    def profile(self, widths: Widths) -> Mapping[str, float]:
        """Seconds per layer within the whole model, by the name of the layer's weight, and of all others together.

        Activations are counted with the layer the runtime fuses them into.

        Raises:
            ConfigError: The runtime is not ONNX Runtime, which alone tells.
            PlanError: An unknown group, or a width it cannot have.
        """
        if not self.tells_layers:
            raise ConfigError(
                f"latency.runtime {self.settings.runtime!r} does not tell the time of single layers; 'onnxruntime' does"
            )
        model = self._recutter.at(self._complete(widths))
        with exclusive(self.fingerprint):
            kernels = profile_nodes(model, self._inputs, self.settings)
        layers = layer_of_kernels(model, self._recutter.parameters, list(kernels))
        seconds = dict.fromkeys([*layers.values(), OTHER], 0.0)
        for kernel, taken in kernels.items():
            seconds[layers.get(kernel, OTHER)] += taken
        return seconds

    @cached_property
    def _recutter(self) -> Recutter:
        return Recutter(self._model, self.graph, self._example)

    @cached_property
    def _dense_model(self) -> Model:
        return self._recutter.dense if self._runtime.form == "onnx" else copy.deepcopy(self._model).cpu().eval()

    @cached_property
    def _dense(self) -> LatencyMeasurement:
        found = self._take_turns(self._dense_model)
        return replace(found, reference=median(min(calls) for calls in found.dense_samples))

    def _take_turns(self, model: Model) -> LatencyMeasurement:
        """A measurement whose reference is not set yet."""
        runtime, inputs, settings, dense = self._runtime, self._inputs, self.settings, self._dense_model
        with exclusive(self.fingerprint), runtime.pinned(settings):
            samples, dense_samples = take_turns(
                lambda: runtime.load(model, inputs, settings), lambda: runtime.load(dense, inputs, settings), settings
            )
        return LatencyMeasurement(samples, dense_samples, math.nan, self.fingerprint)

    def _form(self, widths: Widths) -> Model:
        """The model of some widths as the runtime takes it."""
        if self._runtime.form == "onnx":
            return self._recutter.at(widths)
        assert isinstance(self._dense_model, nn.Module)
        return prune(self._dense_model, self.graph.plan({name: range(width) for name, width in widths.items()}))

    def _complete(self, widths: Widths) -> dict[str, int]:
        return self.graph.plan({name: range(width) for name, width in widths.items()}).widths


def check_available(settings: LatencySettings) -> None:
    """Raise ``ConfigError`` where the runtime or its provider is not there, before anything takes long."""
    runtimes[settings.runtime].fingerprint(settings)
