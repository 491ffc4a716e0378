"""The content of a .tflite file as plain data: subgraphs of tensors and operators.

Read by :mod:`edgeprune.tflite.flatbuffer`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.tflite.sparse import Sparsity

# Values of an operator's options: numbers, booleans, tuples of numbers, or the names of enum values. Which of these an
# option has depends on its operator, so the type checker is told nothing.
Options = Mapping[str, Any]
# Name, whether it is a custom operator, version.
OperatorCode = tuple[str, bool, int]
# Name of the type in the schema → bits of one element, and the numpy type of what :meth:`Tensor.data` returns.
# Strings, resources and variants are missing: they live on the runtime's heap and have no fixed size.
TYPES: dict[str, tuple[int, type[np.generic]]] = {
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
    """A tensor of a subgraph.

    Attributes:
        shape: with 1 for a size that is known at run time only.
        signature: the same with -1 for such a size.
        dtype: a key of :data:`TYPES`; else 'string', 'resource', 'variant', or 'type99' for a type newer than the
            schema here.
        variable: whether it is state that survives from one inference to the next.
        stored: the bytes in the file; empty when the tensor is not constant, or has no elements.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    quantization: Quantization | None
    sparsity: Sparsity | None
    variable: bool
    constant: bool
    stored: memoryview = field(repr=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_numeric(self) -> bool:
        """Whether the elements are numbers, which :meth:`values` can read."""
        return self.dtype in TYPES

    @property
    def nbytes(self) -> int:
        """Bytes at run time, when it is dense; 0 for types without a fixed size."""
        bits = TYPES.get(self.dtype, (0, None))[0]
        return (self.size * bits + 7) // 8

    @property
    def is_short(self) -> bool:
        """Whether a constant stores fewer bytes than its shape needs, as a compressed one does."""
        return self.constant and self.is_numeric and self.sparsity is None and len(self.stored) < self.nbytes

    def values(self) -> np.ndarray:
        """The stored elements, flat: all of them, or those that the encoding of a sparse tensor keeps.

        Raises:
            ModelError: the elements are not numbers, or cannot be read as their shape says.
        """
        if self.is_short:
            raise ModelError(
                f"The tensor {self.name!r} stores {len(self.stored)} bytes, and its shape needs {self.nbytes}: what it "
                "stores cannot be read.",
                expected="a constant that is whole",
                fix="convert the model again.",
            )
        if not self.is_numeric:
            raise ModelError(
                f"The tensor {self.name!r} of type {self.dtype} holds no numbers.",
                expected=f"one of the types {', '.join(TYPES)}",
                fix="convert the model again.",
            )
        bits, dtype = TYPES[self.dtype]
        if bits < 8:  # several elements per byte, the first in the lowest bits
            packed = np.frombuffer(self.stored, dtype)
            parts = [np.left_shift(packed, 8 - bits - shift) >> (8 - bits) for shift in range(0, 8, bits)]
            return np.stack(parts, axis=1).reshape(-1)[: self.size]
        if self.dtype == "bfloat16":  # the upper half of a float32
            return (np.frombuffer(self.stored, np.uint16).astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(self.stored, dtype)

    def data(self) -> np.ndarray:
        """A constant as a dense array of ``shape``, in the stored number format (not dequantized).

        Raises:
            ModelError: the tensor is not a constant, or its elements are not numbers.
        """
        if not self.constant:
            raise ModelError(f"The tensor {self.name!r} is not a constant: its values are known at run time only.")
        if self.sparsity is None:
            return self.values().reshape(self.shape)
        return self.sparsity.densify(self.values(), self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """A node of a subgraph.

    Attributes:
        name: such as 'CONV_2D'; the custom code of a custom operator; 'BUILTIN_212' for one newer than the schema here.
        inputs, outputs: tensor indices; -1 marks an optional input that is left out.
        options: of the built-in options table, names in snake case.
    """

    index: int
    name: str
    custom: bool
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options


@dataclass(frozen=True, eq=False)
class Subgraph:
    """One graph of the model; ``operators`` are in the order in which they run."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def input(self, operator: Operator, position: int) -> Tensor | None:
        """The tensor at an input position of an operator; None when the input is left out."""
        indices = operator.inputs
        return self.tensors[indices[position]] if position < len(indices) and indices[position] >= 0 else None

    def output(self, operator: Operator, position: int = 0) -> Tensor | None:
        """The tensor at an output position of an operator; None when there is no such output."""
        indices = operator.outputs
        return self.tensors[indices[position]] if position < len(indices) and indices[position] >= 0 else None

    def leading_to(self, tensors: Sequence[int]) -> list[Operator]:
        """The operators that these tensors depend on, in the order in which they run."""
        needed, found = set(tensors), []
        for operator in reversed(self.operators):
            if needed.intersection(operator.outputs):
                needed.update(operator.inputs)
                found.append(operator)
        return found[::-1]

    @functools.cached_property
    def producers(self) -> dict[int, Operator]:
        """Tensor index → the operator that writes it."""
        return {tensor: operator for operator in self.operators for tensor in operator.outputs if tensor >= 0}


@dataclass(frozen=True)
class Signature:
    """A named entry point of the subgraph with index ``subgraph``: argument names → tensor indices."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    subgraph: int


@dataclass(frozen=True, eq=False)
class TFLiteModel:
    """The content of a .tflite file.

    Attributes:
        min_runtime: the TensorFlow release that the converter wrote into the file as the oldest that runs it, for
            example '2.11.0'.
        metadata: name → content of the buffer.
        operator_codes: every code that the file declares; a runtime must know them all, used or not.
        bytes: size of the file.
    """

    description: str
    subgraphs: tuple[Subgraph, ...]
    min_runtime: str | None
    metadata: Mapping[str, bytes]
    signatures: tuple[Signature, ...]
    operator_codes: tuple[OperatorCode, ...]
    bytes: int
