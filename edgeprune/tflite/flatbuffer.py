"""Read .tflite files without TensorFlow: subgraphs, tensors, operators, weights, signatures.

The format is ``tensorflow/compiler/mlir/lite/schema/schema.fbs``; its accessors come from the ``tflite`` package. A
file that is truncated, damaged or hostile ends in a :class:`~edgeprune.errors.ModelError`: :func:`parse` catches what
any accessor raises, and everything decoded is counted against a budget in proportion to the file's size, so that a
small file cannot become a large model in memory.

What LiteRT or TensorFlow Lite Micro runs is read, however odd; :mod:`edgeprune.tflite.faults` says what is odd.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import flatbuffers
import numpy as np

# The package fills its namespace with one class per table of the schema.
import tflite

from edgeprune.errors import ModelError
from edgeprune.tflite.graph import (
    Operator,
    OperatorCode,
    Options,
    Quantization,
    Signature,
    Subgraph,
    Tensor,
    TFLiteModel,
)
from edgeprune.tflite.sparse import Dimension, Sparsity

# An accessor of one table of the schema, or the class of one. The ``tflite`` package generates these classes and
# declares no types, so this is where static types end.
Table = Any

IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
_FIX = "convert the model again, or copy the file again."
# First bytes of other files → what they are, and what to do.
_BUILD = "convert it: edgeprune build FILE --data DATA --target BOARD, under a name that ends in {}."
_OTHERS = (
    (b"PK\x03\x04", "an archive, as Keras writes .keras files, and not a .tflite file", _BUILD.format(".keras")),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes .h5 files, and not a .tflite file", _BUILD.format(".h5")),
)
T = TypeVar("T")
# What the accessors raise on bytes that are not a flatbuffer of this schema.
_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError)


def read(path: str | Path) -> TFLiteModel:
    """Read a .tflite file.

    Raises:
        ModelError: missing, unreadable, not a .tflite file, or damaged.
    """
    return parse(read_bytes(path), name=str(path))


def read_bytes(path: str | Path) -> bytes:
    """The content of a model file.

    Raises:
        ModelError: missing or unreadable.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read: {error.strerror}.", expected="a .tflite file.") from None


def parse(content: bytes, name: str = "model") -> TFLiteModel:
    """Read the content of a .tflite file.

    Args:
        content: of the file.
        name: of the file, for messages.

    Raises:
        ModelError: not a .tflite file, or damaged.
    """
    if content[4:8] != IDENTIFIER:
        other, fix = next(
            (known for start, *known in _OTHERS if content.startswith(start)), ("not a .tflite file", None)
        )
        raise ModelError(
            f"{name} is {other if content else 'empty'}.",
            expected="a TensorFlow Lite model (bytes 4 to 8 are 'TFL3').",
            fix=fix,
        )
    try:
        return _Parser(content).model()
    except _Unusable as error:
        raise ModelError(f"{name} cannot run: {error}.", expected="a file that LiteRT loads.", fix=_FIX) from None
    except _Damaged as error:
        reason = str(error)
    except _DAMAGE as error:
        reason = f"an offset points outside the file ({error})"
    raise ModelError(
        f"{name} is damaged: {reason}.",
        expected="a complete .tflite file.",
        fix=_FIX,
    )


class _Damaged(Exception):
    """The file cannot be read; the message says why."""


class _Unusable(Exception):
    """LiteRT refuses the file, which TensorFlow Lite Micro may not notice; the message says why."""


class _Parser:
    """Reads the tables of one file. Everything that it decodes is subtracted from ``budget``, in bytes."""

    def __init__(self, content: bytes):
        self.content = content
        self.view = memoryview(content)
        # In a real file few tables are shared. One that decodes to several times its size was made for that purpose.
        self.budget = 4 * len(content) + 4096

    def model(self) -> TFLiteModel:
        root = tflite.Model.GetRootAs(self.content, 0)
        if root.Version() != SCHEMA_VERSION:
            raise _Unusable(f"it has schema version {root.Version()} instead of {SCHEMA_VERSION}")
        buffers = [self._buffer(buffer) for buffer in self._tables(root, "Buffers")]
        codes = tuple(self._operator_code(code) for code in self._tables(root, "OperatorCodes"))
        subgraphs = tuple(self._subgraph(graph, codes, buffers) for graph in self._tables(root, "Subgraphs"))
        if not subgraphs:
            raise _Damaged("it has no subgraph")
        # Runtimes do not read metadata, and ignore signatures that do not fit until they are asked for.
        metadata = {
            self._text(entry.Name()): bytes(buffers[entry.Buffer()])
            for entry in self._tables(root, "Metadata")
            if entry.Buffer() < len(buffers)
        }
        self._pay(sum(map(len, metadata.values())))
        minimum = metadata.get("min_runtime_version", b"").rstrip(b"\0").decode("ascii", "replace")
        return TFLiteModel(
            description=self._text(root.Description()),
            subgraphs=subgraphs,
            min_runtime=minimum or None,
            metadata=metadata,
            signatures=tuple(
                filter(None, (self._signature(s, subgraphs) for s in self._tables(root, "SignatureDefs")))
            ),
            operator_codes=codes,
            bytes=len(self.content),
        )

    # -- tables ------------------------------------------------------------------------------------------------------

    def _buffer(self, buffer: Table) -> memoryview:
        if buffer.Offset() > 1:  # stored after the flatbuffer, for files above 2 GB
            start, length = buffer.Offset(), buffer.Size()
        elif buffer.DataIsNone():
            return self.view[:0]
        else:
            length = buffer.DataLength()
            start = buffer._tab.Vector(buffer._tab.Offset(4))
        if not 0 <= start <= start + length <= len(self.content):
            raise _Damaged(f"a buffer of {length} bytes reaches beyond the end of the file")
        return self.view[start : start + length]

    def _operator_code(self, code: Table) -> OperatorCode:
        # Codes above 127 do not fit into the first field, so there is a second. Older writers fill only the first, some
        # newer ones only the second. The second field's accessor prefers the first field, so the second (number 3 of
        # the table) is read directly.
        field = code._tab.Offset(10)
        second = code._tab.Get(flatbuffers.number_types.Int32Flags, field + code._tab.Pos) if field else 0
        number = max(code.DeprecatedBuiltinCode(), second)
        name = _OPERATOR_NAMES.get(number, f"BUILTIN_{number}")
        custom = name == "CUSTOM"
        return (self._text(code.CustomCode()) or name if custom else name), custom, code.Version()

    def _subgraph(self, graph: Table, codes: tuple[OperatorCode, ...], buffers: list[memoryview]) -> Subgraph:
        tensors = tuple(self._tensor(i, t, buffers) for i, t in enumerate(self._tables(graph, "Tensors")))
        return Subgraph(
            name=self._text(graph.Name()),
            tensors=tensors,
            operators=tuple(
                self._operator(i, o, codes, len(tensors)) for i, o in enumerate(self._tables(graph, "Operators"))
            ),
            inputs=self._indices(graph, "Inputs", len(tensors), optional=False),
            outputs=self._indices(graph, "Outputs", len(tensors), optional=False),
        )

    def _tensor(self, index: int, table: Table, buffers: list[memoryview]) -> Tensor:
        shape = self._numbers(table, "Shape")
        if any(size < 0 for size in shape):
            raise _Unusable(f"tensor {index} has a negative size")
        stored = self._at(buffers, table.Buffer())
        tensor = Tensor(
            index=index,
            name=self._text(table.Name()),
            shape=shape,
            signature=self._numbers(table, "ShapeSignature") or shape,
            dtype=_TYPE_NAMES.get(table.Type(), f"type{table.Type()}"),
            quantization=self._quantization(index, table.Quantization(), shape),
            sparsity=self._sparsity(table.Sparsity()),
            variable=bool(table.IsVariable()),
            constant=len(stored) > 0,
            stored=stored,
        )
        if tensor.sparsity and tensor.is_numeric:
            tensor.sparsity.check(shape, len(tensor.values()))
        elif tensor.is_numeric and len(stored) > tensor.nbytes:  # the runtimes do not read what is beyond its shape
            return dataclasses.replace(tensor, stored=stored[: tensor.nbytes])
        return tensor

    def _quantization(self, index: int, table: Table | None, shape: tuple[int, ...]) -> Quantization | None:
        if table is None:
            return None
        scale, zero_point = self._numbers(table, "Scale"), self._numbers(table, "ZeroPoint")
        axis = table.QuantizedDimension()
        # One for the tensor, or one for each index along the axis (interpreter_builder.cc, ParseQuantization).
        allowed = {0, 1, shape[axis] if 0 <= axis < len(shape) else 1}
        if not {len(scale), len(zero_point)} <= allowed:
            raise _Unusable(f"tensor {index} has {len(scale)} scales and {len(zero_point)} zero points")
        return Quantization(scale, zero_point, axis) if scale else None

    def _sparsity(self, table: Table | None) -> Sparsity | None:
        if table is None:
            return None
        dimensions = []
        for dimension in self._tables(table, "DimMetadata"):
            sparse = dimension.Format() == tflite.DimensionType.SPARSE_CSR
            if not sparse:
                dimensions.append(Dimension(dimension.DenseSize(), None, None))
                continue
            segments = self._index_vector(dimension.ArraySegmentsType(), dimension.ArraySegments())
            indices = self._index_vector(dimension.ArrayIndicesType(), dimension.ArrayIndices())
            nbytes = segments.nbytes + indices.nbytes
            vectors = [np.asarray(vector, np.int64) for vector in (segments, indices)]
            dimensions.append(Dimension(dimension.DenseSize(), vectors[0], vectors[1], nbytes))
        return Sparsity(self._numbers(table, "TraversalOrder"), self._numbers(table, "BlockMap"), tuple(dimensions))

    def _index_vector(self, kind: int, table: Table) -> np.ndarray:
        vector = getattr(tflite, _INDEX_VECTORS[kind])()
        vector.Init(table.Bytes, table.Pos)
        values = vector.ValuesAsNumpy()
        return values if isinstance(values, np.ndarray) else np.zeros(0, np.int64)

    def _operator(self, index: int, table: Table, codes: tuple[OperatorCode, ...], tensors: int) -> Operator:
        name, custom, version = self._at(codes, table.OpcodeIndex())
        return Operator(
            index=index,
            name=name,
            custom=custom,
            version=version,
            inputs=self._indices(table, "Inputs", tensors),
            outputs=self._indices(table, "Outputs", tensors),
            options=self._options(tflite.BuiltinOptions, table.BuiltinOptionsType(), table.BuiltinOptions())
            or self._options(tflite.BuiltinOptions2, table.BuiltinOptions2Type(), table.BuiltinOptions2()),
        )

    def _options(self, union: type, kind: int, table: Table | None) -> Options:
        cls = getattr(tflite, _union_names(union).get(kind, ""), None)
        if cls is None or table is None:
            return {}
        options = cls()
        options.Init(table.Bytes, table.Pos)
        values = {name: get(options) for name, get in _option_fields(cls)}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self._pay(value.nbytes)
                values[name] = tuple(value.tolist())
            elif name in _OPTION_ENUMS:
                values[name] = _OPTION_ENUMS[name].get(value, value)
        return values

    def _signature(self, table: Table, subgraphs: tuple[Subgraph, ...]) -> Signature | None:
        """None for one whose subgraph or tensors do not exist."""
        if table.SubgraphIndex() >= len(subgraphs):
            return None
        tensors = len(subgraphs[table.SubgraphIndex()].tensors)
        maps = [
            {self._text(entry.Name()): entry.TensorIndex() for entry in self._tables(table, side)}
            for side in ("Inputs", "Outputs")
        ]
        if any(index >= tensors for mapping in maps for index in mapping.values()):
            return None
        return Signature(self._text(table.SignatureKey()), maps[0], maps[1], table.SubgraphIndex())

    # -- fields ------------------------------------------------------------------------------------------------------

    def _pay(self, nbytes: int) -> None:
        """Subtract what is about to be decoded from the budget."""
        self.budget -= nbytes
        if self.budget < 0:
            raise _Damaged("its tables overlap: it decodes to several times its own size")

    def _tables(self, owner: Table, name: str) -> Iterator[Table]:
        length = getattr(owner, f"{name}Length")()
        self._pay(4 * length)
        entry = getattr(owner, name)
        for i in range(length):
            self._pay(8)  # the smallest table: its offset to the vtable and one field
            yield entry(i)

    def _numbers(self, owner: Table, name: str) -> tuple[Any, ...]:
        self._pay(4 * getattr(owner, f"{name}Length")())
        array = getattr(owner, f"{name}AsNumpy")()
        return tuple(array.tolist()) if isinstance(array, np.ndarray) else ()  # the accessors give 0 for no vector

    def _indices(self, owner: Table, name: str, tensors: int, *, optional: bool = True) -> tuple[int, ...]:
        """Indices of tensors; -1 for one that is left out, if that is allowed."""
        indices = self._numbers(owner, name)
        if any(not -optional <= index < tensors for index in indices):
            raise _Unusable(f"an operator or a graph names a tensor that does not exist among {tensors}")
        return indices

    def _text(self, value: bytes | None) -> str:
        self._pay(len(value or b""))
        return (value or b"").decode("utf-8", "replace")

    @staticmethod
    def _at(sequence: Sequence[T], index: int) -> T:
        if not 0 <= index < len(sequence):
            raise _Unusable(f"index {index} points into a table of {len(sequence)} entries")
        return sequence[index]


def _constants(enum: Table) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int) and not name.startswith("_")}


_union_names = functools.cache(_constants)
# The schema's names, and what it has gained since the release of the tflite package.
_OPERATOR_NAMES = _constants(tflite.BuiltinOperator) | {209: "STABLEHLO_CASE"}
_TYPE_NAMES = {number: name.lower() for number, name in _constants(tflite.TensorType).items()} | {
    19: "int2",
    20: "uint4",
}
_INDEX_VECTORS = _constants(tflite.SparseIndexVector)
_OPTION_ENUMS = {
    "fused_activation_function": _constants(tflite.ActivationFunctionType),
    "padding": _constants(tflite.Padding),
}


@functools.cache
def _option_fields(cls: Table) -> tuple[tuple[str, Callable[[Table], Any]], ...]:
    """The fields of an options table: name in snake case, and the accessor; vectors come as numpy arrays."""
    fields = []
    for name, accessor in vars(cls).items():
        if name == "Init" or isinstance(accessor, classmethod) or not callable(accessor):
            continue
        if name.endswith(("Length", "IsNone")) or len(inspect.signature(accessor).parameters) != 1:
            continue
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.removesuffix("AsNumpy")).lower()
        fields.append((snake, accessor))
    return tuple(fields)
