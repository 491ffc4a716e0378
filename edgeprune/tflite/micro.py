"""What TensorFlow Lite Micro makes of a file, from the file alone: its operators, its axes, the memory that it plans.

``micro_operators.csv`` has the operators that it knows, and the method of ``MicroMutableOpResolver`` that registers
each. tflite-micro 0.dev20261023182759 was asked for every built-in operator, with a file of that one operator; the
names of the methods are those of ``tensorflow/lite/micro/micro_mutable_op_resolver.h``.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import math
from collections.abc import Iterator, Mapping

from edgeprune.tflite.graph import Operator, Subgraph, Tensor, TFLiteModel

# Of tensors in the arena (MicroArenaBufferAlignment).
ALIGNMENT_BYTES = 16
# Operator → the axis of its weights, input 1, whose indices have scales of their own. The kernels take no other, and
# most of them do not look which one the file names. Vectors, such as biases in input 2, have one axis.
_CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
# Operators that keep an int32 for each int8 of their output while they run.
_SUMMING = ("TRANSPOSE_CONV",)
_DEPTHWISE_BLOCK = 124  # CH_IN_BLOCK_MVE
# Bytes that stay for all inferences on a machine with pointers of 8 bytes, fitted by hand to ten files: of the
# interpreter, of each operator and tensor, and of each channel of a convolution.
_INTERPRETER_BYTES, _OPERATOR_BYTES, _TENSOR_BYTES, _CHANNEL_BYTES = 700, 160, 24, 8


def resolver_methods(model: TFLiteModel) -> tuple[str, ...]:
    """The methods of ``MicroMutableOpResolver`` that register the operators of a file, sorted: ``AddConv2D``, …

    Raises:
        KeyError: an operator without one, see :func:`unregistered`.
    """
    return tuple(sorted({_table()[name] for name in _names(model)}))


def unregistered(model: TFLiteModel) -> tuple[str, ...]:
    """Names of the operators in a file that TensorFlow Lite Micro does not have."""
    return tuple(name for name in _names(model) if name not in _table())


def wrong_axes(graph: Subgraph) -> Iterator[tuple[Tensor, int]]:
    """Weights and biases with scales along an axis that is not that of the output channels, and that axis."""
    for operator in graph.operators:
        if operator.name not in _CHANNEL_AXES:
            continue
        for place, axis in ((1, _CHANNEL_AXES[operator.name]), (2, 0)):
            tensor = graph.input(operator, place) if place < len(operator.inputs) else None
            quantization = tensor.quantization if tensor else None
            if tensor and quantization and len(quantization.scale) > 1 and quantization.axis != axis:
                yield tensor, axis


def estimated_arena(graph: Subgraph) -> tuple[int, int]:
    """Bytes of activations and of what stays for all inferences, where the interpreter cannot be asked.

    Activations are placed greedily by size, of equals the last one first, each into the first gap that holds it, as
    ``GreedyMemoryPlanner`` does. Scratch memory of optimized kernels is not known, and what stays is a rule of thumb.
    """
    placed: list[tuple[int, int, int, int]] = []  # offset, bytes, first and last operator
    for nbytes, first, last in sorted(_lifetimes(graph), key=lambda block: -block[0]):
        offset = 0
        for begin, size, other_first, other_last in sorted(placed):
            if other_first > last or other_last < first:
                continue
            if offset + nbytes <= begin:
                break
            offset = max(offset, begin + size)
        placed.append((offset, nbytes, first, last))
    persistent = _INTERPRETER_BYTES + _OPERATOR_BYTES * len(graph.operators) + _TENSOR_BYTES * len(graph.tensors)
    for operator in graph.operators:
        weights = graph.input(operator, 1) if operator.name in _CHANNEL_AXES else None
        if weights is not None and operator.name != "FULLY_CONNECTED":
            persistent += _CHANNEL_BYTES * weights.shape[_CHANNEL_AXES[operator.name]]
    return max((offset + nbytes for offset, nbytes, *_ in placed), default=0), persistent


def kernel_scratch(graph: Subgraph) -> int:
    """Bytes that optimized int8 kernels may want beside what the interpreter's portable ones do: an upper bound.

    The largest of all operators, by CMSIS-NN's ``arm_*_get_buffer_size`` for processors with DSP or MVE instructions
    (ARM-software/CMSIS-NN@098d54a6). ESP-NN is taken to want no more.
    """
    return max((_aligned(_scratch(graph, operator)) for operator in graph.operators), default=0)


def _scratch(graph: Subgraph, operator: Operator) -> int:
    weights = graph.input(operator, 1) if operator.name in _CHANNEL_AXES else None
    if weights is None or weights.dtype != "int8":
        return 0
    if operator.name == "FULLY_CONNECTED":  # a sum for each output
        return 4 * weights.shape[0]
    if operator.name == "DEPTHWISE_CONV_2D":  # a window in int16, or four windows of a block of channels
        window = math.prod(weights.shape[1:3])
        return max(2 * window * weights.shape[3], 4 * _DEPTHWISE_BLOCK * window)
    return 4 * _aligned(math.prod(weights.shape[1:]))  # two windows in int16, or four in int8


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _lifetimes(graph: Subgraph) -> list[tuple[int, int, int]]:
    """Of sums, and of each tensor in the arena, the last one first: aligned bytes, first and last operator."""
    first = {index: 0 for index in graph.inputs if index >= 0}
    last: dict[int, int] = dict(first)
    for operator in graph.operators:
        for index in operator.outputs:
            first.setdefault(index, operator.index)
            last.setdefault(index, operator.index)
        last |= {index: operator.index for index in operator.inputs if index in first}
    last |= {index: len(graph.operators) for index in graph.outputs if index in first}
    sums = [
        (_aligned(4 * output.size), operator.index, operator.index)
        for operator in graph.operators
        if operator.name in _SUMMING and (output := graph.output(operator)) is not None and output.dtype == "int8"
    ]
    return sums + [
        (_aligned(graph.tensors[index].nbytes), first[index], last[index])
        for index in sorted(first, reverse=True)
        if index >= 0 and not graph.tensors[index].variable
    ]


def _names(model: TFLiteModel) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, *_ in model.operator_codes))


@functools.cache
def _table() -> Mapping[str, str]:
    text = importlib.resources.files("edgeprune.tflite").joinpath("micro_operators.csv").read_text("utf-8")
    return {row["operator"]: row["method"] for row in csv.DictReader(text.splitlines())}
