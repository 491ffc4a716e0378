"""Scratch memory: what TensorFlow Lite's kernels allocate beside their inputs and outputs, per operator.

One rule per operator, read from its ``Prepare`` function in ``tensorflow/lite/kernels`` (now ``tflite/kernels`` of
LiteRT). The rules follow the generic optimized kernels on one thread, which is what ARM boards run. Buffers on the
heap (``kTfLiteDynamic``) are not part of the arena and are not listed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeprune.tflite.graph import Operator, Subgraph

_QUANTIZED = ("int8", "uint8", "int16")
_HYBRID_WEIGHTS = ("int8", "uint8", "int4")


@dataclass(frozen=True)
class Scratch:
    """Sizes in bytes of the buffers of an operator: those that live while it runs, and those that stay."""

    arena: tuple[int, ...] = ()
    persistent: tuple[int, ...] = ()


def scratch(graph: Subgraph, operator: Operator) -> Scratch:
    """Scratch buffers of an operator; none when there is no rule for it."""
    rule = SCRATCH_RULES.get(operator.name)
    return rule(graph, operator) if rule else Scratch()


def dynamic_outputs(graph: Subgraph, operator: Operator) -> tuple[int, ...]:
    """Indices of the outputs whose size is known only when the operator runs; they are allocated on the heap."""
    position = SHAPE_INPUTS.get(operator.name)
    if position is None:
        return operator.outputs if operator.name in DATA_DEPENDENT else ()
    shape = graph.input(operator, position)
    return () if shape is None or shape.constant else operator.outputs


# Operators whose output size depends on the values of their inputs.
DATA_DEPENDENT = {"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "RANGE", "SPARSE_TO_DENSE", "UNIQUE", "WHERE"}
# Operator → position of the input that gives the size of its output: dynamic unless that input is a constant.
SHAPE_INPUTS = {
    "ARG_MAX": 1,
    "ARG_MIN": 1,
    "BROADCAST_TO": 1,
    "EXPAND_DIMS": 1,
    "FILL": 0,
    "MEAN": 1,
    "ONE_HOT": 1,
    "PAD": 1,
    "PADV2": 1,
    "REDUCE_ALL": 1,
    "REDUCE_ANY": 1,
    "REDUCE_MAX": 1,
    "REDUCE_MIN": 1,
    "REDUCE_PROD": 1,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 1,
    "RESIZE_NEAREST_NEIGHBOR": 1,
    "SLICE": 1,
    "STRIDED_SLICE": 1,
    "SUM": 1,
    "TILE": 1,
    "TOPK_V2": 1,
    "TRANSPOSE": 1,
    "TRANSPOSE_CONV": 0,
}


def _batch_matmul(graph: Subgraph, operator: Operator) -> Scratch:
    """batch_matmul.cc: both operands transposed, and the right one kept if constant.

    With int8 weights and float input, the input is quantized at run time.
    """
    left, right, output = graph.input(operator, 0), graph.input(operator, 1), graph.output(operator)
    if left is None or right is None or output is None or not left.shape or not output.shape:
        return Scratch()
    arena = (left.nbytes,) if right.constant else (left.nbytes, right.nbytes)
    persistent = (right.nbytes,) if right.constant else ()
    if left.dtype != "float32" or right.dtype != "int8":
        return Scratch(arena, persistent)
    rows, units = left.size // max(left.shape[-1], 1), output.shape[-1]
    return Scratch((*arena, left.size, 4 * rows, 4 * units * rows, 4 * rows), (*persistent, 4 * units))


def _conv_2d(graph: Subgraph, operator: Operator) -> Scratch:
    """conv.cc: one row of unrolled input per output pixel (im2col), unless the kernel is 1x1 with stride 1."""
    data, weights, output = graph.input(operator, 0), graph.input(operator, 1), graph.output(operator)
    if data is None or weights is None or output is None or not len(data.shape) == len(weights.shape) == 4:
        return Scratch()
    options = operator.options
    hybrid = data.dtype == "float32" and weights.dtype in _HYBRID_WEIGHTS
    strides = {options.get(f"stride_{axis}", 1) for axis in ("w", "h")}
    dilations = {options.get(f"dilation_{axis}_factor", 1) for axis in ("w", "h")}
    batch, height, width, channels = output.shape if len(output.shape) == 4 else (1, 1, 1, 1)
    buffers = []
    if strides != {1} or dilations != {1} or weights.shape[1:3] != (1, 1):
        itemsize = 1 if hybrid else data.nbytes // max(data.size, 1)
        buffers.append(batch * height * width * math.prod(weights.shape[1:]) * itemsize)
    if not hybrid:
        return Scratch(tuple(buffers))
    groups = data.shape[3] // max(weights.shape[3], 1)
    rows = math.prod(data.shape[:3]) * groups
    buffers += [data.size, 4 * rows, 4 * channels * batch * height * width]
    if weights.quantization and len(set(weights.quantization.scale)) > 1:
        return Scratch((*buffers, 4 * rows), persistent=(4 * channels,))
    return Scratch(tuple(buffers))


def _depthwise_conv_2d(graph: Subgraph, operator: Operator) -> Scratch:
    """depthwise_conv.cc: with int8 weights and float input, the input is quantized at run time."""
    data, weights = graph.input(operator, 0), graph.input(operator, 1)
    if data is None or weights is None or data.dtype != "float32" or weights.dtype != "int8":
        return Scratch()
    batch = data.shape[0] if data.shape else 1
    return Scratch((data.size, 4 * batch, 4 * batch))


def _fully_connected(graph: Subgraph, operator: Operator) -> Scratch:
    """fully_connected.cc: with quantized weights and float input, the input is quantized at run time."""
    data, weights = graph.input(operator, 0), graph.input(operator, 1)
    if data is None or weights is None or data.dtype != "float32" or weights.dtype not in _HYBRID_WEIGHTS:
        return Scratch()
    if not weights.shape:
        return Scratch()
    units, depth = weights.shape[0], max(weights.shape[-1], 1)
    batch = data.size // depth
    return Scratch((data.size, 4 * batch, 4 * units * batch, 4 * batch), persistent=(4 * units,))


def _reduce(graph: Subgraph, operator: Operator) -> Scratch:
    """reduce.cc: the index of the current element, the axes, and for MEAN, SUM and REDUCE_PROD the accumulators."""
    data, axes, output = graph.input(operator, 0), graph.input(operator, 1), graph.output(operator)
    if data is None or axes is None or output is None:
        return Scratch()
    buffers = [4 * len(data.shape), 4 * axes.size]
    if operator.name in ("MEAN", "SUM", "REDUCE_PROD"):
        itemsize = 8 if data.dtype in ("int32", "int64") else 4
        buffers.append(itemsize * output.size)
    return Scratch(tuple(buffers))


def _transpose_conv(graph: Subgraph, operator: Operator) -> Scratch:
    """transpose_conv.cc: the large buffers are on the heap; the arena holds those for int8 weights and float input."""
    weights, data = graph.input(operator, 1), graph.input(operator, 2)
    if data is None or weights is None or data.dtype != "float32" or weights.dtype != "int8":
        return Scratch()
    rows = data.size // max(data.shape[-1] if data.shape else 1, 1)
    return Scratch((data.size, 4 * rows, 4 * rows))


def _lstm(graph: Subgraph, operator: Operator) -> Scratch:
    """unidirectional_sequence_lstm.cc: the gates of one step, in float or full-integer layers."""
    data, input_kernel, cell_kernel = (graph.input(operator, position) for position in (0, 1, 3))
    if data is None or cell_kernel is None or len(data.shape) != 3 or not cell_kernel.shape:
        return Scratch()
    batch = data.shape[1] if operator.options.get("time_major") else data.shape[0]
    cells = batch * cell_kernel.shape[0]
    if data.dtype == "int8":
        return Scratch((2 * cells,) * 4 + (cells, 4 * cells))
    gates = 3 if input_kernel is None else 4  # without weights, the input gate is coupled to the forget gate
    buffer = 4 * (cells * (gates + 1) + 16 * batch)
    return Scratch((buffer,)) if cell_kernel.dtype == "float32" else Scratch()


SCRATCH_RULES: dict[str, Callable[[Subgraph, Operator], Scratch]] = {
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "MEAN": _reduce,
    "REDUCE_MAX": _reduce,
    "REDUCE_MIN": _reduce,
    "REDUCE_PROD": _reduce,
    "SUM": _reduce,
    "TRANSPOSE_CONV": _transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
