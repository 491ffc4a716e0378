"""A .tflite with other sizes: what a compiler makes of a file depends on its sizes, and hardly on its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.tflite.graph import Subgraph, Tensor
from edgeprune.tflite.objects import drop_unused_buffers, packed, unpacked


def resized(content: bytes, graph: Subgraph) -> bytes:
    """The file with the sizes of its tensors as in ``graph``; its weights mean nothing.

    Kernels of 8-bit integers become random ones, which no compiler can store in fewer bytes: the file takes no less
    room and time than one whose weights are trained. Other constants that become smaller keep what comes first.

    Args:
        content: a .tflite with one subgraph of integers.
        graph: of the same tensors and operators, none larger than in the file.
    """
    random = np.random.default_rng(0)
    model = unpacked(content)
    tensors = model.subgraphs[0].tensors
    for tensor, wanted in zip(tensors, graph.tensors, strict=True):
        if wanted.constant:
            buffer = type(model.buffers[0])()
            buffer.data = _stored(wanted, random)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        scales = tensor.quantization
        if scales is not None and scales.scale is not None and len(scales.scale) > 1:
            channels = wanted.shape[scales.quantizedDimension]
            scales.scale, scales.zeroPoint = scales.scale[:channels], scales.zeroPoint[:channels]
        tensor.shape, tensor.shapeSignature = list(wanted.shape), None
    for operator, described in zip(model.subgraphs[0].operators, graph.operators, strict=True):
        if described.name == "RESHAPE":
            _reshape_to(graph.tensors[described.outputs[0]].shape, operator, model)
    drop_unused_buffers(model)
    return packed(model)


def _stored(tensor: Tensor, random: np.random.Generator) -> np.ndarray:
    """The bytes of a constant, uint8 [bytes]."""
    if tensor.dtype == "int8" and len(tensor.shape) > 1:
        return random.integers(-127, 128, tensor.size).astype(np.int8).view(np.uint8)
    return np.frombuffer(tensor.stored[: tensor.nbytes], np.uint8)


def _reshape_to(shape: tuple[int, ...], operator: Any, model: Any) -> None:
    """Say the new shape in the two places where an operator may have it."""
    if operator.builtinOptions is not None:
        operator.builtinOptions.newShape = list(shape)
    if len(operator.inputs) > 1:
        constant = model.subgraphs[0].tensors[operator.inputs[1]]
        model.buffers[constant.buffer].data = np.array(shape, "<i4").view(np.uint8)
