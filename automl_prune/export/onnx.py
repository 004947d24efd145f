"""ONNX files: exported with a dynamic batch size, compared with torch before they get their name, scored.

The only module that imports ``onnx``; it and ``costs/latency`` alone run ONNX Runtime.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import shape_inference
from torch import nn
from torch.export import Dim
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from automl_prune.errors import ExportError
from automl_prune.files import atomic_path
from automl_prune.tasks.base import Score, Split, Task

BATCH_SIZES = (1, 5)
"""Batch sizes at which an exported model must agree with torch; both differ from the one it is traced with (2)."""

TOLERANCE = 1e-4
"""Largest accepted difference of an output, relative to the largest absolute value torch computes for it."""

_LARGEST = 2**31 - 2**24
"""Bytes; beyond 2 GiB the format wants the weights in a second file. The rest is left for the graph."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of an ONNX model: its name, shape (names for dynamic sizes) and NumPy type."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """What is known of a verified ONNX file.

    Attributes:
        inputs: In the order of the model's positional arguments.
        outputs: Flattened, in the order torch's pytree gives them.
        opset: Version of the standard operator set.
        macs: Multiply-accumulates per sample, counted on the file's graph.
        differences: Largest absolute difference from torch by batch size.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    macs: int
    differences: Mapping[int, float]


def export_onnx(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
) -> OnnxModel:
    """Export a model in evaluation mode and verify the file; it gets its name only if it computes the same.

    Args:
        model: Not changed.
        example_inputs: Positional inputs, the batch first, better real samples than noise; the file is compared with
            the model on them.
        path: Where to write; one file, weights inside.
        metadata: Texts stored in the file (ONNX Runtime: ``session.get_modelmeta().custom_metadata_map``).

    Raises:
        ExportError: The model cannot be exported, or the file computes something else; nothing is written.
    """
    model = copy.deepcopy(model).cpu().eval()
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if weights > _LARGEST:
        raise ExportError(f"the weights take {weights:,} bytes; one ONNX file holds at most {_LARGEST:,}")
    example = tuple(tensor.detach().cpu() for tensor in example_inputs)
    proto = translate(model, example)
    onnx.helper.set_model_props(proto, dict(metadata or {}))
    with atomic_path(path) as temporary:
        onnx.save(proto, temporary)
        differences = verify_onnx(temporary, model, example)
    return OnnxModel(
        inputs=tuple(_port(value) for value in proto.graph.input),
        outputs=tuple(_port(value) for value in proto.graph.output),
        opset=max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")),
        macs=_count_macs(proto),
        differences=differences,
    )


def verify_onnx(
    path: Path,
    model: nn.Module,
    samples: tuple[torch.Tensor, ...],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    tolerance: float = TOLERANCE,
) -> dict[int, float]:
    """Compare a file in ONNX Runtime with the model it was exported from, at several batch sizes.

    Args:
        path: An ONNX file.
        model: On the CPU, in evaluation mode; not changed.
        samples: The model's positional inputs, on the CPU; repeated where a batch is larger.
        batch_sizes: At which sizes to compare.
        tolerance: Relative to the largest absolute value of each of torch's outputs.

    Returns:
        The largest absolute difference by batch size.

    Raises:
        ExportError: The file is not valid ONNX, does not run at a size, or differs by more than the tolerance.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX file is not valid: {_first_lines(error)}") from error
    session = _Session(path, threads=1)
    differences = {}
    for size in batch_sizes:
        inputs = _resized(samples, size)
        try:
            with torch.no_grad():
                expected = [tensor.numpy() for tensor in tree_flatten(model(*inputs))[0]]
            actual = session.run([tensor.numpy() for tensor in inputs])
        except Exception as error:  # a user's model may raise anything, and so does ONNX Runtime
            raise ExportError(
                f"the model does not run with a batch of {size} ({_first_lines(error)}); look for a batch size "
                "written as a number in its forward"
            ) from error
        differences[size] = _difference(expected, actual, size, tolerance)
    return differences


def score_onnx(
    path: Path, task: Task, split: Split, *, structure: TreeSpec | None = None, threads: int | None = None
) -> Score:
    """The task's metric of an ONNX file, computed by ONNX Runtime on the CPU.

    Args:
        path: An ONNX file.
        task: Gives the batches and the metric.
        split: Which samples, all of them.
        structure: How the torch model nests its outputs; needed where it returns more than one tensor.
        threads: Of ONNX Runtime; as many as torch uses when None.
    """
    session = _Session(path, threads or torch.get_num_threads())

    def predictions() -> Iterator[tuple[Any, Any]]:
        for batch in task.batches(split):
            outputs = [torch.from_numpy(a) for a in session.run([t.numpy() for t in task.inputs(batch)])]
            yield (outputs[0] if structure is None else tree_unflatten(outputs, structure)), batch

    return task.score(predictions())


def constants(path: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and bytes of every constant that a file holds, by name."""
    held = onnx.load(path).graph.initializer
    return {tensor.name: (tuple(tensor.dims), len(tensor.raw_data)) for tensor in held}


class _Session:
    """ONNX Runtime on one file: arrays in, arrays out, by position."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only; it warns about every graph it optimises
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base class but this
            raise ExportError(f"ONNX Runtime cannot load the exported model: {_first_lines(error)}") from error
        self._names = [value.name for value in self._session.get_inputs()]

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return outputs


def translate(model: nn.Module, example: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    """A model as an ONNX graph with a dynamic batch size, not yet verified.

    Stack traces and source lines, which the exporter writes into every node, are left out.

    Args:
        model: On the CPU, in evaluation mode; not changed.
        example: Its positional inputs, on the CPU, the batch first.

    Raises:
        ExportError: The model cannot be exported.
    """
    inputs = _resized(example, 2)  # sizes 0 and 1 would be taken for constants
    with torch.no_grad():
        outputs = tree_flatten(model(*inputs))[0]
    if not outputs or not all(isinstance(output, torch.Tensor) for output in outputs):
        kinds = sorted({type(output).__name__ for output in outputs})
        raise ExportError(f"the model returns {kinds or 'nothing'}; ONNX needs tensors, nested in tuples or dicts")
    batch = Dim("batch")
    try:
        with _silent_log(), warnings.catch_warnings():
            # of its own interfaces, shared batch sizes, recurrent layers: nobody can act on it; the file is verified
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                input_names=_names("input", len(inputs)),
                output_names=_names("output", len(outputs)),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch.export raises many kinds
        raise ExportError(
            f"torch cannot export the model with a dynamic batch size: {_first_lines(error)}; look for Python "
            "branches on tensor values or sizes written as numbers in the model's forward"
        ) from error
    if program is None:
        raise ExportError("torch.onnx.export returned nothing; install a torch of the supported range")
    return _without_notes(program.model_proto)


@contextmanager
def _silent_log() -> Iterator[None]:
    """Without torch's log of what its exporter tried first; what fails is raised."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _without_notes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Drops what the exporter tells of itself: source lines, local paths, node histories."""
    graph = proto.graph
    for holder in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
    for function in proto.functions:
        for node in function.node:
            del node.metadata_props[:]
    del proto.metadata_props[:]
    return proto


def _names(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{number}" for number in range(count)]


def _resized(samples: tuple[torch.Tensor, ...], size: int) -> tuple[torch.Tensor, ...]:
    """Batches of exactly ``size``, repeating samples where there are fewer."""
    return tuple(tensor[torch.arange(size) % len(tensor)] for tensor in samples)


def _difference(expected: Sequence[NDArray[Any]], actual: Sequence[NDArray[Any]], size: int, tolerance: float) -> float:
    shapes, found = [a.shape for a in expected], [a.shape for a in actual]
    if shapes != found:
        raise ExportError(f"with a batch of {size}, ONNX Runtime gives shapes {found} and torch {shapes}")
    largest = 0.0
    for number, (torch_values, onnx_values) in enumerate(zip(expected, actual, strict=True)):
        if not torch_values.size:
            continue
        scale = float(np.abs(torch_values.astype(np.float64)).max())
        difference = float(np.abs(torch_values.astype(np.float64) - onnx_values.astype(np.float64)).max())
        if not math.isfinite(scale) or not difference <= tolerance * scale:  # written so that NaN fails
            raise ExportError(
                f"output {number} differs by {difference:.3g} between ONNX Runtime and torch with a batch of {size}; "
                f"accepted are {tolerance:g} of its largest value, {scale:.3g}"
            )
        largest = max(largest, difference)
    return largest


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
    return Port(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)


def _count_macs(proto: onnx.ModelProto) -> int:
    """Multiply-accumulates of convolutions and matrix products in the graph, for a batch of one.

    Independent of torch: from the file's own weight shapes and inferred output shapes.
    """
    graph = copy.deepcopy(proto)
    del graph.graph.value_info[:]
    for value in graph.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in graph.graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(graph, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = shapes[node.input[0]][-2 if transposed else -1]
            total += math.prod(shapes[node.output[0]]) * inner
    return total


def _first_lines(error: BaseException, characters: int = 300) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:characters]}{'...' if len(text) > characters else ''}"
