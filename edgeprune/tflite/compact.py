"""A .tflite without what TensorFlow Lite Micro does not read: names, metadata, signatures, ranges seen in calibration,
and the scales of biases that have one for each channel, which are those of the input times those of the weights.

On a small model they are a quarter of the flash. Operators, tensors, their numbers and their order stay, so inputs and
outputs are found at the same places.
"""

from __future__ import annotations

from edgeprune.errors import VerificationError
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.graph import Subgraph, Tensor
from edgeprune.tflite.objects import drop_unused_buffers, packed, unpacked

# Operator → the place of its bias among its inputs. Their kernels compute what a channel is multiplied by from the
# scales of input, weights and output; only one scale for all channels is compared with that of the bias.
_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


def compact(content: bytes) -> bytes:
    """The file as it is flashed; the same content, if nothing can be left out.

    Raises:
        ModelError: damaged.
        VerificationError: a tensor or operator would not be the same.
    """
    before = parse(content)
    model = unpacked(content)
    model.description = model.metadata = model.metadataBuffer = model.signatureDefs = None
    unread = [_unread_scales(graph) for graph in before.subgraphs]
    for number, graph in enumerate(model.subgraphs):
        graph.name = None
        for index, tensor in enumerate(graph.tensors):
            tensor.name = None
            if index in unread[number]:
                tensor.quantization = None
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
    drop_unused_buffers(model)
    made = packed(model)
    if len(made) >= len(content):
        return content
    after = parse(made)
    for old, new, left_out in zip(before.subgraphs, after.subgraphs, unread, strict=True):
        operators = [[(one.name, one.inputs, one.outputs) for one in graph.operators] for graph in (old, new)]
        tensors = [[_content(one, one.index in left_out) for one in graph.tensors] for graph in (old, new)]
        if operators[0] != operators[1] or tensors[0] != tensors[1]:
            raise VerificationError("The file without names and metadata does not hold what it held before.")
    return made


def _unread_scales(graph: Subgraph) -> set[int]:
    """Biases with a scale for each channel that are read as nothing else."""
    others, biases = set(graph.outputs), set[int]()
    for operator in graph.operators:
        for place, index in enumerate(operator.inputs):
            (biases if _BIAS.get(operator.name) == place else others).add(index)
    found = (graph.tensors[index] for index in biases - others - {-1})
    return {one.index for one in found if one.constant and one.quantization and len(one.quantization.scale) > 1}


def _content(tensor: Tensor, without_scales: bool) -> tuple[object, ...]:
    quantization = None if without_scales else tensor.quantization
    numbers = quantization and (tuple(quantization.scale), tuple(quantization.zero_point), quantization.axis)
    return tensor.shape, tensor.dtype, tensor.variable, numbers, bytes(tensor.stored)
