"""Cross-layer equalization and bias correction: what they keep, and what they mend."""

import numpy as np
import pytest

from edgeprune.convert.converter import convert
from edgeprune.models.layer_facts import LayerFacts, facts_of
from edgeprune.quantize.bias import correct_biases, rounded
from edgeprune.quantize.equalize import equalize, find_pairs, no_pairs
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.tflite.flatbuffer import parse


def layers():
    import tf_keras

    return tf_keras.layers


def mobile(relu, skew=3.0):
    """A conv, a depthwise and a pointwise block with normalizations of skewed scales, and a classifier."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = layers().Input([16, 16, 1])
    x = inputs
    for number, make in enumerate(
        (
            lambda: layers().Conv2D(8, 3, use_bias=False, name="stem"),
            lambda: layers().DepthwiseConv2D(3, use_bias=False, name="depthwise"),
            lambda: layers().Conv2D(12, 1, use_bias=False, name="pointwise"),
        )
    ):
        x = relu(layers().BatchNormalization(name=f"norm{number}")(make()(x)))
    x = layers().Dense(10, name="head")(layers().GlobalAveragePooling2D()(x))
    model = tf_keras.Model(inputs, x, name="mobile")
    for layer in model.layers:
        if layer.name.startswith("norm"):
            size = layer.gamma.shape[0]
            layer.gamma.assign(10 ** rng.uniform(-skew / 2, skew / 2, size))
            layer.beta.assign(rng.normal(0, 0.5, size))
            layer.moving_variance.assign(rng.uniform(0.5, 2, size))
    return model


def batch(size=16):
    return np.random.default_rng(1).random((size, 16, 16, 1), np.float32)


def test_equalizing_keeps_what_the_model_computes():
    """Outputs are equal up to rounding, through normalizations, ReLU, padding and pooling."""
    model = mobile(layers().ReLU())
    before = model(batch()).numpy()
    pairs = equalize(model)
    assert pairs == [("stem", "depthwise"), ("depthwise", "pointwise"), ("pointwise", "head")]
    np.testing.assert_allclose(model(batch()).numpy(), before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


def test_ranges_are_even_afterwards():
    """Every channel is made with weights as large as those that read it; a second pass has nothing left to do."""
    model = mobile(layers().ReLU())
    equalize(model)
    norm, reader = model.get_layer("norm2"), model.get_layer("head")
    kernel = model.get_layer("pointwise").kernel.numpy()
    making = np.abs(kernel).max((0, 1, 2)) * norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    np.testing.assert_allclose(making, np.abs(reader.kernel.numpy()).max(1), rtol=0.02)
    weights = [w.numpy() for w in model.weights]
    equalize(model)
    for old, new in zip(weights, model.weights, strict=True):
        np.testing.assert_allclose(new.numpy(), old, rtol=0.02, atol=1e-6)


def test_a_capped_relu_ends_a_pair():
    """ReLU6 does not pass a factor, and is left alone; so is what two layers read, and an output of the model."""
    assert find_pairs(mobile(layers().ReLU(6.0))) == []
    import tf_keras

    inputs = layers().Input([8])
    x = layers().Dense(4, activation="relu", name="shared")(inputs)
    fork = tf_keras.Model(inputs, [layers().Dense(2)(x), layers().Dense(2)(x)])
    assert find_pairs(fork) == []
    assert find_pairs(tf_keras.Model(inputs, [x, layers().Dense(2)(x)])) == []


def test_an_activation_that_is_a_layer_ends_a_pair():
    """A convolution whose activation is a capped ReLU object makes no channels that could be scaled."""
    import tf_keras

    inputs = layers().Input([4, 4, 2])
    x = layers().Conv2D(3, 1, activation=layers().ReLU(6.0), name="capped")(inputs)
    model = tf_keras.Model(inputs, layers().Conv2D(2, 1, name="reader")(x))
    assert find_pairs(model) == []


def test_a_model_without_pairs_says_what_is_in_the_way():
    """Capped activations are named; where there are none, the warning says what a pair is."""
    import tf_keras

    warning = no_pairs(mobile(lambda x: layers().ReLU(6, name=f"cap_{x.name.split('/')[0]}")(x)))
    assert "not scale-invariant (cap_norm0, cap_norm1, cap_norm2)" in warning
    inputs = layers().Input([4])
    assert "no two neighbouring layers" in no_pairs(tf_keras.Model(inputs, layers().Dense(2)(inputs)))


def test_a_dead_channel_stays_what_it_is():
    """A channel whose factor is zero has no range, and makes no infinity."""
    model = mobile(layers().ReLU())
    gamma = model.get_layer("norm0").gamma
    gamma.assign(np.where(np.arange(8) == 3, 0, gamma.numpy()))
    before = model(batch()).numpy()
    equalize(model)
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)
    np.testing.assert_allclose(model(batch()).numpy(), before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


def test_corrected_biases_bring_the_means_back():
    """With kernels rounded to int8, the outputs' means are nearer to the float model's than without correction."""
    model = mobile(layers().ReLU())
    x = batch(64)
    wanted = model(x).numpy().mean(0)
    names = ["stem", "depthwise", "pointwise", "head"]
    kernels = {name: model.get_layer(name).weights[0].numpy() for name in names}
    coarse = {name: rounded(kernels[name], facts_of(model.get_layer(name))) for name in names}

    def error():
        for name in names:
            model.get_layer(name).weights[0].assign(coarse[name])
        found = model(x).numpy().mean(0)
        for name in names:
            model.get_layer(name).weights[0].assign(kernels[name])
        return np.abs(found - wanted).max()

    before = error()
    assert correct_biases(model, lambda: iter([[row[None]] for row in x])) == names
    assert error() < 0.2 * before
    for name in names:
        np.testing.assert_array_equal(model.get_layer(name).weights[0].numpy(), kernels[name])


def stored_kernel(model, samples):
    """The kernel of the only convolution as its int8 file holds it, in real numbers; the channels are its last axis."""
    (graph,) = parse(convert(model, QuantizationPlan("int8", "float", True), samples)).subgraphs
    (operator,) = (operator for operator in graph.operators if "CONV" in operator.name)
    tensor = graph.input(operator, 1)
    return tensor.data() * np.asarray(tensor.quantization.scale, "float32")


def test_depthwise_filters_of_one_input_are_corrected_for_what_the_file_stores():
    """With a depth multiplier each filter has a scale of its own: with the file's kernel, the means are the float's."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = layers().Input([8, 8, 3])
    model = tf_keras.Model(inputs, layers().DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs))
    layer = model.get_layer("depthwise")
    kernel = layer.depthwise_kernel.numpy() * np.float32([1, 100])  # the second filter of each input is large
    layer.depthwise_kernel.assign(kernel)
    x = np.random.default_rng(0).random((64, 8, 8, 3), np.float32)
    wanted = model(x).numpy().mean((0, 1, 2))

    def samples():
        return iter([[row[None]] for row in x])

    correct_biases(model, samples)
    stored = stored_kernel(model, samples).reshape(kernel.shape)
    np.testing.assert_allclose(rounded(kernel, facts_of(layer)), stored, rtol=1e-6)
    layer.depthwise_kernel.assign(stored)
    np.testing.assert_allclose(model(x).numpy().mean((0, 1, 2)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_rounded_kernels_have_at_most_255_values_per_channel(axis):
    """Rounding is off by at most half a step, and keeps the largest value of each channel."""
    kernel = np.random.default_rng(0).normal(size=(300, 300)).astype("float32")
    found = rounded(kernel, LayerFacts("kernel", (axis,), 1 - axis))
    step = np.abs(kernel).max(1 - axis, keepdims=True) / 127
    assert (np.abs(found - kernel) <= step * 0.5001).all()
    np.testing.assert_allclose(np.abs(found).max(1 - axis), np.abs(kernel).max(1 - axis), rtol=1e-6)
