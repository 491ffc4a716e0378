"""Activations and operations of Keras 3 that tf_keras does not have as one: the same values, channels that can go."""

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.prune.channels.analyse import analyse

# name: (keras.activations, keras.ops, tensor) -> tensor; each value depends on one value.
ELEMENTWISE = {
    "relu": lambda A, K, x: A.relu(x),
    "relu with all arguments": lambda A, K, x: A.relu(x, negative_slope=0.2, max_value=1.5, threshold=0.25),
    "relu6": lambda A, K, x: A.relu(x, max_value=6),
    "leaky_relu": lambda A, K, x: A.leaky_relu(x, 0.3),
    "elu and selu": lambda A, K, x: A.elu(x, 0.7) + A.selu(x),
    "celu": lambda A, K, x: A.celu(x, 0.4),
    "gelu": lambda A, K, x: A.gelu(x) * A.gelu(x, approximate=True),
    "silu": lambda A, K, x: A.silu(x) + K.hard_silu(x),
    "soft": lambda A, K, x: A.softplus(x) * A.softsign(x) + A.squareplus(x, 3),
    "sigmoids": lambda A, K, x: A.sigmoid(x) + A.hard_sigmoid(x) + A.log_sigmoid(x) + K.sparse_sigmoid(x),
    "tanh": lambda A, K, x: A.tanh(x) + A.hard_tanh(x) * A.tanh_shrink(x),
    "exponential": lambda A, K, x: A.exponential(x),
    "threshold": lambda A, K, x: A.threshold(x, 0.5, -2.0),
    "shrink": lambda A, K, x: A.soft_shrink(x, 0.25) + A.hard_shrink(x, 0.75),
    "sparse_plus": lambda A, K, x: A.sparse_plus(x),
    "numbers": lambda A, K, x: K.trunc(x) + K.sinc(x) + K.cbrt(x) + K.round(x, 1) + K.erfc(x) + K.deg2rad(x),
    "logarithms": lambda A, K, x: K.log2(K.exp2(x)) + K.log10(1.5 + K.tanh(x)) + K.logaddexp(x, 2 * x),
    "inverses": lambda A, K, x: K.arctan(x) + K.arcsinh(x) + K.arctan2(x, 2 + K.abs(x)) * K.sinh(x / 4),
    "numbers on the left": lambda A, K, x: 2 * x + (1 - x) * K.maximum(1, x) / (3 / (x * x + 1)) + K.where(x > 1, 1, x),
    "choices": lambda A, K, x: K.select([x > 1, x > 0], [x, 2 * x], -x) + K.heaviside(x, K.full_like(x, 0.5)),
    "truth": lambda A, K, x: K.cast(K.logical_xor(x > 0, x > 1), "float32") * K.cast(K.isfinite(x), "float32"),
}
# What mixes values: (keras.activations, keras.ops, tensor [None, 8, 8, 4]) -> outputs.
MIXING = {
    "glu": lambda A, K, x: A.glu(x, axis=2),
    "softmax": lambda A, K, x: A.softmax(x, axis=1) + A.log_softmax(x, axis=2),
    "sparsemax": lambda A, K, x: K.sparsemax(x, axis=2),
    "cumulative": lambda A, K, x: [K.cumsum(x, axis=1), K.cumprod(x, axis=-1)],
    "sorted": lambda A, K, x: [K.sort(x, axis=1), K.argsort(x), *K.top_k(x, 2), K.take_along_axis(x, K.argsort(x), -1)],
    "norms": lambda A, K, x: [
        *(K.norm(x, axis=-1), K.norm(x, 1, axis=2, keepdims=True), K.norm(x, np.inf, axis=1)),
        *(K.norm(x, axis=(1, 2)), K.normalize(x, order=1)),
    ],
    "statistics": lambda A, K, x: [
        *(*K.moments(x, (1, 2)), K.ptp(x, axis=1), K.count_nonzero(K.relu(x), axis=-1)),
        *(K.max(x, axis=1, initial=0.5), K.min(x, axis=-1, initial=-0.5, keepdims=True)),
    ],
    "joins": lambda A, K, x: [K.hstack([x, x]), K.dstack([x, x]), K.append(x, x, axis=-1)],
    "parts": lambda A, K, x: [*K.hsplit(x, 2), *K.array_split(x, 3, axis=1), K.slice(x, [0, 1, 2, 0], [2, 3, 4, 2])],
    "turned": lambda A, K, x: [K.rot90(x, 3, axes=(1, 2)), K.fliplr(x), K.diff(x, 2, axis=1), K.tril(x, 1), K.triu(x)],
    "attention": lambda A, K, x: [
        K.dot_product_attention(x, 2 * x, x),
        K.dot_product_attention(x, x, -x, scale=0.3, is_causal=True, mask=np.eye(8, dtype=bool) | True),
    ],
    "images": lambda A, K, x: [
        *(K.image.rgb_to_grayscale(x[..., 1:]), K.image.extract_patches(x, 2), K.image.extract_patches(x, 3)),
        K.image.pad_images(x, 1, None, None, 2, target_height=12, target_width=11),
        K.image.crop_images(x, 1, 2, None, None, target_height=4, target_width=5),
    ],
    "whole numbers": lambda A, K, x: [
        *(K.saturate_cast(1000 * x, "int8"), K.multi_hot(K.cast(x[:, :, 0, 0] > 0, "int32"), 5)),
        K.argmax(x, -1, keepdims=True),
    ],
    "numbers of other kinds": lambda A, K, x: [
        *(K.cast(x, "int32") > 0.5, K.cast(x, "int32") * 0.5, x > 1, K.where(x > 0, 1, K.cast(x, "int32"))),
        K.logical_and(x, K.cast(x, "int32")),
    ],
    "dot": lambda A, K, x: K.dot(x, np.arange(8, dtype="float32").reshape(4, 2)),
}


def _model(keras3, operation, stem=False):
    inputs = keras3.Input((8, 8, 4))
    x = keras3.layers.Conv2D(6, 3, name="stem")(inputs) if stem else inputs
    outputs = operation(keras3.activations, keras3.ops, x)
    if stem:
        outputs = keras3.layers.Dense(2)(keras3.layers.GlobalAveragePooling2D()(outputs))
    return keras3.Model(inputs, outputs)


@pytest.mark.parametrize("name", [*ELEMENTWISE, *MIXING])
def test_computes_the_same(name, keras3):
    """Values, shapes and types are Keras 3's, at the bounds where functions change, too."""
    model = _model(keras3, {**ELEMENTWISE, **MIXING}[name])
    x = np.random.default_rng(0).normal(0, 2, (2, 8, 8, 4)).astype("float32")
    x[0, 0] = np.array([-1.5, -1, -0.75, -0.5, -0.25, 0, 0.25, 0.5] * 4).reshape(8, 4)
    x[1, 0] = np.array([0.75, 1, 1.5, 2, 3, 6, 8, -3] * 4).reshape(8, 4)
    outputs = [keras3.tree.flatten(run(x)) for run in (model, load_model(model))]
    for expected, actual in zip(*outputs, strict=True):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_channels_can_be_removed(name, keras3):
    """What computes element by element lets all channels of a convolution go."""
    graph = analyse(load_model(_model(keras3, ELEMENTWISE[name], stem=True)))
    stem = next(group for group in graph.groups if group.name == "stem")
    assert len(stem.free) == 6


ACTIVATIONS = (
    *("celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh"),
    *("leaky_relu", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink"),
    *("softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh"),
    "tanh_shrink",
)


def test_activations_of_layers(keras3):
    """Every activation of Keras 3 works as a layer's argument and in a layer Activation; verified when it is loaded."""
    layers = keras3.layers
    inputs = keras3.Input((8, 4))
    outputs = []
    for name in ACTIVATIONS:
        outputs += [layers.Activation(name)(layers.Dense(8, activation=name)(inputs))]
        outputs += [layers.SeparableConv1D(6, 3, activation=getattr(keras3.activations, name))(inputs)]
    load_model(keras3.Model(inputs, outputs))


@pytest.mark.parametrize("name", ["relu6", "soft_shrink", "hard_sigmoid"])
def test_an_activation_within_steps_is_not_put_behind_them(name, keras3):
    """An activation of a recurrent layer that tf_keras does not have is refused: it is not the last thing computed."""
    inputs = keras3.Input((8, 4))
    with pytest.raises(ModelError, match=f"'rec' has the activation {name}"):
        load_model(keras3.Model(inputs, keras3.layers.LSTM(3, activation=name, name="rec")(inputs)))


def test_a_model_that_keras_cannot_run_is_said_to_be_one(keras3):
    """A graph that fails on values already in Keras 3 is refused with what Keras says."""
    inputs = keras3.Input((8, 4))
    model = keras3.Model(inputs, keras3.ops.softmax(inputs, axis=(1, 2)))
    with pytest.raises(ModelError, match="itself cannot run"):
        load_model(model)


@pytest.mark.parametrize("name", ["fmod", "rms_normalization"])
def test_what_is_not_translated_is_named(name, keras3):
    """An operation without a translation is named, with its place in the model."""
    inputs = keras3.Input((8, 4))
    operation = getattr(keras3.ops, name)
    outputs = operation(inputs, 0.7) if name == "fmod" else operation(inputs)
    with pytest.raises(ModelError, match="(?i)" + outputs._keras_history.operation.name):
        load_model(keras3.Model(inputs, outputs))
