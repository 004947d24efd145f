"""A pruned model's ONNX graph without exporting it: the dense model's graph, cut along the same axes.

Exporting takes seconds, and a search measures hundreds of candidates. The dense model and one probe (a candidate in
which every group keeps another share of its channels) are exported; where the two files differ, the difference must be
the length of some parameter's axis. What follows which axis is learnt so, and proved: cut as the probe, the dense
graph must be the probe's own, node by node and value by value. A model for which it is not is exported every time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice, product
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, prune
from automl_prune.export.onnx import translate
from automl_prune.seeding import generator

Axis = tuple[str, int]
"""A parameter or buffer, by name, and one of its dimensions."""


@dataclass(frozen=True, slots=True)
class _Size:
    """A number in the graph that is ``factor`` times the length of a parameter's axis.

    Attributes:
        axes: All that it may be; they agreed in the probe.
        factor: The same for all.
    """

    axes: tuple[Axis, ...]
    factor: Fraction

    def at(self, plan: Plan) -> int:
        """The number for a plan; ``_Unlike`` where the axes no longer agree."""
        lengths = {
            len(plan.slices.get(name, {}).get(axis, range(plan.graph.shapes[name][axis]))) for name, axis in self.axes
        }
        if len(lengths) > 1:
            raise _Unlike(f"a size may be that of {self.axes[0]} or of {self.axes[-1]}")
        return int(lengths.pop() * self.factor)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What of the graph follows the widths.

    Attributes:
        cuts: By initializer and dimension: the parameter's axis whose kept positions it keeps.
        entries: By initializer and position in it: the size that stands there.
        attributes: By node, attribute and position in it: the size that stands there.
    """

    cuts: Mapping[str, Mapping[int, Axis]]
    entries: Mapping[str, Mapping[int, _Size]]
    attributes: Mapping[tuple[int, int], Mapping[int, _Size]]


class _Unlike(Exception):  # noqa: N818  # never leaves this module
    """Why the graph cannot be cut."""


class Recutter:
    """Makes the ONNX graphs of a model's candidates, with its weights up to a millionth part.

    Args:
        model: The dense model; not changed.
        graph: Its channel graph.
        example_inputs: Positional inputs, the batch first.

    Raises:
        ExportError: The dense model cannot be exported.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, example_inputs: tuple[torch.Tensor, ...]) -> None:
        self._model = _distinct(model)
        self._example = tuple(tensor.detach().cpu() for tensor in example_inputs)
        self._graph = graph
        self._dense = translate(self._model, self._example)
        del self._dense.graph.value_info[:]
        self._arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._dense.graph.initializer}
        self._skeleton = copy.deepcopy(self._dense)
        del self._skeleton.graph.initializer[:]

    @property
    def unfaithful(self) -> str | None:
        """Why every candidate is exported anew; None when the dense graph can be cut."""
        return self._learnt if isinstance(self._learnt, str) else None

    @cached_property
    def _learnt(self) -> _Rules | str:
        try:
            return self._learn()
        except _Unlike as error:
            return str(error)

    @property
    def dense(self) -> bytes:
        """The dense model's file."""
        return bytes(self._dense.SerializeToString())

    @property
    def parameters(self) -> dict[str, str]:
        """The model's parameter behind every initializer that holds one, whole or stored the other way round."""
        known = self._graph.shapes
        cuts = self._learnt.cuts if isinstance(self._learnt, _Rules) else {}
        turned = {name: next(iter(axes.values()))[0] for name, axes in cuts.items()}
        return turned | {name: name for name in self._arrays if name in known}

    def at(self, widths: Mapping[str, int]) -> bytes:
        """The file of the model that keeps the first channels of every group; its speed is that of any others.

        Args:
            widths: Kept width by group name; groups that are not named keep everything.
        """
        return self.cut(self._graph.plan({name: range(width) for name, width in widths.items()}))

    def cut(self, plan: Plan) -> bytes:
        """The file of a pruned model that was not trained, as exporting it would give.

        Raises:
            ExportError: It had to be exported, and that failed.
        """
        if isinstance(self._learnt, str):
            return self.export(plan)
        try:
            return bytes(self._cut(plan, self._learnt).SerializeToString())
        except _Unlike:
            return self.export(plan)

    def export(self, plan: Plan) -> bytes:
        """The same by exporting the pruned model: what ``cut`` is checked against."""
        return bytes(self._export(plan).SerializeToString())

    def _export(self, plan: Plan) -> onnx.ModelProto:
        proto = translate(prune(self._model, plan), self._example)
        del proto.graph.value_info[:]
        return proto

    def _cut(self, plan: Plan, rules: _Rules) -> onnx.ModelProto:
        proto = copy.deepcopy(self._skeleton)
        for name, array in self._arrays.items():
            for dimension, (parameter, axis) in rules.cuts.get(name, {}).items():
                kept = plan.slices.get(parameter, {}).get(axis)
                array = array if kept is None else array.take(kept, axis=dimension)
            if name in rules.entries:
                array = array.copy()
                for position, size in rules.entries[name].items():
                    array.reshape(-1)[position] = size.at(plan)
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        for (number, place), entries in rules.attributes.items():
            attribute = proto.graph.node[number].attribute[place]
            for position, size in entries.items():
                if attribute.type == onnx.AttributeProto.INT:
                    attribute.i = size.at(plan)
                else:
                    attribute.ints[position] = size.at(plan)
        return proto

    def _learn(self) -> _Rules:
        plan = _probe(self._graph)
        probe = self._export(plan)
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in probe.graph.initializer}
        _same_structure(self._dense, probe)
        _same_names(self._arrays, arrays)
        axes = _Axes(self._graph, plan)
        cuts: dict[str, dict[int, Axis]] = {}
        entries: dict[str, dict[int, _Size]] = {}
        for name, (dense, small) in {name: (array, arrays[name]) for name, array in self._arrays.items()}.items():
            if dense.ndim != small.ndim:
                raise _Unlike(f"{name} has {dense.ndim} dimensions when dense and {small.ndim} when pruned")
            if dense.shape != small.shape:
                cuts[name] = axes.of_initializer(name, dense, small, _beside(self._dense, name))
            elif dense.dtype == np.int64 and not np.array_equal(dense, small):
                entries[name] = axes.of_entries(name, dense.reshape(-1), small.reshape(-1))
        rules = _Rules(cuts, entries, axes.of_attributes(self._dense, probe))
        _same_values(self._cut(plan, rules), probe)
        return rules


class _Axes:
    """The axes of a model's parameters with their lengths, dense and in the probe."""

    def __init__(self, graph: ChannelGraph, probe: Plan) -> None:
        self._lengths: dict[Axis, tuple[int, int]] = {}
        self._kept: dict[Axis, tuple[int, ...]] = {}
        for name, slices in probe.slices.items():
            for axis, kept in slices.items():
                self._lengths[name, axis] = (graph.shapes[name][axis], len(kept))
                self._kept[name, axis] = kept

    def of_initializer(
        self, name: str, dense: NDArray[Any], small: NDArray[Any], beside: Sequence[str]
    ) -> dict[int, Axis]:
        """The parameter's axis behind every dimension that differs: one that cuts the dense values to the probe's.

        A parameter's own axes are tried first, then those of parameters that enter the same node (a bias made by
        folding a norm into a convolution), then all of these lengths (a weight stored the other way round).
        """
        fits: list[list[tuple[int, Axis]]] = []
        for dimension, lengths in enumerate(zip(dense.shape, small.shape, strict=True)):
            if lengths[0] != lengths[1]:
                own = [(name, dimension), *((other, axis) for other in beside for axis in (0, 1)), *self._lengths]
                distinct = {self._kept[axis]: axis for axis in reversed(own) if self._lengths.get(axis) == lengths}
                fits.append([(dimension, axis) for axis in reversed(distinct.values())])
        for choice in islice(product(*fits), _TRIES):
            cut = dense
            for dimension, axis in choice:
                cut = cut.take(self._kept[axis], axis=dimension)
            if np.array_equal(cut, small, equal_nan=True):
                return dict(choice)
        raise _Unlike(f"{name} shrinks from {dense.shape} to {small.shape} along the axes of no parameter")

    def of_entries(self, name: str, dense: NDArray[Any], small: NDArray[Any]) -> dict[int, _Size]:
        """The sizes behind the differing entries of an integer constant."""
        return {
            position: self._size(f"entry {position} of {name}", int(dense[position]), int(small[position]), ())
            for position in np.flatnonzero(dense != small).tolist()
        }

    def of_attributes(self, dense: onnx.ModelProto, probe: onnx.ModelProto) -> dict[tuple[int, int], dict[int, _Size]]:
        """The sizes behind the differing attributes of nodes, of the node's own parameters if they can be."""
        found: dict[tuple[int, int], dict[int, _Size]] = {}
        for number, (mine, its) in enumerate(zip(dense.graph.node, probe.graph.node, strict=True)):
            for place, (a, b) in enumerate(zip(mine.attribute, its.attribute, strict=True)):
                if a != b:
                    label = f"{a.name} of {mine.op_type} {mine.name}"
                    pairs = enumerate(zip(_numbers(a, label), _numbers(b, label), strict=True))
                    found[number, place] = {i: self._size(label, x, y, mine.input) for i, (x, y) in pairs if x != y}
        return found

    def _size(self, label: str, dense: int, small: int, own: Sequence[str]) -> _Size:
        fits: dict[Fraction, list[Axis]] = {}
        for axis, (length, shorter) in self._lengths.items():
            if dense * shorter == small * length:
                fits.setdefault(Fraction(dense, length), []).append(axis)
        if not fits:
            raise _Unlike(f"{label} changes from {dense} to {small}, which is the length of no parameter's axis")
        factor = min(fits, key=lambda factor: (factor != 1, factor.denominator, factor))
        mine = [axis for axis in fits[factor] if axis[0] in own]
        return _Size(tuple(mine[:1] or fits[factor]), factor)


_TRIES = 1000
"""Combinations of axes tried for one constant."""


def _distinct(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode whose values differ by a millionth part.

    The exporter merges constants that are equal and drops biases that are zero, as fresh norms are; which ones
    would then depend on the widths.
    """
    model = copy.deepcopy(model).cpu().eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.numel():
                noise = torch.randn(tensor.shape, generator=generator("recut", name), dtype=tensor.dtype)
                tensor.add_(noise, alpha=1e-6 * (float(tensor.abs().max()) or 1.0))
    return model


def _probe(graph: ChannelGraph) -> Plan:
    """Arbitrary channels of every group, groups of equal width keeping different numbers as far as they can."""
    chance, met, kept = np.random.default_rng(0), dict[int, int](), {}
    for group in graph.groups:
        turn = met[group.width] = met.get(group.width, 0) + 1
        keep = group.width - 1 - (turn - 1) % max(1, group.width - 1) if group.width > 1 else 1
        kept[group.name] = sorted(chance.permutation(group.width)[:keep].tolist())
    return graph.plan(kept)


def _beside(proto: onnx.ModelProto, name: str) -> list[str]:
    """Other inputs of the nodes that an initializer enters."""
    return [other for node in proto.graph.node if name in node.input for other in node.input if other != name]


def _numbers(attribute: onnx.AttributeProto, label: str) -> list[int]:
    if attribute.type == onnx.AttributeProto.INT:
        return [attribute.i]
    if attribute.type == onnx.AttributeProto.INTS:
        return list(attribute.ints)
    raise _Unlike(f"{label} depends on the widths and is no whole number")


def _wiring(proto: onnx.ModelProto) -> Iterator[tuple[object, ...]]:
    for node in proto.graph.node:
        yield node.op_type, node.domain, list(node.input), list(node.output), [(a.name, a.type) for a in node.attribute]


def _same_structure(dense: onnx.ModelProto, probe: onnx.ModelProto) -> None:
    if list(_wiring(dense)) != list(_wiring(probe)) or dense.functions or probe.functions:
        raise _Unlike("the exporter writes other nodes for a pruned model than for the dense one")
    if dense.graph.output != probe.graph.output or dense.graph.input != probe.graph.input:
        raise _Unlike("inputs or outputs of the model change their shape with the widths")


def _same_names(dense: Mapping[str, object], probe: Mapping[str, object]) -> None:
    if dense.keys() != probe.keys():
        names = sorted(dense.keys() ^ probe.keys())
        raise _Unlike(f"constant {names[0]} is in the file of the pruned or the dense model only")


def _same_values(cut: onnx.ModelProto, probe: onnx.ModelProto) -> None:
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in cut.graph.initializer}
    for tensor in probe.graph.initializer:
        if not np.array_equal(arrays[tensor.name], numpy_helper.to_array(tensor), equal_nan=True):
            raise _Unlike(f"the values of {tensor.name} are not those of the dense model's kept positions")
    if list(cut.graph.node) != list(probe.graph.node):
        raise _Unlike("nodes of the pruned model have other attributes than the cut ones")
