"""Make layers and operations of a tf_keras graph, named after the layer or operation that they stand for."""

from __future__ import annotations

import functools
from typing import Any

from edgeprune.models.graph import is_symbolic
from edgeprune.models.types import Structure, Tensor, Value
from edgeprune.models.walk import Names


class Emitter:
    """Makes layers and calls them. Their names begin with the name of the operation that they stand for."""

    def __init__(self, names: Names, name: str):
        self._names, self._name = names, name
        self._first = True

    def _next_name(self, suffix: str) -> str:
        if suffix:
            return self._names.unique(f"{self._name}_{suffix}")
        # The operation's own name was set aside for it.
        first, self._first = self._first, False
        return self._name if first else self._names.unique(self._name)

    def layer(self, class_name: str, inputs: Structure, suffix: str = "", **config: Any) -> Tensor:
        """``tf_keras.layers.<class_name>(**config)(inputs)``."""
        import tf_keras

        return getattr(tf_keras.layers, class_name)(name=self._next_name(suffix), **config)(inputs)

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

        parts = tuple(map(_slice_to_dict, key)) if isinstance(key, tuple) else _slice_to_dict(key)
        return SlicingOpLambda(tf.__operators__.getitem, name=self._next_name(""))(tensor, parts)

    def without_mask(self, value: Value) -> Value:
        """``value`` without its mask: operations of Keras 3 drop masks, the layers that stand for them pass them on."""
        if not is_symbolic(value) or getattr(value, "_keras_mask", None) is None:
            return value
        return self.op("identity", value, suffix="unmasked")

    def cast(self, value: Value, dtype: str) -> Value:
        """``value`` as ``dtype``; constants are left to TensorFlow."""
        if not is_symbolic(value) or value.dtype.name == dtype:
            return value
        return self.op("cast", value, dtype, suffix="cast")
