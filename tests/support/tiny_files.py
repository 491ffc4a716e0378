"""A writer of .tflite files, without TensorFlow: tensors and operators as tuples, in any combination."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import flatbuffers
import numpy as np
import tflite

from edgeprune.tflite.flatbuffer import _OPERATOR_NAMES

CODES = {name: code for code, name in _OPERATOR_NAMES.items()}
TYPES = {name.lower(): value for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}


@dataclass(frozen=True)
class Given:
    """A tensor: ``data`` makes it a constant, ``scale`` quantized, with the zero point ``zero``; ``csr`` (segments,
    indices) its second dimension compressed."""

    shape: Sequence[int]
    dtype: str = "float32"
    data: np.ndarray | None = None
    scale: float | None = None
    zero: int = 0
    csr: tuple[Sequence[int], Sequence[int]] | None = None


# (name, inputs, outputs); a name that TensorFlow Lite has not is a custom operator.
Node = tuple[str, Sequence[int], Sequence[int]]


def tflite_of(
    tensors: Sequence[Given],
    nodes: Sequence[Node],
    inputs: Sequence[int],
    outputs: Sequence[int],
    custom_options: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """The file with one subgraph; operators have no options but these of custom ones, by name."""
    builder = flatbuffers.Builder(1 << 16)
    constants = [tensor for tensor in tensors if tensor.data is not None]
    buffers = [_table(builder, "Buffer")]
    buffers += [_table(builder, "Buffer", Data=builder.CreateNumpyVector(_bytes(tensor))) for tensor in constants]
    places = {id(tensor): place for place, tensor in enumerate(constants, 1)}
    stored = [_tensor(builder, index, tensor, places.get(id(tensor), 0)) for index, tensor in enumerate(tensors)]
    kinds = list(dict.fromkeys(name for name, _, _ in nodes))
    operators = [
        _table(
            builder,
            "Operator",
            OpcodeIndex=kinds.index(name),
            Inputs=_ints(builder, i),
            Outputs=_ints(builder, o),
            **({"CustomOptions": builder.CreateByteVector(custom_options[name])} if name in custom_options else {}),
        )
        for name, i, o in nodes
    ]
    graph = _table(
        builder,
        "SubGraph",
        Tensors=_offsets(builder, stored),
        Inputs=_ints(builder, inputs),
        Outputs=_ints(builder, outputs),
        Operators=_offsets(builder, operators),
    )
    model = _table(
        builder,
        "Model",
        Version=3,
        OperatorCodes=_offsets(builder, [_code(builder, name) for name in kinds]),
        Subgraphs=_offsets(builder, [graph]),
        Buffers=_offsets(builder, buffers),
    )
    builder.Finish(model, b"TFL3")
    return bytes(builder.Output())


def _code(builder: flatbuffers.Builder, name: str) -> int:
    if name in CODES:
        return _table(
            builder, "OperatorCode", DeprecatedBuiltinCode=min(CODES[name], 127), BuiltinCode=CODES[name], Version=1
        )
    text, number = builder.CreateString(name), CODES["CUSTOM"]
    return _table(builder, "OperatorCode", DeprecatedBuiltinCode=number, BuiltinCode=number, CustomCode=text, Version=1)


def _tensor(builder: flatbuffers.Builder, index: int, tensor: Given, buffer: int) -> int:
    fields: dict[str, Any] = {
        "Shape": _ints(builder, tensor.shape),
        "Type": TYPES[tensor.dtype],
        "Buffer": buffer,
        "Name": builder.CreateString(f"t{index}"),
    }
    if tensor.scale is not None:
        scale = builder.CreateNumpyVector(np.array([tensor.scale], np.float32))
        zero = builder.CreateNumpyVector(np.array([tensor.zero], np.int64))
        fields["Quantization"] = _table(builder, "QuantizationParameters", Scale=scale, ZeroPoint=zero)
    if tensor.csr is not None:
        fields["Sparsity"] = _sparsity(builder, tensor)
    return _table(builder, "Tensor", **fields)


def _sparsity(builder: flatbuffers.Builder, tensor: Given) -> int:
    assert tensor.csr is not None
    segments, indices = (_table(builder, "Int32Vector", Values=_ints(builder, values)) for values in tensor.csr)
    kind = tflite.SparseIndexVector.Int32Vector
    csr = _table(
        builder,
        "DimensionMetadata",
        Format=tflite.DimensionType.SPARSE_CSR,
        ArraySegmentsType=kind,
        ArraySegments=segments,
        ArrayIndicesType=kind,
        ArrayIndices=indices,
    )
    dense = _table(builder, "DimensionMetadata", DenseSize=tensor.shape[0])
    order, levels = _ints(builder, [0, 1]), _offsets(builder, [dense, csr])
    return _table(builder, "SparsityParameters", TraversalOrder=order, DimMetadata=levels)


def _bytes(tensor: Given) -> np.ndarray:
    assert tensor.data is not None
    return np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)


def _ints(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return builder.CreateNumpyVector(np.asarray(values, np.int32))


def _offsets(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _table(builder: flatbuffers.Builder, kind: str, **fields: Any) -> int:
    getattr(tflite, f"{kind}Start")(builder)
    for field, value in fields.items():
        getattr(tflite, f"{kind}Add{field}")(builder, value)
    return getattr(tflite, f"{kind}End")(builder)


# Options of MediaPipe's operators: the runtime's C structures (c/builtin_op_data.h).
# Padding VALID, strides of 2, no activation; and for pooling, a window of 2x2 and what the runtime computes.
_STRIDES = struct.pack("<3i", 2, 2, 2)
MEDIAPIPE_OPTIONS = {
    "Convolution2DTransposeBias": _STRIDES + struct.pack("<2i", 0, 0),
    "MaxPoolingWithArgmax2D": _STRIDES + struct.pack("<7i", 2, 2, 0, 0, 0, 0, 0),
    "MaxUnpooling2D": _STRIDES + struct.pack("<7i", 2, 2, 0, 0, 0, 0, 0),
}


def mediapipe_file(dtype: str = "float32") -> bytes:
    """A file of MediaPipe's operators: pooling with positions, its inverse, and a transposed convolution with bias."""
    scale = None if dtype == "float32" else 0.1
    image, small = Given((1, 4, 4, 3), dtype, scale=scale), Given((1, 2, 2, 3), dtype, scale=scale)
    kernel = Given((5, 2, 2, 3), dtype, np.arange(60).reshape(5, 2, 2, 3).astype(dtype), scale)
    bias = Given((5,), dtype, np.ones(5, dtype), scale)
    tensors = [image, small, small, image, kernel, bias, Given((1, 8, 8, 5), dtype, scale=scale)]
    nodes = [
        ("MaxPoolingWithArgmax2D", (0,), (1, 2)),
        ("MaxUnpooling2D", (1, 2), (3,)),
        ("Convolution2DTransposeBias", (3, 4, 5), (6,)),
    ]
    return tflite_of(tensors, nodes, [0], [6], MEDIAPIPE_OPTIONS)
