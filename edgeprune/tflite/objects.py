"""A .tflite as objects that can be changed, and back: the tables of the schema, as ai-edge-litert generates them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np

from edgeprune.tflite.flatbuffer import IDENTIFIER
from edgeprune.tflite.splice import ALIGNMENT


def schema() -> Any:
    """The module with the tables. It declares no types."""
    return importlib.import_module("ai_edge_litert.schema_py_generated")


def unpacked(content: bytes) -> Any:
    """The model of a file; inverse of :func:`packed`."""
    return schema().ModelT.InitFromPackedBuf(content, 0)


def drop_unused_buffers(model: Any) -> None:
    """Leave out buffers that nothing reads any more, other than the empty one at the front."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    owners = tensors + list(model.metadata or ())
    used = sorted({0} | {owner.buffer for owner in owners} | set(model.metadataBuffer or ()))
    places = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[old] for old in used]
    for owner in owners:
        owner.buffer = places[owner.buffer]
    if model.metadataBuffer is not None:
        model.metadataBuffer = [places[old] for old in model.metadataBuffer]


def packed(model: Any) -> bytes:
    """The bytes of a model, with buffers at multiples of 16 bytes, which the package's own writer does not see to.

    Equal vectors of scales or zero points are stored once: a flatbuffer may point to one from several tables.
    """
    stored: dict[tuple[str, bytes], int] = {}

    class Aligned(schema().BufferT):  # type: ignore[misc]  # of a package without types
        def Pack(self, builder: Any) -> int:
            filled = self.data is not None and len(self.data)
            vector = _vector(builder, np.asarray(self.data, np.uint8), ALIGNMENT) if filled else None
            schema().BufferStart(builder)
            if vector is not None:
                schema().BufferAddData(builder, vector)
            return int(schema().BufferEnd(builder))

    class Shared(schema().QuantizationParametersT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:
            kinds: list[tuple[str, str, Callable[..., None]]] = [
                ("min", "<f4", schema().QuantizationParametersAddMin),
                ("max", "<f4", schema().QuantizationParametersAddMax),
                ("scale", "<f4", schema().QuantizationParametersAddScale),
                ("zeroPoint", "<i8", schema().QuantizationParametersAddZeroPoint),
            ]
            vectors = []
            for name, dtype, add in kinds:
                values = getattr(self, name)
                if values is None or not len(values):
                    continue
                array = np.asarray(values, dtype)
                key = dtype, array.tobytes()
                if key not in stored:
                    stored[key] = _vector(builder, array, array.itemsize)
                vectors.append((add, stored[key]))
            schema().QuantizationParametersStart(builder)
            for add, vector in vectors:
                add(builder, vector)
            schema().QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
            return int(schema().QuantizationParametersEnd(builder))

    for buffer in model.buffers:
        buffer.__class__ = Aligned
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.quantization is not None and tensor.quantization.details is None:
                tensor.quantization.__class__ = Shared
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _vector(builder: Any, values: np.ndarray, alignment: int) -> int:
    content = values.tobytes()
    builder.StartVector(values.itemsize, len(values), alignment)
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    return int(builder.EndVector())
