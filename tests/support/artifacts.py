"""Fixtures: tiny .tflite files of every number format, converted once per session, and the real ones of ../shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).parents[2].parent / "shared"
FORMATS = ("float32", "float16", "dynamic", "int8", "int8-io", "sparse", "lstm")


@pytest.fixture(scope="session")
def keras_model():
    """A residual network with every kind of kernel that images need; 60 % of each large kernel is zero."""
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Add()([x, layers.Conv2D(8, 1)(y)])
    x = layers.Flatten()(layers.MaxPool2D()(x))
    x = layers.Dense(32, activation="relu")(x)
    model = tf_keras.Model(image, layers.Softmax()(layers.Dense(10)(x)))
    generator = np.random.default_rng(1)
    model.set_weights([_sparse(weights, generator) for weights in model.get_weights()])
    return model


def _sparse(weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if weights.ndim < 2:  # the converter leaves out biases of zeros, and stores equal ones once
        return generator.standard_normal(weights.shape)
    threshold = np.quantile(np.abs(weights), 0.6)
    return np.where(np.abs(weights) <= threshold, 0, weights)


@pytest.fixture(scope="session")
def artifacts(request, once) -> dict[str, Path]:
    """Number format to file: float32, float16, dynamic, int8, int8-io, sparse (float32), lstm (float32)."""
    folder = once("artifacts", lambda part: _write_artifacts(request.getfixturevalue("keras_model"), part))
    return {name: folder / f"{name}.tflite" for name in FORMATS}


def _write_artifacts(keras_model, folder: Path) -> None:
    import tensorflow as tf
    import tf_keras

    sequence = tf_keras.layers.Input((5, 6), batch_size=1)
    lstm = tf_keras.Model(sequence, tf_keras.layers.LSTM(12)(sequence))
    contents = {
        "float32": _convert(keras_model),
        "float16": _convert(keras_model, [tf.lite.Optimize.DEFAULT], types=[tf.float16]),
        "dynamic": _convert(keras_model, [tf.lite.Optimize.DEFAULT]),
        "int8": _convert(keras_model, [tf.lite.Optimize.DEFAULT], samples=True),
        "int8-io": _convert(keras_model, [tf.lite.Optimize.DEFAULT], samples=True, io=tf.int8),
        "sparse": _convert(keras_model, [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]),
        "lstm": _convert(lstm),
    }
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)


def _convert(model, optimizations=(), types=(), samples=False, io=None) -> bytes:
    import tensorflow as tf

    shape = (1, *model.input_shape[1:])
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    converter.optimizations = list(optimizations)
    converter.target_spec.supported_types = list(types)
    if samples:
        generator = np.random.default_rng(0)
        converter.representative_dataset = lambda: ([generator.random(shape, np.float32)] for _ in range(4))
    if io:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = io
    return converter.convert()


@pytest.fixture(scope="session")
def shared_models() -> list[Path]:
    """Real .tflite files beside the checkout."""
    found = sorted([*SHARED.glob("models/*.tflite"), *SHARED.glob("data/coral/models/*.tflite")])
    if not found:
        pytest.skip("../shared with its .tflite files is not here")
    return found


@pytest.fixture(scope="session")
def tiny_files(once) -> dict[str, Path]:
    """'float32' and 'int8' (with int8 inputs and outputs) of a small convolutional network for 8x8x3 images."""
    folder = once("tiny-files", _write_tiny_files)
    return {name: folder / f"{name}.tflite" for name in ("float32", "int8")}


def _write_tiny_files(folder: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    image = layers.Input((8, 8, 3), batch_size=1)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(x))
    model = tf_keras.Model(image, layers.Dense(4, activation="softmax")(x))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "float32.tflite").write_bytes(converter.convert())
    generator = np.random.default_rng(0)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([generator.random((1, 8, 8, 3), np.float32)] for _ in range(4))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())
