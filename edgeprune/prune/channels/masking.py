"""Zeroing channels without changing a model's shape: a layer for it, and a model whose zeroed channels can be changed.

The oracle needs the layer where nothing but a sum consumes channels; sensitivity analysis changes the channels between
two passes of one traced model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tf_keras

from edgeprune.models.types import Variable

if TYPE_CHECKING:
    import tensorflow as tf

    from edgeprune.prune.channels.graph import Graph


@tf_keras.utils.register_keras_serializable("edgeprune")
class ChannelMask(tf_keras.layers.Layer):
    """Multiply by 0 or 1 along one axis.

    Args:
        keep: one truth value per position along the axis.
        position: the axis, without the batch.
    """

    def __init__(self, keep: list[bool], position: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.keep, self.position = keep, position

    def build(self, input_shape: Sequence[int | None]) -> None:
        start = tf_keras.initializers.Constant(np.asarray(self.keep, np.float32))
        self.factors = self.add_weight("factors", [len(self.keep)], initializer=start, trainable=False)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        shape = [1] * len(inputs.shape)
        shape[self.position + 1] = len(self.keep)
        return inputs * tf.cast(tf.reshape(self.factors, shape), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keep": self.keep, "position": self.position}


class Switchboard:
    """A copy of a model in which any units can be zeroed where they are consumed, and restored, by assignment.

    The model is built once; functions traced over it stay valid.

    Attributes:
        model: the copy; everything is kept at first.
    """

    def __init__(self, graph: Graph):
        from edgeprune.prune.channels.surgery import mask, mask_name

        self._kept = np.ones(len(graph.units), bool)
        self.model = mask(graph, self._kept)
        layers = {layer.name: layer for layer in self.model.layers}
        # (variable, its value with everything kept, [(axis, units along it)])
        self._places: list[tuple[Variable, np.ndarray, list[tuple[int, np.ndarray]]]] = []
        for name, plan in graph.layers.items():
            axes: dict[int, list[tuple[int, np.ndarray]]] = {}
            for binding in plan.bindings:
                if binding.role in ("consumed", "matched"):
                    axes.setdefault(binding.weight, []).append((binding.axis, binding.vector))
            weights = layers[name].weights
            self._places += [(weights[number], weights[number].numpy(), places) for number, places in axes.items()]
        for (name, number), rows in graph.masks.items():
            for position, axis, vector in rows:
                variable = layers[mask_name(name, number, position, axis)].factors
                self._places.append((variable, np.ones(len(vector), np.float32), [(0, vector)]))

    def set(self, keep: np.ndarray) -> None:
        """Zero the units that are not in ``keep`` (bool [units]), and only those; only what changes is assigned."""
        changed = keep != self._kept
        for variable, value, axes in self._places:
            if any(changed[vector].any() for _, vector in axes):
                for axis, vector in axes:
                    shape = [1] * value.ndim
                    shape[axis] = -1
                    value = value * keep[vector].reshape(shape)
                variable.assign(value)
        self._kept = keep.copy()
