"""Random changes of training images. Every draw is a function of (seed, number of the batch), so training resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.errors import RecipeError
from edgeprune.recipe import AugmentConfig

if TYPE_CHECKING:
    import tensorflow as tf


def augment(batches: tf.data.Dataset, config: AugmentConfig, seed: int) -> tf.data.Dataset:
    """Flip and shift a batch of images [batch, height, width, channels], each image by itself.

    Raises:
        RecipeError: the samples are no images.
    """
    import tensorflow as tf

    spec = batches.element_spec[0]
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank != 4:
        raise RecipeError("[augment] is for images, and the samples are none.", fix="leave the section out.")

    def change(number: Any, sample: Any) -> Any:
        x, y = sample
        where = tf.stack([tf.cast(seed % 2**31, tf.int64), number])
        if config.flip:
            x = _flip(x, where)
        if config.shift:
            x = _shift(x, where + 1_000_003, config.shift)
        return x, y

    return batches.enumerate().map(change, num_parallel_calls=1).prefetch(2)


def _flip(x: Any, seed: Any) -> Any:
    """Mirror half of the images left to right."""
    import tensorflow as tf

    chosen = tf.random.stateless_uniform([tf.shape(x)[0], 1, 1, 1], seed) < 0.5
    return tf.where(chosen, x[:, :, ::-1], x)


def _shift(x: Any, seed: Any, most: int) -> Any:
    """Move each image by up to ``most`` pixels each way; the border repeats the edge's mirror image."""
    import tensorflow as tf

    padded = tf.pad(x, [[0, 0], [most, most], [most, most], [0, 0]], "REFLECT")
    moves = tf.random.stateless_uniform([2, tf.shape(x)[0], 1], seed, 0, 2 * most + 1, tf.int32)
    rows = moves[0] + tf.range(tf.shape(x)[1])[None]
    columns = moves[1] + tf.range(tf.shape(x)[2])[None]
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
