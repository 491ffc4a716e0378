"""What edgeprune uses of layers, calls and tensors, for annotations: neither tf_keras nor Keras 3 has types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tf_keras

# A model of either Keras, or the functional graph behind one.
AnyModel: TypeAlias = "tf_keras.Model | keras.Model"
# One tensor, or one constant (a number, an array, a string) in its place.
Value = Any
# Nested lists, tuples and dicts of values; a single value is one, too.
Structure = Any
# The arguments of one call by name; each is a structure.
Arguments = dict[str, Any]
# The configuration of a layer, as its get_config gives it: arguments of its constructor by name, of any type.
Config = dict[str, Any]
# A part of a Keras configuration: JSON in a file; in memory, objects may stand in it.
ConfigValue = Any
# The user's classes and functions, by the names that model files have for them.
CustomObjects = dict[str, Any]


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
    def node(self) -> Node:
        """The call that makes it."""

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
    def ref(self) -> Any: ...
    def __array__(self, *args: Any) -> np.ndarray: ...


class Layer(Protocol):
    """A layer of tf_keras. What only some classes have (``kernel``, ``activation``, ``groups``) is not typed."""

    name: str
    trainable: bool
    _trainable: bool

    @property
    def weights(self) -> Sequence[Variable]: ...
    @property
    def trainable_weights(self) -> Sequence[Variable]: ...
    def get_weights(self) -> list[np.ndarray]: ...
    def set_weights(self, weights: Sequence[np.ndarray]) -> None: ...
    def get_config(self) -> Config: ...
    @classmethod
    def from_config(cls, config: Config) -> Any: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...
    def __hash__(self) -> int: ...


# What a call calls: a layer of tf_keras, or a layer or operation of Keras 3 (whose layers are operations).
Operation: TypeAlias = "Layer | keras.Operation"


class Node(Protocol):
    """One call of a layer in a functional tf_keras model."""

    @property
    def layer(self) -> Layer: ...
    @property
    def is_input(self) -> bool: ...
    @property
    def keras_inputs(self) -> Sequence[Tensor]:
        """The tensors among the arguments."""

    @property
    def outputs(self) -> Structure:
        """Tensors, in the structure that the call returns."""

    @property
    def call_args(self) -> tuple[Any, ...]: ...
    @property
    def call_kwargs(self) -> Mapping[str, Any]: ...
