"""Names that Keras takes and TensorFlow does not take for the scope of a layer."""

import logging

import numpy as np
import pytest

from edgeprune.models import load_model
from edgeprune.models.naming import layer_of

NAMES = ["größe", "my layer", "a:b", "_x", "%", 'say "x"', "-x"]


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_keras_3_are_renamed_where_they_must_be(name, keras3, caplog):
    """The model computes in a graph under names that TensorFlow takes, and one line says which names changed."""
    layers = keras3.layers
    inputs = keras3.Input((4,), name=name)
    inner = keras3.Sequential([keras3.Input((4,)), layers.Dense(3, name=name)], name=name + "2")
    model = keras3.Model(inputs, layers.Dense(2, name=name + "3")(inner(inputs)), name=name)
    with caplog.at_level(logging.WARNING):
        loaded = load_model(model)
    assert loaded.input_names == [name]
    assert f"{name + '3'!r} is now {loaded.output_names[0]!r}" in caplog.text
    x = np.ones((2, 4), "float32")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model(x), rtol=1e-5)


@pytest.mark.parametrize("name", ["in", "class", "self", "training", "a.b", "1x", "x" * 300, "a>b"])
def test_other_names_stay(name, keras3, caplog):
    """Keywords of Python and long names are names like others."""
    inputs = keras3.Input((4,))
    model = keras3.Model(inputs, keras3.layers.Dense(2, name=name)(inputs), name="model_" + name)
    loaded = load_model(model)
    assert (loaded.output_names, loaded.name) == ([name], "model_" + name)
    assert "renamed" not in caplog.text


def test_a_layer_of_tf_keras_with_a_backslash_runs_in_graphs_and_keeps_its_name(tmp_path):
    """tf_keras takes the name, and fails when it runs the layer in a graph, or where data are prepared by it."""
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.Input((4, 3), name="in")
    tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="a\\b")(inputs)).save(tmp_path / "model.h5")
    model = load_model(tmp_path / "model.h5")
    assert model.output_names == ["a\\b"]
    x = np.ones((2, 4, 3), "float32")
    made = model.predict(x, verbose=0)
    np.testing.assert_allclose(made, model(x), rtol=1e-5)
    (mapped,) = tf.data.Dataset.from_tensors(x).map(lambda batch: model(batch, training=False))
    np.testing.assert_allclose(made, mapped, rtol=1e-5)
    assert layer_of("model/a_b/Tensordot/MatMul", model) == "a\\b"


@pytest.mark.parametrize("name", ["my model", "größe", "_x"])
def test_a_model_whose_name_is_no_scope_is_renamed(name, keras, caplog):
    """tf_keras makes such a model, and fails when it runs it in a graph."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name=name)
    loaded = load_model(model)
    assert f"{name!r} is now {loaded.name!r}" in caplog.text
    assert loaded.predict(np.ones((1, 4), "float32"), verbose=0).shape == (1, 2)
    assert load_model(loaded) is loaded
