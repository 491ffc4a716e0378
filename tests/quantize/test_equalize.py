"""Cross-layer equalization and bias correction: what they keep, and what they mend."""

import numpy as np

from edgeprune.quantize.equalize import equalize, find_pairs, no_pairs


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
