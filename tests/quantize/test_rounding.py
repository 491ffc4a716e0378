"""Rounding a model's weights before it is quantized."""

import numpy as np
import pytest
import tf_keras
from matrix import representatives

from edgeprune.convert.converter import convert
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.quantize.rounding import round_by_moments
from edgeprune.reconstruction.linear import product_of
from edgeprune.tflite.flatbuffer import parse

layers = tf_keras.layers


def network(seed=0):
    """A stem, a depthwise and a pointwise convolution with normalization, a dense layer."""
    tf_keras.utils.set_random_seed(seed)
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm2")(x))
    x = layers.Conv2D(16, 1, name="pointwise", activation="relu")(x)
    model = tf_keras.Model(inputs, layers.Dense(5, name="classes")(layers.GlobalAveragePooling2D()(x)))
    generator = np.random.default_rng(seed)
    for norm in ("norm", "norm2"):
        model.get_layer(norm).gamma.assign(generator.uniform(0.5, 2, 8))
        model.get_layer(norm).moving_variance.assign(generator.uniform(0.5, 2, 8))
        model.get_layer(norm).moving_mean.assign(generator.normal(size=8))
    return model


def images(count=64, seed=1):
    """Smooth images, whose neighbouring pixels depend on each other, as those of cameras do."""
    noise = np.random.default_rng(seed).normal(size=(count, 12, 12, 3)).cumsum(1).cumsum(2)
    return [[batch.astype("float32")] for batch in np.split(noise, 4)]


def rounded(model, levels, **options):
    return round_by_moments(model, images(), images(seed=2), levels, ridge=1e-4, **options)


@pytest.mark.parametrize(
    ("mode", "levels"),
    representatives([("int8", 127), ("int8-weights", 127), ("int4-weights", 7)], ("int8", 127), ("int4-weights", 7)),
)
def test_the_file_takes_over_exactly_these_integers(mode, levels):
    """Normalization folded in or not, the integers in the file are the rounded weights over their scale."""
    pytest.importorskip("ai_edge_quantizer")
    model = rounded(network(), levels).model
    samples = [[row[None]] for batch in images() for row in batch[0]]
    content = convert(model, QuantizationPlan(mode, "float", mode == "int8"), lambda: iter(samples))
    stored = [
        np.abs(tensor.data().astype(int)).reshape(-1)
        for tensor in parse(content).subgraphs[0].tensors
        if tensor.constant and tensor.quantization is not None and len(tensor.shape) > 1
    ]
    for name in ("stem", "depthwise", "pointwise", "classes"):
        matrix = product_of(model.get_layer(name)).matrix
        largest = 127 if name == "depthwise" else levels
        wanted = np.sort(np.abs(np.round(matrix / np.abs(matrix).max(1, keepdims=True) * largest)).reshape(-1))
        (same,) = (np.sort(values) for values in stored if len(values) == len(wanted))
        np.testing.assert_array_equal(same, wanted, name)


def test_outputs_are_nearer_to_the_models_own_than_with_weights_to_nearest():
    model = network()
    before = model.get_weights()
    found = rounded(model, 7)
    assert found.used
    assert found.moments < 0.5 * found.nearest
    assert found.layers == ("stem", "depthwise", "pointwise", "classes")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_zeros_stay_zeros():
    model = network()
    kernel = model.get_layer("pointwise").kernel
    kernel.assign(kernel.numpy() * (np.random.default_rng(0).random(kernel.shape) > 0.5))
    zeros = kernel.numpy() == 0
    assert not rounded(model, 127).model.get_layer("pointwise").kernel.numpy()[zeros].any()


def test_a_model_that_rounding_to_nearest_does_not_change_is_left_as_it_is():
    model = network()
    for layer in model.layers:
        if product := product_of(layer):
            matrix = np.random.default_rng(0).integers(-127, 128, product.matrix.shape).astype(float)
            matrix[:, 0] = 127
            product.assign(matrix / 512)
    found = rounded(model, 127)
    assert not found.used
    assert found.model is model
