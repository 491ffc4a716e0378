"""Write a .tflite whose weights are encoded for TensorFlow Lite Micro, where that makes the file smaller.

A weight tensor that is encoded becomes the output of an operator TFLM_DECODE (:mod:`edgeprune.tflite.decode` has the
layout), right before the operator that uses it: one for each, which decodes all of its weights. So decoded weights take
memory only as long as that operator runs. Outputs are those of the plain file, to the bit.
"""

from __future__ import annotations

import collections
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import ModelError, VerificationError
from edgeprune.files import write_bytes
from edgeprune.tflite import decode
from edgeprune.tflite.decode import OPERATOR, Code, Encoded
from edgeprune.tflite.flatbuffer import parse, read_bytes
from edgeprune.tflite.graph import TFLiteModel
from edgeprune.tflite.objects import drop_unused_buffers, packed, schema, unpacked
from edgeprune.tflite.size import KERNEL_INPUTS

# Operators of TensorFlow Lite Micro that take weights which another operator has written.
_TAKING = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# Subgraph and tensor.
_Place = tuple[int, int]


@dataclass(frozen=True)
class EncodedTensor:
    """A weight tensor of the file.

    Attributes:
        name: in the plain file.
        code: None for one that is stored plain, since no code makes the file smaller.
        plain_bytes: of its values, one byte each.
        bytes: as stored, with ancillary data and padding; without the operator that decodes it.
    """

    name: str
    code: Code | None
    plain_bytes: int
    bytes: int


@dataclass(frozen=True)
class Encoding:
    """A file with encoded weights.

    Attributes:
        content: of the file; that of the plain file, if no code makes it smaller.
        plain_bytes: size of the plain file.
        tensors: the int8 weights of operators that can take encoded ones.
    """

    content: bytes
    plain_bytes: int
    tensors: tuple[EncodedTensor, ...]

    @property
    def bytes(self) -> int:
        """Size of the file, operators and all ancillary data included."""
        return len(self.content)


def encode(file: str | Path, out: str | Path | None = None) -> Encoding:
    """Encode the int8 weights of a .tflite for TensorFlow Lite Micro, each in the code that takes the fewest bytes.

    Only TensorFlow Lite Micro runs the result, with ``AddDecode`` among its operators. Weights that other runtimes need
    plain are in ``file``, which is not changed.

    Args:
        file: with int8 weights.
        out: where the result is written; None for nowhere.

    Returns:
        The encoded file, with the code and the bytes of each weight tensor.

    Raises:
        ModelError: unreadable, damaged, or without int8 weights.
        OutputError: ``out`` cannot be written.
    """
    encoding = encoded(read_bytes(file), str(file))
    if not encoding.tensors:
        raise ModelError(
            f"{file} has no weights that can be encoded.",
            expected=f"int8 weights of {', '.join(_TAKING)} that each belong to one tensor.",
            fix="build an int8 file: `edgeprune build --recipe int8`.",
        )
    if out is not None:
        write_bytes(Path(out), encoding.content)
    return encoding


def encoded(content: bytes, name: str = "model") -> Encoding:
    """The same of the content of a file.

    Args:
        content: of a .tflite.
        name: of the file, for messages.

    Raises:
        ModelError: damaged, or above 2 GB.
    """
    model = parse(content, name)
    weights = _weights(model)
    chosen: dict[_Place, Encoded] = {}
    for place in weights:
        tensor = model.subgraphs[place[0]].tensors[place[1]]
        best = next(iter(decode.encodings(tensor)), None)
        if best is not None and best.bytes < tensor.nbytes:
            chosen[place] = best
    # An operator, its tensors and buffers take some hundred bytes, which depend on what they share. So what saves least
    # is taken out as long as the file becomes smaller.
    order = sorted(chosen, key=lambda p: model.subgraphs[p[0]].tensors[p[1]].nbytes - chosen[p].bytes)
    smallest: tuple[bytes, dict[_Place, Encoded]] | None = None
    for first in range(len(order)):
        some = {place: chosen[place] for place in order[first:]}
        written = _written(content, some)
        if smallest is not None and len(written) >= len(smallest[0]):
            break
        smallest = written, some
    if smallest is None or len(smallest[0]) >= len(content):
        smallest = content, {}
    best_content, kept = smallest
    _verify(model, best_content, kept)
    return Encoding(best_content, len(content), tuple(_described(model, place, kept.get(place)) for place in weights))


def _described(model: TFLiteModel, place: _Place, code: Encoded | None) -> EncodedTensor:
    tensor = model.subgraphs[place[0]].tensors[place[1]]
    return EncodedTensor(tensor.name, code.code if code else None, tensor.nbytes, code.bytes if code else tensor.nbytes)


def _weights(model: TFLiteModel) -> list[_Place]:
    """The int8 constants that nothing but operators of :data:`_TAKING` read, as their weights."""
    found = []
    for number, graph in enumerate(model.subgraphs):
        readers = collections.defaultdict(list)
        for operator in graph.operators:
            for position, index in enumerate(operator.inputs):
                readers[index].append(operator.name in _TAKING and position in KERNEL_INPUTS[operator.name])
        for tensor in graph.tensors:
            plain = tensor.constant and not tensor.variable and tensor.sparsity is None and not tensor.is_short
            named = tensor.index in graph.outputs or tensor.index in graph.inputs
            if plain and tensor.dtype == "int8" and readers[tensor.index] and all(readers[tensor.index]) and not named:
                found.append((number, tensor.index))
    return found


def _verify(plain: TFLiteModel, content: bytes, chosen: dict[_Place, Encoded]) -> None:
    """Every weight of the new file, read as a device reads it, is that of the plain file."""
    model = parse(content, "the encoded file")
    for number, graph in enumerate(model.subgraphs):
        weights = decode.decoded_weights(graph)
        for place in chosen:
            if place[0] != number:
                continue
            tensor = plain.subgraphs[number].tensors[place[1]]
            if not np.array_equal(weights[place[1]], tensor.data()):
                raise VerificationError(f"The encoded weights {tensor.name!r} are not those of the plain file.")


def _written(content: bytes, chosen: dict[_Place, Encoded]) -> bytes:
    """The file with some of its weights encoded."""
    model = unpacked(content)
    if any(buffer.offset > 1 for buffer in model.buffers):
        raise ModelError("The weights are stored behind the model, as in files above 2 GB.")
    for number, graph in enumerate(model.subgraphs):
        pairs = {
            index: (_constant(model, graph, one.data), _constant(model, graph, one.ancillary))
            for (place, index), one in chosen.items()
            if place == number
        }
        if not pairs:
            continue
        code = _operator_code(model)
        operators, decoded = [], set()
        for operator in graph.operators:
            own = [index for index in dict.fromkeys(operator.inputs.tolist()) if index in pairs]
            # The first operator that uses a tensor takes the tensor itself, others a copy of it.
            outputs = {index: _copy(graph, index) if index in decoded else index for index in own}
            decoded |= set(own)
            if own:
                step = schema().OperatorT()
                step.opcodeIndex = code
                step.inputs = np.array([part for index in own for part in pairs[index]], np.int32)
                step.outputs = np.array(list(outputs.values()), np.int32)
                operator.inputs = np.array([outputs.get(i, i) for i in operator.inputs.tolist()], np.int32)
                operators.append(step)
            operators.append(operator)
        graph.operators = operators
        for index in pairs:
            graph.tensors[index].buffer = 0  # empty by convention: what is written at run time
    drop_unused_buffers(model)
    return packed(model)


def _operator_code(model: Any) -> int:
    """The index of the operator's code, which is added to the model where it is missing."""
    for index, known in enumerate(model.operatorCodes):
        if known.customCode == OPERATOR.encode():
            return index
    code = schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema().BuiltinOperator.CUSTOM
    code.customCode, code.version = OPERATOR.encode(), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _constant(model: Any, graph: Any, content: bytes) -> int:
    """Add a tensor of bytes; returns its index."""
    buffer, tensor = schema().BufferT(), schema().TensorT()
    buffer.data = np.frombuffer(content, np.uint8)
    model.buffers.append(buffer)
    tensor.shape, tensor.type = np.array([len(content)], np.int32), schema().TensorType.UINT8
    tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _copy(graph: Any, index: int) -> int:
    tensor = copy.copy(graph.tensors[index])
    tensor.buffer = 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
