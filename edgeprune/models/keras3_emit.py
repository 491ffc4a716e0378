"""Make layers and operations of a tf_keras graph, named after the layer or operation that they stand for."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from edgeprune.models.graph import is_symbolic
from edgeprune.models.types import Layer, Structure, Tensor, Value
from edgeprune.models.walk import UniqueNames


class Emitter:
    """Makes layers and calls them. Their names begin with the name of the operation that they stand for."""

    def __init__(self, names: UniqueNames, name: str):
        self._names, self._name = names, name
        self._first = True

    def _next_name(self, suffix: str) -> str:
        if suffix:
            return self._names.unique(f"{self._name}_{suffix}")
        # The operation's own name was set aside for it.
        first, self._first = self._first, False
        return self._name if first else self._names.unique(self._name)

    def inner(self, suffix: str) -> Emitter:
        """An emitter for one step of the operation; without a suffix, for the operation itself."""
        return Emitter(self._names, self._names.unique(f"{self._name}_{suffix}")) if suffix else self

    def layer(self, class_name: str, inputs: Structure, suffix: str = "", **config: Any) -> Tensor:
        """``tf_keras.layers.<class_name>(**config)(inputs)``."""
        return self.make(class_name, suffix, **config)(inputs)

    def make(self, class_name: str, suffix: str = "", **config: Any) -> Layer:
        """``tf_keras.layers.<class_name>(**config)``."""
        import tf_keras

        return getattr(tf_keras.layers, class_name)(name=self._next_name(suffix), **config)

    def op(self, symbol: str, *args: Structure, suffix: str = "", **kwargs: Structure) -> Structure:
        """``tf.<symbol>(*args, **kwargs)``."""
        import tensorflow as tf
        from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

        function = functools.reduce(getattr, symbol.split("."), tf)
        return TFOpLambda(function, name=self._next_name(suffix))(*args, **kwargs)

    def getitem(self, tensor: Tensor, key: Structure) -> Tensor:
        """``tensor[key]``."""
        import tensorflow as tf
        from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda, _slice_to_dict

        # Out of a file, a tuple comes as a list.
        parts = tuple(map(_slice_to_dict, key)) if isinstance(key, tuple | list) else _slice_to_dict(key)
        return SlicingOpLambda(tf.__operators__.getitem, name=self._next_name(""))(tensor, parts)

    def without_mask(self, value: Value) -> Value:
        """``value`` without its mask: operations of Keras 3 drop masks, the layers that stand for them pass them on."""
        if not is_symbolic(value) or getattr(value, "_keras_mask", None) is None:
            return value
        return self.op("identity", value, suffix="unmasked")

    def cast(self, value: Value, dtype: str) -> Value:
        """``value`` as ``dtype``: TensorFlow takes the type of a constant that stands first for that of the others."""
        if not is_symbolic(value):
            return _constant(value, dtype)
        if value.dtype.name == dtype:
            return value
        return self.op("cast", value, dtype, suffix="cast")


def _constant(value: Value, dtype: str) -> Value:
    """A number or an array of numbers as ``dtype``, where it is of another kind; anything else as it is."""
    import tensorflow as tf

    if not isinstance(value, bool | int | float | np.generic | np.ndarray | tf.Tensor):
        return value
    given, wanted = np.asarray(value), tf.as_dtype(dtype).as_numpy_dtype
    return value if given.dtype == wanted else given.astype(wanted).tolist() if not given.ndim else given.astype(wanted)
