"""A layer that zeroes channels: the oracle needs it where nothing but a sum consumes them."""

from __future__ import annotations

from typing import Any

import tf_keras


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

    def call(self, inputs: Any) -> Any:
        import tensorflow as tf

        shape = [1] * len(inputs.shape)
        shape[self.position + 1] = len(self.keep)
        return inputs * tf.reshape(tf.constant(self.keep, inputs.dtype), shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keep": self.keep, "position": self.position}
