"""The demo: handwritten digits, and a small CNN that learns them in seconds.

The digits are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI Machine
Learning Repository, 1998, doi:10.24432/C50P49), licensed CC BY 4.0; see README-digits.md beside this file.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.guard import data_errors
from edgeprune.data.labels import hold_out
from edgeprune.data.spec import InputSpec
from edgeprune.data.split import epoch_seed

if TYPE_CHECKING:
    import tf_keras

CLASS_NAMES = tuple("0123456789")
SPLIT_SEED = 20  # constant: the demo's splits never change
TEST_SAMPLES, VALIDATION_SAMPLES = 500, 150  # of 1,797
BATCH_SIZE = 32
LEARNING_RATES = (3e-3,) * 5 + (1e-3,) * 2 + (3e-4,) * 2  # one per epoch


def demo_splits() -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], bytes]:
    """The digits, split 1,147 / 150 / 500, stratified.

    Returns:
        ({"train", "validation", "test": (x, y)}, sha256 of the file); x: uint8 (samples, 16, 16, 1), 0..255;
        y: int64 (samples,), 0..9.
    """
    content = importlib.resources.files("edgeprune.data").joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(content)) as arrays:
        x, y = _enlarge(arrays["images"])[..., np.newaxis], arrays["labels"].astype(np.int64)
    rest, test = hold_out(len(y), y, TEST_SAMPLES, seed=SPLIT_SEED)
    train, validation = hold_out(len(rest), y[rest], VALIDATION_SAMPLES, seed=SPLIT_SEED)
    index = {"train": rest[train], "validation": rest[validation], "test": test}
    return {name: (x[i], y[i]) for name, i in index.items()}, hashlib.sha256(content).digest()


def _enlarge(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 8, 8), 0..16 → uint8 (n, 16, 16), 0..255: bilinear with pixel centres aligned, in whole numbers."""
    size = images.shape[1]
    weights = np.zeros((2 * size, size), np.int64)  # in quarters
    for row in range(2 * size):
        near = row // 2
        far = min(max(near + (1 if row % 2 else -1), 0), size - 1)
        weights[row, near] += 3
        weights[row, far] += 1
    sixteenths = weights @ images.astype(np.int64) @ weights.T
    return (np.minimum(sixteenths * 255 + 128, 255 * 256) // 256).astype(np.uint8)


def demo_model(seed: int = 0) -> tf_keras.Model:
    """An untrained CNN in the manner of MobileNet: a 3x3 stem, then depthwise and 1x1 convolutions, a residual add.

    It has the parts that matter to pruning, and it is what XNNPACK's sparse inference wants
    (:mod:`edgeprune.hardware.xnnpack.sparse_inference`): hence the three equal channels, because that takes only colour
    images.

    Input float32 (16, 16, 1), pixels 0..255; output softmax over 10 classes. About 22,000 parameters.

    Args:
        seed: decides the initial weights, whatever TensorFlow's global seed is.
    """
    import tf_keras

    layers = tf_keras.layers
    seeds = iter(range(seed * 100, seed * 100 + 100))

    def he() -> tf_keras.initializers.Initializer:
        return tf_keras.initializers.HeNormal(seed=next(seeds))

    def norm(x: tf_keras.KerasTensor, name: str) -> tf_keras.KerasTensor:
        return layers.BatchNormalization(name=f"{name}_bn", momentum=0.9)(x)

    def conv(x: tf_keras.KerasTensor, filters: int, kernel: int, name: str, strides: int = 1) -> tf_keras.KerasTensor:
        x = layers.Conv2D(
            filters, kernel, strides, "same", use_bias=False, kernel_initializer=he(), name=f"{name}_conv"
        )(x)
        return norm(x, name)

    def block(x: tf_keras.KerasTensor, filters: int, name: str, strides: int = 1) -> tf_keras.KerasTensor:
        depthwise = layers.DepthwiseConv2D(
            3, strides, "same", use_bias=False, depthwise_initializer=he(), name=f"{name}_dwconv"
        )
        x = layers.ReLU(name=f"{name}_dwrelu")(norm(depthwise(x), f"{name}_dw"))
        return conv(x, filters, 1, name)

    inputs = layers.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(inputs)
    x = layers.Concatenate(name="colours")([x, x, x])
    x = layers.ReLU(name="stem_relu")(conv(x, 24, 3, "stem", strides=2))
    x = layers.ReLU(name="wide_relu")(block(x, 48, "wide"))
    x = layers.Add(name="residual_add")([x, block(x, 48, "residual")])
    x = layers.ReLU(name="residual_relu")(x)
    x = layers.ReLU(name="down_relu")(block(x, 96, "down", strides=2))
    x = layers.ReLU(name="head_relu")(block(x, 96, "head"))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    glorot = tf_keras.initializers.GlorotUniform(seed=next(seeds))
    outputs = layers.Dense(10, "softmax", kernel_initializer=glorot, name="classes")(x)
    return tf_keras.Model(inputs, outputs, name="digits")


def train_demo_model(seed: int = 0, *, deterministic: bool = False) -> tf_keras.Model:
    """Train :func:`demo_model` on the train part of the digits: 9 epochs, under 20 s on 2 cores.

    Args:
        seed: decides the initial weights and the order of the samples.
        deterministic: ask TensorFlow for operations that give the same bytes each time. This holds for the whole
            process from then on.

    Returns:
        The model, compiled (Adam, sparse categorical crossentropy, accuracy); above 96 % on the validation split.
    """
    import tensorflow as tf

    from edgeprune.data.load import load_data
    from edgeprune.recipe.config import DataConfig

    if deterministic:
        tf.config.experimental.enable_op_determinism()
    model = demo_model(seed)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    train = load_data("demo", DataConfig(), InputSpec.of(model), seed=seed).train
    for epoch, learning_rate in enumerate(LEARNING_RATES):
        model.optimizer.learning_rate.assign(learning_rate)
        with data_errors():
            model.fit(train.batches(BATCH_SIZE, shuffle_seed=epoch_seed(seed, epoch)), verbose=0)
    return model
