"""Tiny models, and a way to write them in every format that Keras 2 writes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from edgeprune._tensorflow import import_tf

SHARED = Path(__file__).parents[2].parent / "shared" / "models"
FORMATS = {"keras": "model.keras", "h5": "model.h5", "hdf5": "model.hdf5", "saved_model": "model"}


@pytest.fixture(scope="session")
def keras():
    """tf_keras, imported quietly."""
    import_tf()
    import tf_keras

    return tf_keras


@pytest.fixture(scope="session")
def keras3():
    """Keras 3, on TensorFlow."""
    from edgeprune.models.keras3_file import import_keras3

    return import_keras3()


@pytest.fixture(scope="session")
def calibrated():
    """``calibrated(model)``: random weights of a sensible size, so that deep models neither explode nor go silent."""

    def calibrated(model):
        random = np.random.default_rng(0)
        for weight in model.weights:
            name = getattr(weight, "path", weight.name)
            if not any(part in name for part in ("kernel", "moving", "mean", "variance", "count", "seed")):
                center = 1.0 if "gamma" in name else 0.0
                weight.assign(random.uniform(center - 0.2, center + 0.2, weight.shape))
        norms = [layer for layer in model._flatten_layers() if type(layer).__name__ == "BatchNormalization"]
        momenta = [(norm, norm.momentum, norm.trainable) for norm in norms]
        for norm in norms:
            norm.momentum, norm.trainable = 0.0, True
        takes_pixels = any(type(layer).__name__ == "Rescaling" for layer in model._flatten_layers())
        scale = 255.0 if takes_pixels else 1.0
        shapes = [(16, *(n or 32 for n in x.shape[1:])) for x in model.inputs]
        inputs = [random.uniform(0, scale, shape).astype("float32") for shape in shapes]
        model(inputs[0] if len(inputs) == 1 else inputs, training=True)
        for norm, momentum, trainable in momenta:
            norm.momentum, norm.trainable = momentum, trainable
            # Inputs unlike these few must not leave the range, layer by layer: more variance than was seen.
            norm.moving_variance.assign(norm.moving_variance + norm.moving_mean * norm.moving_mean + 0.1)
        return model

    return calibrated


@pytest.fixture(scope="session")
def cnn(keras):
    """A compiled functional CNN with a residual connection and an operation written as arithmetic; random weights."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs / 255.0)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Add(name="add")([x, layers.Conv2D(4, 1, name="side")(x)])
    x = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="relu")(x))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x), name="cnn")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return randomized(model)


@pytest.fixture(scope="session")
def write():
    """``write(model, folder, format) -> path``."""

    def write(model, folder: Path, form: str) -> Path:
        path = folder / FORMATS[form]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras calls its own h5 format legacy
            model.save(path)
        return path

    return write


@pytest.fixture(scope="session")
def resnet8_path():
    path = SHARED / "mlperf_tiny_resnet8.h5"
    if not path.exists():
        pytest.skip(f"needs {path.name} of the shared models")
    return path


def randomized(model):
    """Random weights everywhere, moving statistics included, so that no two layers could be mixed up unseen."""
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 1.0, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="session")
def outputs():
    """``outputs(model)``: its outputs for fixed random inputs, in inference mode, as a list of arrays."""
    import tensorflow as tf

    def outputs(model):
        random = np.random.default_rng(1)
        shapes = tf.nest.map_structure(lambda tensor: (2, *tensor.shape[1:]), model.input)
        inputs = [tf.constant(random.normal(size=shape), tf.float32) for shape in _flat(shapes)]
        found = model(tf.nest.pack_sequence_as(model.input, inputs), training=False)
        return [tensor.numpy() for tensor in tf.nest.flatten(found)]

    return outputs


def _flat(shapes):
    if isinstance(shapes, dict):
        return [shapes[key] for key in sorted(shapes)]
    return [shapes] if isinstance(shapes, tuple) else shapes
