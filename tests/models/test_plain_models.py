"""What boards do not compute is rebuilt when a model is loaded: precisions, channels first, shapes of noise."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.prune.inspection import inspect_model


@pytest.fixture
def policy(keras):
    """``policy(name)`` until the end of the test."""
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy("float32")


def _mixed(keras):
    layers = keras.layers
    inputs = keras.Input((6, 5))
    x = layers.Bidirectional(layers.SimpleRNN(4, return_sequences=True))(inputs)
    x = layers.BatchNormalization()(layers.TimeDistributed(layers.Dense(3, activation="relu"))(x))
    body = keras.Sequential([layers.Input((6, 3)), layers.Conv1D(4, 3, name="conv")], name="body")
    x = layers.GlobalAveragePooling1D()(body(x) * 2.0)
    return keras.Model(inputs, layers.Dense(2, dtype="float32", name="head")(x))


PRECISIONS = {"mixed_float16": 3e-2, "mixed_bfloat16": 1e-1, "float16": 3e-2, "float64": 1e-5}


@pytest.mark.parametrize("name", representatives(PRECISIONS, "mixed_float16", "float64"))
def test_every_precision_becomes_float32(name, keras, policy, write, tmp_path, caplog):
    """A model of another precision has float32 weights and inputs, the same outputs up to it, and one line says so."""
    policy(name)
    model = _mixed(keras)
    sample = np.random.default_rng(0).normal(size=(3, 6, 5))
    expected = np.asarray(model(sample, training=False), "float32")
    path = write(model, tmp_path, "h5")
    policy("float32")
    loaded = load_model(path)
    assert {part.dtype.name for part in [*loaded.weights, *loaded.inputs, *loaded.outputs]} == {"float32"}
    assert loaded.output_names == ["head"]
    found = loaded(sample.astype("float32")).numpy()
    assert np.abs(found - expected).max() <= PRECISIONS[name] * np.abs(expected).max()
    assert caplog.text.count(f"computes in {name}") == 1


def test_casts_and_constants_in_half_precision(keras, caplog):
    """Operations that cast to half precision, and their constants, are in float32."""
    import tensorflow as tf

    inputs = keras.Input((3,), dtype="float64")
    x = tf.cast(inputs, tf.float16) * tf.constant([1.0, 2.0, 3.0], tf.float16) + np.float16(2)
    loaded = load_model(keras.Model(inputs, tf.cast(x, "float32")))
    assert loaded.inputs[0].dtype == "float32"
    np.testing.assert_allclose(loaded(np.ones((1, 3), "float32")), [[3.0, 4.0, 5.0]])
    assert "float16" in caplog.text


def test_a_layer_that_insists_on_half_precision_is_named(keras):
    """A layer whose code casts to half precision is refused by name."""
    import tensorflow as tf

    class Halving(keras.layers.Layer):
        def call(self, x):
            return tf.cast(x, tf.float16)

    inputs = keras.Input((3,))
    with pytest.raises(ModelError, match=r"'halve' \(Halving\) computes in float16"):
        load_model(keras.Model(inputs, keras.layers.Dense(2)(Halving(name="halve")(inputs))))


FIRST = {"data_format": "channels_first"}


def _classifier(keras):
    layers = keras.layers
    inputs = keras.Input((3, 10, 8), name="image")
    x = layers.Conv2D(6, 3, strides=2, use_bias=False, **FIRST)(layers.ZeroPadding2D(1, **FIRST)(inputs))
    x = layers.PReLU(shared_axes=[2, 3])(layers.BatchNormalization(axis=1)(x))
    y = layers.Conv2D(6, 1, activation="relu", **FIRST)(layers.DepthwiseConv2D(3, padding="same", **FIRST)(x))
    x = layers.Concatenate(axis=1)([layers.Add()([x, y]), layers.MaxPooling2D(3, 1, padding="same", **FIRST)(x)])
    x = layers.SeparableConv2D(4, 3, padding="same", **FIRST)(layers.SpatialDropout2D(0.1, **FIRST)(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(**FIRST)(x)))


def _decoder(keras):
    import tensorflow as tf

    layers = keras.layers
    inputs = keras.Input((2, 6, 5))
    x = layers.Conv2DTranspose(3, 3, strides=2, **FIRST)(layers.UpSampling2D(2, **FIRST)(inputs))
    x = layers.LayerNormalization(axis=1)(tf.nn.relu(x * 2.0 - 0.5))
    image = layers.Conv2D(2, 1, activation="softmax", name="image", **FIRST)(layers.Cropping2D(1, **FIRST)(x))
    return keras.Model(
        inputs, [image, layers.GlobalMaxPooling2D(name="most", **FIRST)(x), layers.Conv2D(1, 1, name="map", **FIRST)(x)]
    )


def _flat(keras):
    layers = keras.layers
    inputs = keras.Input((3, 6, 5))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(layers.Conv2D(4, 3, **FIRST)(inputs))))


def _signal(keras):
    layers = keras.layers
    body = keras.Sequential([layers.Input((4, 12)), layers.Conv1D(5, 3, **FIRST), layers.BatchNormalization(axis=1)])
    inputs = keras.Input((4, 12))
    x = layers.Permute((2, 1))(layers.AveragePooling1D(2, **FIRST)(body(inputs)))
    return keras.Model(inputs, layers.SimpleRNN(3, name="head")(x))


def _film(keras):
    layers = keras.layers
    inputs = keras.Input((3, 2, 6, 6))
    x = layers.TimeDistributed(layers.Conv2D(3, 3, **FIRST))(inputs)
    x = layers.ConvLSTM2D(2, 3, **FIRST)(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="head", **FIRST)(x))


def _volume(keras):
    layers = keras.layers
    inputs = keras.Input((2, 5, 6, 4))
    x = layers.AveragePooling3D(2, **FIRST)(layers.Conv3D(3, 2, **FIRST)(inputs))
    return keras.Model(inputs, layers.Flatten(name="head", **FIRST)(x))


@pytest.mark.parametrize(
    "build",
    representatives([_classifier, _decoder, _flat, _signal, _film, _volume], _classifier, _decoder, _flat, _volume),
)
def test_channels_first_become_last(build, keras, caplog):
    """A model with the channels first computes, with them last, what XLA computes for it: same inputs, same outputs."""
    import tensorflow as tf

    model = build(keras)
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 0.6, weight.shape) for weight in model.get_weights()])
    sample = random.normal(size=(2, *model.input_shape[1:])).astype("float32")
    expected = tf.nest.flatten(tf.function(model, jit_compile=True)(sample))
    loaded = load_model(model)
    assert loaded.output_names == model.output_names
    assert loaded.input_shape == model.input_shape
    for found, wanted in zip(tf.nest.flatten(loaded(sample)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert not any(getattr(layer, "data_format", None) == "channels_first" for layer in loaded._flatten_layers())
    assert caplog.text.count("channels last") == 1
    inspect_model(loaded)


def test_layers_that_cannot_be_turned_are_named(keras):
    """A layer whose weights depend on the format is refused by name."""
    inputs = keras.Input((3, 8, 8))
    local = keras.layers.LocallyConnected2D(2, 3, name="local", implementation=2, **FIRST)
    with pytest.raises(ModelError, match="'local'"):
        load_model(keras.Model(inputs, local(inputs)))


@pytest.mark.parametrize("shape", representatives([1, 3, 0.3, [1, 1, 1, 1]], 3, [1, 1, 1, 1]))
def test_noise_shapes_that_are_none_are_left_out(shape, keras, write, tmp_path, caplog):
    """Dropout whose noise shape is no shape of its input is inspected, and trains, without it."""
    layers = keras.layers
    noisy = layers.Dropout(0.2, noise_shape=shape, name="noisy")
    model = keras.Sequential([layers.Input((6,)), layers.Dense(8), noisy, layers.Dense(4)])
    loaded = load_model(write(model, tmp_path, "h5"))
    inspect_model(loaded)
    loaded.compile("sgd", "mse")
    loaded.train_on_batch(np.ones((2, 6)), np.ones((2, 4)))
    assert "'noisy' has noise_shape" in caplog.text


@pytest.mark.parametrize("shape", [(1,), (None, 1), [None, 8], (8,)])
def test_noise_shapes_that_keras_trains_with_stay(shape, keras):
    """A noise shape that broadcasts to the input stays, and a named number of channels keeps them from being pruned."""
    layers = keras.layers
    inputs = keras.Input((6,))
    x = layers.Dropout(0.2, noise_shape=shape, name="noisy")(layers.Dense(8)(inputs))
    loaded = load_model(keras.Model(inputs, layers.Dense(4)(x)))
    assert list(loaded.get_layer("noisy").noise_shape) == list(shape)
    (group,) = [group for group in inspect_model(loaded)["groups"] if group["size"] == 8]
    assert (group["prunable"] == 0) == (8 in shape)


@pytest.mark.parametrize("kind", ["Dense", "Flatten", "Activation", "Dropout", "none"])
def test_models_of_one_layer(kind, keras, write, tmp_path):
    """A model of one layer, or of none, loads and is inspected."""
    arguments = {"Dense": (2,), "Flatten": (), "Activation": ("relu",), "Dropout": (0.3,)}
    inputs = keras.Input((4, 3))
    output = getattr(keras.layers, kind)(*arguments[kind])(inputs) if kind != "none" else inputs
    inspect_model(load_model(write(keras.Model(inputs, output), tmp_path, "h5")))
