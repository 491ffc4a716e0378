"""Loading models: every format, every kind of model."""

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.compiled import Compiled

ALL = ["keras", "h5", "hdf5", "saved_model"]


def _sequential(keras):
    layers = keras.layers
    return keras.Sequential(
        [layers.Conv2D(4, 3, input_shape=(8, 8, 3)), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)]
    )


def _nested(keras):
    body = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()], name="body")
    body.build((None, None, None, 3))
    body.compile(loss=lambda truth, prediction: prediction)
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(body(inputs)))


def _recurrent(keras):
    layers = keras.layers
    inputs = keras.Input((6, 5))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(inputs)
    x = layers.TimeDistributed(layers.Dense(3))(layers.GRU(3, return_sequences=True)(x))
    return keras.Model(inputs, layers.SimpleRNN(2)(x))


def _attention(keras):
    layers = keras.layers
    inputs = keras.Input((6, 8))
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(inputs, inputs) + inputs)
    return keras.Model(inputs, layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d")(x))


def _arithmetic(keras):
    import tensorflow as tf

    inputs = keras.Input((8, 8, 3))
    x = tf.image.resize(tf.pad(inputs / 2.0 - 1.0, [[0, 0], [1, 1], [1, 1], [0, 0]]), (6, 6))
    x = tf.reduce_mean(tf.concat([tf.nn.relu(x), tf.abs(x)], -1), [1, 2])
    x = tf.squeeze(tf.transpose(tf.expand_dims(x, 1), [0, 2, 1]), -1)
    parts = tf.split(x, 2, axis=1)
    return keras.Model(
        inputs, [x[:, :2], parts[0] * parts[1], tf.clip_by_value(x, 0.0, 1.0), tf.reshape(x, (-1, 3, 2))]
    )


def _dictionaries(keras):
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((3,), name="b")}
    pair = [inputs["a"], inputs["b"]]
    return keras.Model(
        inputs, {"sum": keras.layers.Add(name="sum")(pair), "dot": keras.layers.Dot(1, name="dot")(pair)}
    )


def _preprocessing(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Rescaling(1 / 255.0, input_shape=(8, 8, 3)),
            layers.RandomFlip(),
            layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
            layers.SeparableConv2D(4, 3, depthwise_regularizer="l2"),
            layers.DepthwiseConv2D(3),
            layers.Conv2DTranspose(2, 3, kernel_constraint="max_norm"),
            layers.PReLU(),
            layers.Conv2D(4, 1, groups=2, activation="swish"),
        ]
    )


BUILDERS = [_sequential, _nested, _recurrent, _attention, _arithmetic, _dictionaries, _preprocessing]


@pytest.mark.parametrize("form", ALL)
def test_a_functional_model_comes_back_exactly_from_every_format(form, cnn, keras, write, outputs, tmp_path):
    """Names, outputs, loss and metrics of a functional model are the same after loading, in each format."""
    loaded = load_model(write(cnn, tmp_path, form))
    assert type(loaded) is type(cnn)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in cnn.layers]
    assert np.array_equal(outputs(loaded)[0], outputs(cnn)[0])
    assert loaded.loss == "sparse_categorical_crossentropy"
    metrics = loaded.evaluate(np.zeros((4, 8, 8, 3)), np.array([0, 1, 2, 0]), verbose=0, return_dict=True)
    assert 0 < metrics["accuracy"] < 1


# A format writes what it is given: one kind of layer goes through all of them, the others through the newest.
IN_EVERY_FORMAT = {_nested}
CASES = [
    pytest.param(
        *(build, form),
        id=f"{build.__name__.strip('_')}-{form}",
        marks=[] if form == "keras" or build in IN_EVERY_FORMAT else [pytest.mark.slow],
    )
    for build in BUILDERS
    for form in ("keras", "h5", "saved_model")
]


@pytest.mark.parametrize(("build", "form"), CASES)
def test_every_kind_of_layer_comes_back_exactly(build, form, keras, write, outputs, tmp_path):
    """Models of all layer families compute exactly the same after loading, in the formats that differ."""
    model = build(keras)
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 1.0, weight.shape) for weight in model.get_weights()])
    loaded = load_model(write(model, tmp_path, form))
    assert type(loaded).__name__ == "Functional"
    for found, expected in zip(outputs(loaded), outputs(model), strict=True):
        assert np.array_equal(found, expected)


def test_a_sequential_model_becomes_functional_with_the_same_layer_objects(keras, outputs):
    """A Sequential model and its functional form share layers and weights, and have the same losses and metrics."""
    sequential = _sequential(keras)
    sequential.compile("adam", "mse", metrics=["mae"])
    functional = load_model(sequential)
    assert type(functional) is not type(sequential)
    assert functional.name == sequential.name
    assert functional.layers[1:] == sequential.layers
    assert functional.loss == "mse"
    assert Compiled.of_model(functional).outputs == Compiled.of_model(sequential).outputs
    assert np.array_equal(outputs(functional)[0], outputs(sequential)[0])


def test_a_functional_model_object_is_returned_as_it_is(cnn):
    """Loading a functional tf_keras object does not copy it."""
    assert load_model(cnn) is cnn


def test_a_subclass_with_inputs_and_outputs_becomes_functional(keras, outputs):
    """A class that only customises training loads as a plain functional model of the same layers."""

    class Trainer(keras.Model):
        pass

    inputs = keras.Input((3,))
    model = Trainer(inputs, keras.layers.Dense(2)(inputs))
    loaded = load_model(model)
    assert type(loaded) is not Trainer
    assert loaded.layers[1] is model.layers[1]


class _Code:
    """Makes subclassed models."""

    @staticmethod
    def build(keras, decide=False):
        class Code(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(2)

            def call(self, inputs):
                found = self.dense(inputs)
                return -found if decide and float(found[0, 0]) > 0 else found

        model = Code()
        model(np.ones((1, 3), "float32"))
        return model


def test_subclassed_models_that_only_call_layers_become_functional(keras, outputs):
    """A subclassed model is traced to a functional one of the same layers, and computes the same."""
    model = _Code.build(keras)
    loaded = load_model(model)
    assert type(loaded).__name__ == "Functional"
    assert loaded.layers[1] is model.dense
    sample = np.ones((2, 3), "float32")
    assert np.array_equal(loaded(sample), model(sample))


def test_subclassed_models_are_refused_with_what_to_do(keras, tmp_path):
    """A subclassed model that decides by values, or in a SavedModel, is refused by class name with the way out."""
    model = _Code.build(keras, decide=True)
    _Code.build(keras).save(tmp_path / "model")
    for source in (model, tmp_path / "model"):
        with pytest.raises(ModelError, match=r"subclassed model \(Code\)") as caught:
            load_model(source)
        assert "tf_keras.Model(inputs, outputs)" in caught.value.fix


def test_an_unbuilt_sequential_model_is_refused(keras):
    """A Sequential model without an input shape is refused with how to give it one."""
    with pytest.raises(ModelError, match="does not know the shape") as caught:
        load_model(keras.Sequential([keras.layers.Dense(2)]))
    assert "model.build" in caught.value.fix


@pytest.mark.parametrize("source", [3, None, [1, 2]])
def test_things_that_are_no_models_are_refused(source):
    """An object that is no model is refused by its type."""
    with pytest.raises(ModelError, match=f"A {type(source).__name__} is not a model"):
        load_model(source)


def test_loading_the_shared_resnet8(resnet8_path, keras, outputs):
    """MLPerf Tiny's ResNet8, written by Keras 2.2 in 2020, loads as tf_keras itself loads it."""
    expected = keras.models.load_model(resnet8_path, compile=False)
    loaded = load_model(resnet8_path)
    assert np.array_equal(outputs(loaded)[0], outputs(expected)[0])
    assert loaded.loss == "categorical_crossentropy"


@pytest.mark.parametrize("ending", ["h5", "3.keras"])
def test_defaults_of_keras_json_change_nothing(ending, keras, keras3, tmp_path, caplog):
    """Half precision and channels first as Keras' defaults, of keras.json or of the program, are set back, and said."""
    package, config = (keras3, keras3.config) if ending.startswith("3") else (keras, keras.backend)
    layers = package.layers
    model = package.Sequential([package.Input((6, 3)), layers.LSTM(4), layers.Reshape((2, 2, 1)), layers.Conv2D(3, 2)])
    model.save(tmp_path / f"model.{ending}")
    values = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    expected = np.asarray(model(values))
    try:
        config.set_floatx("float16")
        config.set_image_data_format("channels_first")
        loaded = load_model(tmp_path / f"model.{ending}")
        assert (config.floatx(), config.image_data_format()) == ("float32", "channels_last")
        assert "'channels_first'" in caplog.text
        assert "'float16'" in caplog.text
    finally:
        config.set_floatx("float32")
        config.set_image_data_format("channels_last")
    assert loaded.input.dtype == "float32"
    assert np.allclose(loaded(values), expected, atol=1e-6)
