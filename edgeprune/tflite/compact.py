"""A .tflite without what TensorFlow Lite Micro does not read: names, metadata, signatures, ranges seen in calibration.

On a small model they are a tenth of the flash. Operators, tensors, their numbers and their order stay, so inputs and
outputs are found at the same places.
"""

from __future__ import annotations

from edgeprune.errors import VerificationError
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.graph import Tensor
from edgeprune.tflite.objects import drop_unused_buffers, packed, unpacked


def compact(content: bytes) -> bytes:
    """The file as it is flashed; the same content, if nothing can be left out.

    Raises:
        ModelError: damaged.
        VerificationError: a tensor or operator would not be the same.
    """
    before = parse(content)
    model = unpacked(content)
    model.description = model.metadata = model.metadataBuffer = model.signatureDefs = None
    for graph in model.subgraphs:
        graph.name = None
        for tensor in graph.tensors:
            tensor.name = None
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
    drop_unused_buffers(model)
    made = packed(model)
    if len(made) >= len(content):
        return content
    after = parse(made)
    for old, new in zip(before.subgraphs, after.subgraphs, strict=True):
        operators = [[(one.name, one.inputs, one.outputs) for one in graph.operators] for graph in (old, new)]
        tensors = [[_content(one) for one in graph.tensors] for graph in (old, new)]
        if operators[0] != operators[1] or tensors[0] != tensors[1]:
            raise VerificationError("The file without names and metadata does not hold what it held before.")
    return made


def _content(tensor: Tensor) -> tuple[object, ...]:
    quantization = tensor.quantization
    numbers = quantization and (tuple(quantization.scale), tuple(quantization.zero_point), quantization.axis)
    return tensor.shape, tensor.dtype, tensor.variable, numbers, bytes(tensor.stored)
