"""Places where TensorFlow's converter names a wrong tensor, repaired in the file."""

from __future__ import annotations

import struct

import tflite

_TENSOR_INDEX = 6  # the offset of this field in the vtable of a TensorMap


def repaired(content: bytes) -> bytes:
    """A file of the converter with the right tensors in its signatures."""
    changed = bytearray(content)
    model = tflite.Model.GetRootAs(content, 0)
    for signature in map(model.SignatureDefs, range(model.SignatureDefsLength())):
        _repair_inputs(changed, signature, model.Subgraphs(signature.SubgraphIndex()))
    return bytes(changed)


def _repair_inputs(changed: bytearray, signature: tflite.SignatureDef, graph: tflite.SubGraph) -> None:
    """Where an input of integers is an output, too, it becomes two tensors of one name, and the signature names that of
    the output for both."""
    inputs = [graph.Inputs(place) for place in range(graph.InputsLength())]
    by_name = {graph.Tensors(index).Name(): index for index in inputs}
    for entry in map(signature.Inputs, range(signature.InputsLength())):
        true = by_name.get(graph.Tensors(entry.TensorIndex()).Name())
        if entry.TensorIndex() not in inputs and true is not None:
            struct.pack_into("<I", changed, entry._tab.Pos + entry._tab.Offset(_TENSOR_INDEX), true)
