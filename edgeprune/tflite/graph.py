"""What a .tflite file holds, as plain data: subgraphs of tensors and operators.

Read by :mod:`edgeprune.tflite.flatbuffer`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.tflite.sparse import Sparsity

# Name of the type in the schema: bits of one element, numpy type of what :meth:`Tensor.data` returns.
# Strings, resources and variants live on the heap of the runtime and have no fixed size.
TYPES: dict[str, tuple[int, Any]] = {
    "float64": (64, np.float64),
    "float32": (32, np.float32),
    "float16": (16, np.float16),
    "bfloat16": (16, np.float32),
    "int64": (64, np.int64),
    "int32": (32, np.int32),
    "int16": (16, np.int16),
    "int8": (8, np.int8),
    "int4": (4, np.int8),
    "int2": (2, np.int8),
    "uint64": (64, np.uint64),
    "uint32": (32, np.uint32),
    "uint16": (16, np.uint16),
    "uint8": (8, np.uint8),
    "uint4": (4, np.uint8),
    "bool": (8, np.bool_),
    "complex64": (64, np.complex64),
    "complex128": (128, np.complex128),
}


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (stored - zero_point)``; one scale per tensor, or one per index along ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a subgraph. ``shape`` holds 1 where ``signature`` holds -1 (a size known at run time only)."""

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str  # 'float32', 'int8', ...; 'string', 'resource' or 'type99' for what has no fixed size here
    quantization: Quantization | None
    sparsity: Sparsity | None
    variable: bool  # state that survives from one inference to the next
    constant: bool
    stored: memoryview = field(repr=False)  # the bytes in the file; empty when not constant

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_numeric(self) -> bool:
        """Whether :meth:`values` can read its type."""
        return self.dtype in TYPES

    @property
    def nbytes(self) -> int:
        """Bytes at run time, dense; 0 for types without a fixed size."""
        bits = TYPES.get(self.dtype, (0, None))[0]
        return (self.size * bits + 7) // 8

    def values(self) -> np.ndarray:
        """The stored elements, flat: all of them, or for a sparse tensor the ones its encoding keeps."""
        if not self.is_numeric:
            raise ModelError(f"The tensor {self.name!r} of type {self.dtype} holds no numbers.")
        bits, dtype = TYPES[self.dtype]
        if bits < 8:  # several to a byte, the first in the lowest bits
            packed = np.frombuffer(self.stored, dtype)
            parts = [np.left_shift(packed, 8 - bits - shift) >> (8 - bits) for shift in range(0, 8, bits)]
            return np.stack(parts, axis=1).reshape(-1)[: self.size]
        if self.dtype == "bfloat16":  # the upper half of a float32
            return (np.frombuffer(self.stored, np.uint16).astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(self.stored, dtype)

    def data(self) -> np.ndarray:
        """The constant as a dense array of ``shape``, in the stored number format (not dequantized).

        Raises:
            ModelError: not a constant, or not numbers.
        """
        if not self.constant:
            raise ModelError(f"The tensor {self.name!r} is not a constant: its values are known at run time only.")
        if self.sparsity is None:
            return self.values().reshape(self.shape)
        return self.sparsity.densify(self.values(), self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """A node of a subgraph. ``inputs`` and ``outputs`` are tensor indices; -1 marks an optional input left out."""

    index: int
    name: str  # 'CONV_2D', ...; the custom code of a custom operator; 'BUILTIN_212' when newer than the schema here
    custom: bool
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]  # of the built-in options table, names in snake case


@dataclass(frozen=True, eq=False)
class Subgraph:
    """One graph of the model; operators stand in the order in which they run."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def input(self, operator: Operator, position: int) -> Tensor | None:
        """The tensor at an input position of an operator; None when it has none there."""
        indices = operator.inputs
        return self.tensors[indices[position]] if position < len(indices) and indices[position] >= 0 else None

    def output(self, operator: Operator, position: int = 0) -> Tensor | None:
        """The tensor at an output position of an operator; None when it has none there."""
        indices = operator.outputs
        return self.tensors[indices[position]] if position < len(indices) and indices[position] >= 0 else None

    @functools.cached_property
    def producers(self) -> dict[int, Operator]:
        """Tensor index to the operator that writes it."""
        return {tensor: operator for operator in self.operators for tensor in operator.outputs if tensor >= 0}


@dataclass(frozen=True)
class Signature:
    """A named entry point: argument names to tensor indices of subgraph ``subgraph``."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    subgraph: int


@dataclass(frozen=True, eq=False)
class TFLiteModel:
    """A .tflite file, read."""

    description: str
    subgraphs: tuple[Subgraph, ...]
    min_runtime: str | None  # what the converter wrote as minimum runtime, for example '2.11.0'
    metadata: Mapping[str, bytes]
    signatures: tuple[Signature, ...]
    operator_codes: tuple[tuple[str, bool, int], ...]  # (name, custom, version): the runtime resolves all of them
    bytes: int  # size of the file
