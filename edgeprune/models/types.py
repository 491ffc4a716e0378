"""What edgeprune uses of tf_keras' layers, calls and tensors, for annotations: tf_keras itself has no types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class TensorShape(Protocol):
    """Shape of a tensor; None is an axis of unknown size."""

    @property
    def rank(self) -> int | None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, axis: Any) -> Any: ...
    def __iter__(self) -> Any: ...


class Tensor(Protocol):
    """A symbolic tensor between layers, with the batch as its first axis."""

    @property
    def shape(self) -> TensorShape: ...
    @property
    def dtype(self) -> Any: ...


class Variable(Protocol):
    """A weight."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> TensorShape: ...
    @property
    def dtype(self) -> Any: ...
    def numpy(self) -> np.ndarray: ...
    def assign(self, value: Any) -> Any: ...


class Layer(Protocol):
    """A layer. What only some classes have (``kernel``, ``activation``, ``groups``) is not typed."""

    name: str
    trainable: bool

    @property
    def weights(self) -> Sequence[Variable]: ...
    @property
    def trainable_weights(self) -> Sequence[Variable]: ...
    def get_weights(self) -> list[np.ndarray]: ...
    def set_weights(self, weights: Sequence[np.ndarray]) -> None: ...
    def get_config(self) -> dict[str, Any]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...


class Node(Protocol):
    """One call of a layer in a functional model."""

    @property
    def layer(self) -> Layer: ...
    @property
    def is_input(self) -> bool: ...
    @property
    def keras_inputs(self) -> Sequence[Tensor]:
        """The tensors among the arguments."""

    @property
    def outputs(self) -> Any:
        """Tensors, in the structure that the call returns."""

    @property
    def call_args(self) -> tuple[Any, ...]: ...
    @property
    def call_kwargs(self) -> Mapping[str, Any]: ...
