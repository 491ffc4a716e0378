"""Small .tflite files of every kind of task, made as a build makes them, with data and the Keras model's figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Made:
    """A model with its files; ``splits`` are the data, whose test part ``figures`` are Keras' own figures on."""

    model: Any
    float32: Path
    int8: Path
    splits: dict[str, Any]


def make(folder: Path, model: Any, x: np.ndarray, y: Any) -> Made:
    """Files of ``model``; x [samples, ...] is split in three parts, as is every array in y (None: no labels)."""
    import tensorflow as tf

    from edgeprune.convert.converter import convert
    from edgeprune.models.compiled import output_names
    from edgeprune.quantize.plan import QuantizationPlan
    from edgeprune.tflite.interface import with_interface

    outputs = [[*own[:1], own[-1]] if len(own) > 1 else list(own) for own in output_names(model)]
    files = {}
    for mode in ("float32", "int8"):
        plan = QuantizationPlan(mode, "float", needs_samples=mode == "int8")
        content = convert(model, plan, lambda: ([row[None]] for row in x[:50]))
        files[mode] = folder / f"{mode}.tflite"
        files[mode].write_bytes(with_interface(content, model.input_names, outputs))
    parts = {"train": slice(0, 100), "validation": slice(100, 200), "test": slice(200, None)}
    splits = {
        name: x[part] if y is None else (x[part], tf.nest.map_structure(lambda values, part=part: values[part], y))
        for name, part in parts.items()
    }
    return Made(model, files["float32"], files["int8"], splits)


def inputs(*shape: int) -> np.ndarray:
    """400 samples."""
    return np.random.default_rng(0).normal(size=(400, *shape)).astype(np.float32)


def regression(folder: Path) -> Made:
    """Two steering angles, MAE."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    x = inputs(6)
    model = tf_keras.Sequential([tf_keras.layers.Dense(8, activation="relu"), tf_keras.layers.Dense(2)])
    model.build((None, 6))
    model.compile("sgd", "mse", metrics=["mae"])
    return make(folder, functional(model), x, np.stack([x.sum(1), x[:, 0] - x[:, 1]], 1))


def two_heads(folder: Path) -> Made:
    """A class (top-2) and an alarm (area under the precision-recall curve); not in alphabetical order."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers, x = tf_keras.layers, inputs(6)
    entry = layers.Input([6])
    tag = layers.Dense(4, activation="softmax", name="tag")(entry)
    alarm = layers.Dense(1, activation="sigmoid", name="alarm")(layers.Dense(8, activation="relu")(entry))
    model = tf_keras.Model(entry, [tag, alarm])
    model.compile(
        "sgd",
        ["sparse_categorical_crossentropy", "binary_crossentropy"],
        metrics=[
            [tf_keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")],
            [tf_keras.metrics.AUC(curve="PR", name="pr")],
        ],
    )
    return make(folder, model, x, (x[:, :4].argmax(1), (x[:, 4] > 0).astype(np.int64)))


def binary(folder: Path) -> Made:
    """Two classes as one sigmoid."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    x = inputs(6)
    model = tf_keras.Sequential([tf_keras.layers.Dense(1, activation="sigmoid")])
    model.build((None, 6))
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    return make(folder, functional(model), x, (x[:, 0] > 0).astype(np.int64))


def masks(folder: Path) -> Made:
    """A class for every pixel, of three."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    x = inputs(8, 8, 2)
    entry = tf_keras.layers.Input([8, 8, 2])
    model = tf_keras.Model(entry, tf_keras.layers.Conv2D(3, 3, padding="same", activation="softmax")(entry))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return make(folder, model, x, (x[..., 0] > 0).astype(np.int64) + (x[..., 1] > 0))


def functional(model: Any) -> Any:
    """A sequential model as a functional one, compiled alike."""
    import tf_keras

    made = tf_keras.Model(model.inputs, model.outputs)
    made.compile("sgd", model.loss, metrics=model.compiled_metrics._user_metrics)
    return made


KINDS = {"regression": regression, "two_heads": two_heads, "binary": binary, "masks": masks}
