"""Size of the ONNX file of any widths, from the dense model's file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from automl_prune.channels import ChannelGraph
from automl_prune.costs import WidthPolynomial
from automl_prune.costs.polynomial import Term
from automl_prune.export.bundle import onnx_metadata, onnx_samples
from automl_prune.export.onnx import constants, export_onnx
from automl_prune.tasks import Task

Shape = tuple[int, ...]


def file_size(model: nn.Module, graph: ChannelGraph, task: Task) -> WidthPolynomial:
    """Bytes of the ONNX file as a polynomial of the widths, never less than what an export gives.

    The dense model is exported. Every constant of the file follows the widths as the parameter does that it comes from:
    by name, as the bias that a norm leaves in its convolution, or by shape. The rest of the file, and a constant
    whose parameter is not found, count as in the dense file; numbers in it may take a few bytes less when they shrink.

    Args:
        model: The dense model; not changed.
        graph: Its channel graph.
        task: Gives samples, and texts that are stored in the file.

    Raises:
        ExportError: The model cannot be exported.
    """
    with tempfile.TemporaryDirectory(prefix="automl-prune-size-") as folder:
        path = Path(folder) / "dense.onnx"
        export_onnx(model, onnx_samples(task), path, metadata=onnx_metadata(task))
        whole, held = path.stat().st_size, constants(path)
    unnamed = [name for name in graph.shapes if name not in held]
    terms = [_term(name, shape, size, graph, unnamed) for name, (shape, size) in held.items()]
    rest = Term("graph", whole - sum(size for _, size in held.values()), ())
    return WidthPolynomial(tuple(graph.widths), (*terms, rest))


def _term(name: str, shape: Shape, size: int, graph: ChannelGraph, unnamed: list[str]) -> Term:
    source, axes = _source(name, shape, graph.shapes, unnamed)
    if source is None or not size:
        return Term(name, size, ())
    return Term(name, size // math.prod(shape), tuple(graph.axis_length(source, axis) for axis in axes))


def _source(
    name: str, shape: Shape, shapes: Mapping[str, Shape], unnamed: list[str]
) -> tuple[str | None, tuple[int, ...]]:
    """The parameter a constant comes from and which of its axes it has; each parameter without a name is given once."""
    if shapes.get(name) == shape:
        return name, tuple(range(len(shape)))
    weight = name.removesuffix("_bias")
    if weight != name and weight in shapes and len(shape) == 1 and shape[0] in shapes[weight]:
        return weight, (shapes[weight].index(shape[0]),)
    if len(shape) > 1:
        for other in unnamed:
            if sorted(shapes[other]) == sorted(shape):
                unnamed.remove(other)
                return other, tuple(range(len(shape)))
    return None, ()
