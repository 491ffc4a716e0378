"""Preparing a model for int8: the same function, made of what the file is made of."""

import numpy as np
import pytest

from edgeprune.models.load import load_model
from edgeprune.quantize.prepare import prepare


def build(body, shape=(8, 8, 3)):
    """A functional model whose batch normalization has statistics like those of a trained one."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    inputs = tf_keras.layers.Input(shape)
    model = tf_keras.Model(inputs, body(tf_keras.layers, inputs))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if any(word in weight.name for word in ("gamma", "variance")):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif any(word in weight.name for word in ("beta", "mean", "bias")):
            weight.assign(generator.uniform(-0.5, 0.5, weight.shape))
    return model


def two_branches(layers, x):
    x = layers.Conv2D(4, 3)(x)
    return layers.Add()([layers.BatchNormalization()(x), x])


def shared_layer(layers, x):
    conv = layers.Conv2D(3, 3, padding="same")
    return layers.BatchNormalization()(conv(conv(x)))


# Case → (body, input shape, classes of layers that must be gone).
CASES = {
    "after convolution": (lambda k, x: k.BatchNormalization()(k.Conv2D(4, 3, use_bias=False)(x)), (8, 8, 3), "Batch"),
    "after biased": (lambda k, x: k.ReLU()(k.BatchNormalization()(k.Conv2D(4, 3)(x))), (8, 8, 3), "Batch"),
    "depthwise": (lambda k, x: k.BatchNormalization()(k.DepthwiseConv2D(3, depth_multiplier=2)(x)), (8, 8, 3), "Batch"),
    "transposed": (lambda k, x: k.BatchNormalization()(k.Conv2DTranspose(4, 3, strides=2)(x)), (8, 8, 3), "Batch"),
    "one dimension": (lambda k, x: k.BatchNormalization()(k.Conv1D(4, 3)(x)), (8, 3), "Batch"),
    "dense": (lambda k, x: k.BatchNormalization(scale=False)(k.Dense(4)(x)), (5,), "Batch"),
    "before convolution": (lambda k, x: k.Conv2D(4, 3)(k.ReLU()(k.BatchNormalization()(x))), (8, 8, 3), "Batch"),
    "of a vector": (lambda k, x: k.Dense(4)(k.BatchNormalization(center=False)(x)), (5,), "Batch"),
    "after an activation": (lambda k, x: k.BatchNormalization()(k.Conv2D(4, 3, activation="relu")(x)), (8, 8, 3), "B"),
    "two consumers": (two_branches, (8, 8, 3), "Batch"),
    "shared": (shared_layer, (8, 8, 3), "Batch"),
    "separable": (lambda k, x: k.BatchNormalization()(k.SeparableConv2D(4, 3, strides=2)(x)), (8, 8, 3), "Separable"),
    "rescaling": (lambda k, x: k.Conv2D(4, 3)(k.Rescaling(1 / 127.5, -1.0)(x)), (8, 8, 3), "Rescaling"),
    "chain": (lambda k, x: k.Add()([x, k.ReLU()(x), k.Conv2D(3, 1)(x)]), (8, 8, 3), ""),
    "swish inside": (lambda k, x: k.Conv2D(4, 3, activation="swish")(x), (8, 8, 3), ""),
}


@pytest.mark.parametrize("case", CASES)
def test_the_prepared_model_computes_the_same(case):
    """Outputs agree to rounding, and no layer is left that TFLite would take apart."""
    body, shape, gone = CASES[case]
    model = build(body, shape)
    prepared = prepare(model)
    x = np.random.default_rng(1).normal(size=(4, *shape)).astype("float32")
    np.testing.assert_allclose(prepared(x), model(x, training=False), atol=1e-5, rtol=1e-4)
    assert not gone or not any(type(layer).__name__.startswith(gone) for layer in prepared.layers)
    assert all(len(layer.input) < 3 for layer in prepared.layers if type(layer).__name__ == "Add")


def frozen_base(k, x):
    import tf_keras

    base = tf_keras.Sequential([k.Conv2D(4, 3, name="inside"), k.BatchNormalization()], name="base")
    base.trainable = False
    return k.Conv2D(2, 1, name="head")(base(x))


# Case → (body, names of the prepared layers with weights → whether they train).
FROZEN = {
    "convolution": (
        lambda k, x: k.BatchNormalization()(k.Conv2D(4, 3, trainable=False, name="conv")(x)),
        {"conv": False},
    ),
    "normalization that is folded": (
        lambda k, x: k.BatchNormalization(trainable=False)(k.Conv2D(4, 3, name="conv")(x)),
        {"conv": True},
    ),
    "normalization that is not": (
        lambda k, x: k.Conv2D(4, 3, name="conv")(k.ReLU()(k.BatchNormalization(trainable=False, name="norm")(x))),
        {"norm": False, "conv": True},
    ),
    "separable convolution": (
        lambda k, x: k.Conv2D(2, 1, name="head")(k.SeparableConv2D(4, 3, trainable=False, name="conv")(x)),
        {"conv_depthwise": False, "conv": False, "head": True},
    ),
    "activation split off": (
        lambda k, x: k.Conv2D(4, 3, activation="swish", trainable=False, name="conv")(x),
        {"conv": False},
    ),
    "layer in a wrapper": (
        lambda k, x: k.Conv2D(2, 1, name="head")(k.TimeDistributed(k.Dense(4, trainable=False), name="wrapper")(x)),
        {"wrapper": False, "head": True},
    ),
    "model in the model": (frozen_base, {"inside": False, "head": True}),
    "constants": (
        lambda k, x: k.Conv2D(2, 1, name="head")(k.Rescaling(1 / 127.5, -1.0, name="scale")(x)),
        {"scale": False, "head": True},
    ),
}


@pytest.mark.parametrize("case", FROZEN)
def test_what_does_not_train_does_not_train_afterwards(case):
    """Frozen layers and constants stay so in every form that they take; all others train."""
    body, expected = FROZEN[case]
    prepared = prepare(load_model(build(body)))
    assert {layer.name: bool(layer.trainable_weights) for layer in prepared.layers if layer.weights} == expected


def test_flags_of_parts_that_no_config_knows_stay():
    """A projection of an attention that was frozen by hand stays frozen."""

    def body(k, x):
        attention = k.MultiHeadAttention(1, 2, name="attention")
        y = attention(x, x)
        attention._query_dense.trainable = False
        return y

    model = build(body, (4, 3))
    flags = [part.trainable for part in model.get_layer("attention")._flatten_layers()]
    prepared = prepare(model)
    assert flags.count(False) == 1
    assert [part.trainable for part in prepared.get_layer("attention")._flatten_layers()] == flags
    x = np.random.default_rng(1).normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(prepared(x), model(x), atol=1e-6)


def test_what_nothing_follows_is_folded_into_a_single_layer():
    """Convolution and batch normalization become one layer of the convolution's name."""
    body, shape, _ = CASES["after convolution"]
    prepared = prepare(build(body, shape))
    assert [type(layer).__name__ for layer in prepared.layers] == ["InputLayer", "Conv2D"]
