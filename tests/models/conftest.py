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
