"""Copies of a model compute what the model computes; a layer that cannot be copied is named."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models.count import count
from edgeprune.models.flatten import flatten
from edgeprune.models.graph import View
from edgeprune.models.load import load_model
from edgeprune.models.rebuild import copy_model, copy_weights, rebuild
from edgeprune.models.verify import random_inputs
from edgeprune.prune.sparse import prepare as sparse_prepare
from edgeprune.prune.weights import lottery, magnitude, masked
from edgeprune.quantize import prepare
from edgeprune.recipe.config import WeightsConfig


@pytest.fixture(scope="module")
def adapted():
    """Images normalized by statistics that were taken from data, as ``Normalization.adapt`` takes them."""
    import tf_keras

    L = tf_keras.layers
    images = np.random.default_rng(0).normal(100, 40, (32, 8, 8, 3)).astype(np.float32)
    normalization = L.Normalization(name="statistics")
    normalization.adapt(images)
    inputs = L.Input([8, 8, 3])
    x = L.Conv2D(4, 1, name="stem")(normalization(inputs))
    x = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(6, 1, name="wide")(x)))
    return tf_keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x))), images[:4]


def _reinitialized(model):
    """Other weights, so only what comes before the first kernel can be compared: the kernels are put back."""
    copy = lottery.reinitialized(model, 1)
    for layer in model.layers:
        if layer.trainable_weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def _initial(model, folder):
    model.save(folder / "initial.keras")
    return lottery.load_initial(str(folder / "initial.keras"), lottery.reinitialized(model, 1), trust=False)


COPIES = {
    "copy": lambda model, folder: copy_model(model),
    "masked": lambda model, folder: masked.masked_model(model, ["wide"]),
    "stripped": lambda model, folder: masked.strip(masked.masked_model(model, ["wide"])),
    "wrapped": lambda model, folder: magnitude.wrap(model, WeightsConfig(include=("wide",)), 100)[0],
    "lottery": lambda model, folder: _reinitialized(model),
    "initial": _initial,
    "sparse inference": lambda model, folder: sparse_prepare.prepare(model).model,
    "quantization-aware": lambda model, folder: prepare.prepare(model),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_normalize_as_their_original(adapted, how, tmp_path):
    """A layer that computes with constants made from its weights (Normalization) has those of its own weights."""
    model, images = adapted
    copy = COPIES[how](model, tmp_path)
    np.testing.assert_allclose(copy(images, training=False), model(images, training=False), rtol=1e-4, atol=1e-5)


def _times(*, config):
    """A layer that multiplies by a number; ``config``: what its get_config leaves out."""
    import tf_keras

    class Times(tf_keras.layers.Layer):
        def __init__(self, factor=2, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, inputs):
            return inputs * self.factor

        if config == "base":

            def get_config(self):
                return {"factor": self.factor}

    return Times


@pytest.mark.parametrize("config", ["nothing", "base"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_keeps_its_name_though_its_config_has_none(config, nested):
    """A layer of the user's own, whose config has its arguments only, is copied with its name and format."""
    import tf_keras

    inputs = tf_keras.Input((4,))
    x = _times(config=config)(3, name="mine", dtype="float64")(inputs)
    model = tf_keras.Model(inputs, x)
    if nested:
        outer = tf_keras.Input((4,))
        model = flatten(tf_keras.Model(outer, tf_keras.layers.Dense(2)(model(outer))))
    copy = rebuild(model)
    for layer, new in zip(model.layers, copy.layers, strict=True):
        new.set_weights(layer.get_weights())
    ones = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(copy(ones), model(ones))
    assert copy.get_layer("mine").dtype_policy.name == "float64"


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_without_a_config_is_refused_by_name(nested):
    """What cannot be made anew is an error that names the layer and says what it lacks."""
    import tf_keras

    class Fixed(tf_keras.layers.Layer):
        def __init__(self, parts):
            super().__init__(name="mine")
            self.parts = parts

        def get_config(self):
            raise NotImplementedError("not written yet")

        def call(self, inputs):
            return inputs + len(self.parts)

    inputs = tf_keras.Input((4,))
    model = tf_keras.Model(inputs, Fixed([1, 2])(inputs))
    if nested:
        outer = tf_keras.Input((4,))
        model = tf_keras.Model(outer, model(outer))
    with pytest.raises(ModelError, match=r"'mine' \(Fixed\) cannot be made anew(.|\n)*get_config"):
        rebuild(load_model(model))


def _residual(L):
    """A convolutional network with a residual connection, operations with constants, and a frozen normalization."""
    import tensorflow as tf

    inputs = L.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", name="stem")(inputs / 255.0)
    x = L.BatchNormalization(name="norm", trainable=False)(x)
    x = x + L.SeparableConv2D(4, 3, padding="same", name="side")(x)
    x = tf.transpose(tf.pad(x, np.array([[0, 0], [1, 1], [1, 1], [0, 0]])), [0, 2, 1, 3])
    return inputs, L.Dense(3, activation=L.ReLU(6.0), name="head")(L.GlobalAveragePooling2D(name="pool")(x))


def _siamese(L):
    """One layer called on both inputs, which come and go by name; one of the outputs is also read."""
    inputs = {"right": L.Input((4,), name="r"), "left": L.Input((4,), name="l")}
    shared = L.Dense(4, name="shared")
    left, right = shared(inputs["left"]), shared(inputs["right"])
    return inputs, {"sum": L.Add(name="sum")([left, left, right]), "pair": (left, L.Dense(2, name="head")(right))}


def _sequence(L):
    """Recurrent and attention layers, called by keyword, and a batch normalization that is called as in inference."""
    inputs = L.Input((5, 4), name="steps", batch_size=2)
    x = L.Bidirectional(L.LSTM(3, return_sequences=True), name="both")(L.Masking(name="mask")(inputs))
    x = L.BatchNormalization(name="norm")(L.Dropout(0.5, name="drop")(x), training=False)
    x = L.MultiHeadAttention(2, 2, name="attend")(query=x, value=x, use_causal_mask=True)
    outputs, state = L.GRU(3, return_state=True, name="gru")(x, initial_state=[L.Dense(3, name="start")(x[:, 0])])
    return inputs, [outputs, state]


def _mixed_types(L):
    """Layers of their own number formats, whole numbers, and several outputs of one operation."""
    import tensorflow as tf

    inputs = L.Input((6,), dtype="int32", name="tokens")
    x = L.Embedding(8, 4, name="embed", dtype="mixed_float16")(inputs)
    first, second = tf.split(tf.cast(x, "float32"), 2, axis=-1)
    return [inputs], [L.Dense(2, dtype="float64", name="wide")(first), second]


def _nested(L):
    """A model called twice in a model, one of its layers frozen."""
    import tf_keras

    inner_inputs = L.Input((4,))
    x = L.Dense(4, name="fixed", trainable=False)(inner_inputs)
    inner = tf_keras.Model(inner_inputs, L.Dense(4, name="free")(x), name="inner")
    inputs = L.Input((4,), name="x")
    return inputs, inner(inner(inputs))


def _partly_frozen(L):
    """A layer one part of which is frozen, behind a layer that is frozen as a whole."""
    inputs = L.Input((5, 4), name="x")
    both = L.Bidirectional(L.LSTM(3), name="both")
    outputs = both(L.Dense(4, name="fixed", trainable=False)(inputs))
    both.backward_layer.trainable = False
    return inputs, outputs


MODELS = {
    build.__name__.strip("_"): build
    for build in (_residual, _siamese, _sequence, _mixed_types, _nested, _partly_frozen)
}


def _made(name):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    return tf_keras.Model(*MODELS[name](tf_keras.layers), name=name.replace(" ", "_"))


def _facts(model):
    """What a copy must keep, as far as it can be compared."""
    import tensorflow as tf

    view = View(model)
    number = {id(tensor): i for i, node in enumerate(view.nodes) for tensor in tf.nest.flatten(node.outputs)}

    def plain(value):
        return ("tensor", number[id(value)]) if id(value) in number else repr(value)

    return {
        "names": (model.name, model.input_names, model.output_names, [weight.name for weight in model.weights]),
        "layers": [(layer.name, type(layer), layer.get_config()) for layer in model.layers],
        "trainable": (model.trainable, [(type(part), part.trainable) for part in model._flatten_layers()][1:]),
        "types": [layer.dtype_policy.name for layer in model.layers],
        "tensors": [(x.shape.as_list(), x.dtype.name) for node in view.nodes for x in tf.nest.flatten(node.outputs)],
        "calls": {
            key: tf.nest.map_structure(plain, (node.call_args, node.call_kwargs)) for key, node in view.calls.items()
        },
        "structure": tf.nest.map_structure(plain, (model._nested_inputs, model._nested_outputs)),
    }


# Recurrent and attention layers are rebuilt, with states and keywords, by prune/channels/rules, too.
@pytest.mark.parametrize("name", representatives(MODELS, *(name for name in MODELS if name != "sequence")))
def test_a_model_is_rebuilt_as_it_was(name):
    """With nothing changed, a copy has the same outputs, names, types, calls, structure and trainable flags."""
    import tensorflow as tf

    model = _made(name)
    for copy in (rebuild(model), copy_model(model)):
        assert _facts(copy) == _facts(model)
        copy_weights(model, copy)
        inputs = tf.nest.pack_sequence_as(model._nested_inputs, random_inputs(model))
        for expected, found in zip(*(tf.nest.flatten(m(inputs, training=False)) for m in (model, copy)), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert not {id(weight) for weight in copy.weights} & {id(weight) for weight in model.weights}


def test_a_copy_is_as_frozen_as_its_original():
    """A model whose own flag says that it is not trained has no trainable weights when it is copied."""
    model = _made("residual")
    model._trainable = False
    copy = copy_model(model)
    assert not copy.trainable_weights
    assert copy.get_layer("stem").trainable


def test_one_call_may_become_several_or_none():
    """``emit`` decides what a call becomes: here, twice a layer for one, and nothing for another."""
    import tf_keras

    L = tf_keras.layers
    inputs = L.Input((4,), name="x")
    model = tf_keras.Model(inputs, L.Dense(4, name="b")(L.Dense(4, name="a")(inputs)))
    twice = L.Dense(4, name="twice")

    def emit(layer, key, args, kwargs):
        return twice(twice(*args)) if key == ("a", 0) else args[0]

    assert [node.layer.name for node in View(rebuild(model, emit)).nodes] == ["x", "twice", "twice"]


def test_an_input_may_be_followed_by_a_layer():
    """What stands for an input may be computed from a new one, which is then the input of the new model."""
    import tf_keras

    model = _made("siamese")
    new = rebuild(
        model,
        emit_input=lambda layer: tf_keras.layers.Rescaling(2.0, name=f"double_{layer.name}")(
            tf_keras.Input((4,), name=layer.name)
        ),
    )
    copy_weights(model, new)
    inputs = {name: np.ones((2, 4), np.float32) for name in ("left", "right")}
    expected = model({name: 2 * value for name, value in inputs.items()})
    np.testing.assert_allclose(new(inputs)["sum"], expected["sum"])


@pytest.mark.parametrize("how", ["masked", "stripped", "lottery", "wrapped", "copy"])
def test_copies_keep_the_structure_of_inputs_and_outputs(how, tmp_path):
    """A model that takes and returns tensors by name does so after every kind of copy."""
    copy = _weights_copies()[how](_made("siamese"))
    found = copy({name: np.ones((2, 4), np.float32) for name in ("left", "right")})
    assert set(found) == {"sum", "pair"}
    assert len(found["pair"]) == 2


def _weights_copies():
    config = WeightsConfig(include=("shared",))
    return {
        "copy": copy_model,
        "masked": lambda model: masked.masked_model(model, ["shared"]),
        "stripped": lambda model: masked.strip(masked.masked_model(model, ["shared"])),
        "lottery": lambda model: lottery.reinitialized(model, 1),
        "wrapped": lambda model: magnitude.wrap(model, config, 100)[0],
    }


def _with_loss():
    import tensorflow as tf

    model = _made("residual")
    model.add_loss(tf.reduce_mean(model.get_layer("stem").output))
    return model


def test_a_loss_inside_is_refused_by_name():
    """A copy that would lose or keep a loss of the model's own, depending on what made it, is an error instead."""
    for make in (copy_model, prepare.prepare, lambda model: lottery.reinitialized(model, 1)):
        with pytest.raises(ModelError, match="'residual' computes losses or metrics inside"):
            make(_with_loss())


def test_a_loss_inside_does_not_keep_a_model_from_being_counted():
    """A model that is only looked at may have losses, also where it is built anew to know its shapes."""
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.Input((4, 2), name="x")
    x = tf_keras.layers.Dense(3, name="dense")(tf.reshape(inputs, [tf.shape(inputs)[0], -1, 8]))
    model = tf_keras.Model(inputs, x)
    model.add_loss(tf.reduce_mean(x))
    assert count(model).macs == 8 * 3


def test_fresh_weights_depend_on_the_seed_and_the_order_of_layers_only():
    """Lottery weights are those that tf_keras draws when it builds the model from its config under the same seed."""
    import tf_keras

    L = tf_keras.layers
    inputs = L.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, name="stem")(inputs)
    x = L.Add(name="sum")([L.Conv2D(4, 1, name=name)(x) for name in ("c", "a", "b")])
    model = tf_keras.Model(inputs, L.Dense(2, name="head")(L.Flatten()(x)))
    found = lottery.reinitialized(model, 7)
    tf_keras.utils.set_random_seed(7)
    expected = tf_keras.models.clone_model(model)
    for one, other in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
