"""A small SSD with one grid, and its anchors."""

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

SHAPES = ((0.16, 0.21), (0.32, 0.37), (0.062, 0.079))  # width and height of a red cell, a white one, and a platelet
STRIDE = 8


def anchors_of(height: int, width: int) -> np.ndarray:
    """float32 [anchors, 4]: x and y of the centre, width and height, in fractions, in the order of the outputs."""
    rows, columns = np.mgrid[: height // STRIDE, : width // STRIDE].reshape(2, -1, 1).repeat(len(SHAPES), 2)
    centres = np.stack([(columns + 0.5) * STRIDE / width, (rows + 0.5) * STRIDE / height], -1)
    return np.concatenate([centres, np.tile(SHAPES, (len(rows), 1, 1))], -1).reshape(-1, 4).astype("float32")


def network(shape: tuple[int, ...]) -> tf_keras.Model:
    inputs = layers.Input(shape)
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    for filters in (16, 32, 48):
        x = block(x, filters, strides=2)
    near = block(x, 48)
    far = block(block(block(near, 64, strides=2), 64, apart=2), 64, apart=2)
    far = layers.UpSampling2D(interpolation="bilinear")(far)
    x = block(layers.Concatenate()([near, far]), 64)
    bias = tf_keras.initializers.Constant(-3)
    loc, cls = layers.Conv2D(4 * len(SHAPES), 1)(x), layers.Conv2D(3 * len(SHAPES), 1, bias_initializer=bias)(x)
    cls = layers.Activation("sigmoid", name="scores")(layers.Reshape((-1, 3))(cls))
    return tf_keras.Model(inputs, [layers.Reshape((-1, 4), name="offsets")(loc), cls])


def block(x: tf.Tensor, filters: int, strides: int = 1, apart: int = 1) -> tf.Tensor:
    x = layers.Conv2D(filters, 3, strides, padding="same", dilation_rate=apart, use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))
