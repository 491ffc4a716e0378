"""The part of the runtimes' Python API that edgeprune uses, as types.

ai-edge-litert, tflite-runtime and TensorFlow Lite offer the same classes and ship no types for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import numpy as np


class TensorDetails(TypedDict):
    """What an interpreter says about a tensor.

    Attributes:
        index: of the tensor, for ``get_tensor`` and ``set_tensor``.
        quantization: scale and zero point; a scale of 0 where the tensor has none, or one per channel.
    """

    name: str
    index: int
    shape: np.ndarray
    dtype: type[np.generic]
    quantization: tuple[float, int]


class NativeInterpreter(Protocol):
    """The C++ object behind an interpreter."""

    def Invoke(self) -> None: ...


class Interpreter(Protocol):
    """``Interpreter`` of any of the runtimes."""

    _interpreter: NativeInterpreter

    def allocate_tensors(self) -> None: ...
    def invoke(self) -> None: ...
    def reset_all_variables(self) -> None: ...
    def get_input_details(self) -> list[TensorDetails]: ...
    def get_output_details(self) -> list[TensorDetails]: ...
    def get_tensor_details(self) -> list[TensorDetails]: ...
    def get_tensor(self, tensor_index: int) -> np.ndarray: ...
    def set_tensor(self, tensor_index: int, value: np.ndarray) -> None: ...
    def tensor(self, tensor_index: int) -> Callable[[], np.ndarray]: ...

    # Private in all of them, and the only way to ask.
    def _get_ops_details(self) -> Sequence[Mapping[str, Any]]: ...
    def _get_full_signature_list(self) -> Mapping[str, Mapping[str, Mapping[str, int]]]: ...


class RuntimeModule(Protocol):
    """The module of a runtime that has its ``Interpreter``."""

    Interpreter: Callable[..., Interpreter]
    OpResolverType: Any  # an enum, whose members differ between releases

    def load_delegate(self, library: str) -> object: ...
