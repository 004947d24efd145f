"""Which of the model's layers a kernel of ONNX Runtime computes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import onnx

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RENAMED = re.compile(r"^(?:fused )?(.+?)(?:_nchwc)?(?:_token_\d+)?$")
"""Fusing puts ``fused`` before a node's name; in the layout of blocked channels a convolution has its value's name."""


def layer_of_kernels(model: bytes, parameters: Mapping[str, str], kernels: list[str]) -> dict[str, str]:
    """The weight of the layer that every kernel computes; kernels that compute none are absent.

    ONNX Runtime names a kernel after its node or, when it has changed the layout, after the value it gives: that of
    the layer, or of an activation that was fused into it.

    Args:
        model: The file before it is optimised.
        parameters: Name of the model's parameter by initializer.
        kernels: Names in the optimised graph.
    """
    graph = onnx.load_from_string(model).graph
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    constants = {tensor.name for tensor in graph.initializer}
    layers: dict[str, str] = {}
    for node in graph.node:
        weight = next((parameters[name] for name in node.input if name in parameters), None)
        if weight is None or node.op_type not in _LAYERS:
            continue
        layers[node.name] = weight
        value: str | None = node.output[0]
        while value is not None:
            layers[value] = weight
            value = _after_activation(value, readers[value], constants)
    found = {}
    for kernel in kernels:
        match = _RENAMED.match(kernel)
        name = match[1] if match else kernel
        if name in layers:
            found[kernel] = layers[name]
    return found


def _after_activation(value: str, readers: list[onnx.NodeProto], constants: set[str]) -> str | None:
    """What the only reader of a value makes of it alone, as activations do; None for any other reader."""
    if len(readers) != 1:
        return None
    (node,) = readers
    others = [name for name in node.input if name and name != value and name not in constants]
    return None if others or node.op_type in _LAYERS else node.output[0]
