"""Loops: those that recurrent layers became are these layers again, others are written out, and open ones refused."""

import pytest
from matrix import representatives

tf = pytest.importorskip("tensorflow")

import tf_keras  # noqa: E402
from tf_keras import layers  # noqa: E402

from edgeprune.errors import ModelError  # noqa: E402
from edgeprune.models.from_tflite import import_tflite  # noqa: E402
from edgeprune.models.from_tflite.check import check  # noqa: E402

SHAPE = (6, 4)
BIAS = {"bias_initializer": "random_uniform"}
LAYERS = {
    "GRU": layers.GRU(5, return_sequences=True, **BIAS),
    "GRU, last step": layers.GRU(5, **BIAS),
    "GRU of Keras 1": layers.GRU(5, reset_after=False, return_sequences=True, **BIAS),
    "GRU without bias": layers.GRU(5, use_bias=False),
    "SimpleRNN": layers.SimpleRNN(5, return_sequences=True, **BIAS),
    "SimpleRNN, relu": layers.SimpleRNN(5, activation="relu", **BIAS),
    "LSTM, relu": layers.LSTM(5, activation="relu", return_sequences=True, **BIAS),
    "LSTM, hard sigmoid": layers.LSTM(5, recurrent_activation="hard_sigmoid", **BIAS),
}


def write(path, model, optimize=False):
    specification = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    concrete = tf.function(model, input_signature=[specification]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if optimize else []
    path.write_bytes(converter.convert())
    return path


def of(layer, shape=SHAPE):
    tf_keras.utils.set_random_seed(3)
    inputs = layers.Input(shape)
    copy = type(layer).from_config(layer.get_config())
    return tf_keras.Model(inputs, copy(inputs))


@pytest.mark.parametrize("name", representatives(LAYERS, "GRU of Keras 1", "SimpleRNN, relu", "LSTM, hard sigmoid"))
def test_recurrent_layer(name, tmp_path):
    """A loop is the layer that it was: the class, its arguments and its weights."""
    model = of(LAYERS[name])
    path = write(tmp_path / "it.tflite", model)
    imported = import_tflite(path)
    assert "WHILE" in {operator.name for operator in imported.file.subgraphs[0].operators}
    assert check(imported, path).difference <= 1e-4
    (made,) = [layer for layer in imported.model.layers if layer.weights]
    wanted, own = model.layers[1].get_config(), made.get_config()
    assert type(made) is type(model.layers[1])
    for key in {"units", "activation", "recurrent_activation", "reset_after", "return_sequences"} & set(wanted):
        assert own[key] == wanted[key], key


def test_both_directions(tmp_path):
    """Of a layer in both directions, two layers come back."""
    path = write(tmp_path / "it.tflite", of(layers.Bidirectional(layers.GRU(5, return_sequences=True))))
    imported = import_tflite(path)
    assert check(imported, path).difference <= 1e-4
    assert [type(layer).__name__ for layer in imported.model.layers if layer.weights] == ["GRU", "GRU"]


def test_integer_kernels(tmp_path):
    """Kernels of 8 bits in a loop's body are read as what they stand for."""
    path = write(tmp_path / "it.tflite", of(layers.GRU(64), (6, 32)), optimize=True)
    imported = import_tflite(path)
    assert check(imported, path).difference <= 0.1
    assert [type(layer).__name__ for layer in imported.model.layers if layer.weights] == ["GRU"]


def test_written_out(tmp_path):
    """A loop of another kind is written out, with the same layers in every round."""
    path = write(tmp_path / "it.tflite", of(layers.ConvLSTM2D(4, 3, padding="same"), (3, 6, 6, 2)))
    imported = import_tflite(path)
    assert check(imported, path).difference <= 1e-4
    kernels = [layer for layer in imported.model.layers if layer.weights]
    assert len(kernels) == 8  # four gates, of the input and of the state
    assert all(len(layer.inbound_nodes) >= 2 for layer in kernels)


def test_open_loop(tmp_path):
    """A loop whose number of rounds depends on the input is refused by its place, with what would be needed."""

    def function(x):
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: y + 1, [x])[0]

    concrete = tf.function(function, input_signature=[tf.TensorSpec((1, 4))]).get_concrete_function()
    (tmp_path / "it.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    with pytest.raises(ModelError, match=r"Operator \d+ WHILE, which makes '.*', takes a number of rounds") as caught:
        import_tflite(tmp_path / "it.tflite")
    assert caught.value.expected == "a fixed number"


def test_condition(tmp_path):
    """A condition that the input decides is refused, too."""

    def function(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: x - 1.0)

    concrete = tf.function(function, input_signature=[tf.TensorSpec((1, 4))]).get_concrete_function()
    (tmp_path / "it.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    with pytest.raises(ModelError, match=r"IF, which makes '.*', computes its condition at run time"):
        import_tflite(tmp_path / "it.tflite")
