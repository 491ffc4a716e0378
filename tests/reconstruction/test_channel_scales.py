"""Scales and shifts of channels that bring the answers of a changed model back."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from matrix import representatives
from random_weights import randomize

from edgeprune.models.graph import View
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.reconstruction import channel_scales
from edgeprune.reconstruction.answers import answers_of, divergence, kinds_of
from edgeprune.reconstruction.channel_scales import scale_channels
from edgeprune.reconstruction.forward import call
from edgeprune.reconstruction.refit import refit

layers = tf_keras.layers


def images(samples, seed=0, shape=(8, 8, 3)):
    return np.random.default_rng(seed).normal(size=(samples, *shape)).astype("float32")


def batches(x, size=50):
    return [[x[start : start + size]] for start in range(0, len(x), size)]


def apart(model, changed, others):
    """How far the answers of two models are from each other, in nats per sample."""
    answers = answers_of(model, others)
    return divergence(kinds_of(model, answers), answers, answers_of(changed, others))


@pytest.fixture
def classifier():
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, padding="same", use_bias=False, name="one")(inputs)
    x = shortcut = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depth")(x)
    x = layers.Add()([layers.Conv2D(12, 1, activation="relu", name="point")(x), shortcut])
    x = layers.Dense(5, "softmax", name="classes")(layers.GlobalAveragePooling2D()(x))
    model = randomize(tf_keras.Model(inputs, x))
    kernel = model.get_layer("classes").kernel
    kernel.assign(kernel * 10)  # answers that differ from sample to sample
    return model


def test_answers_come_nearer_on_samples_that_were_not_fitted_to(classifier):
    """After a refit of a pruned network, scales and shifts make up for more, and about as much as was promised."""
    graph = analyse(classifier)
    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        keep[group.units[: len(group.free) // 3]] = False
    pruned = surgery.remove(graph, keep)
    fitted, others = batches(images(1600)), batches(images(800, seed=1))
    refit(classifier, pruned, fitted, graph.kept_outputs(keep))
    before = apart(classifier, pruned, others)
    found = scale_channels(classifier, pruned, fitted)
    after = apart(classifier, pruned, others)
    assert found.damping is not None
    assert found.after < found.before
    assert after < 0.95 * before
    np.testing.assert_allclose([found.before, found.after], [before, after], rtol=0.2)


def test_of_one_number_the_step_is_a_ridge_regression():
    """A linear model with one output: scales and shifts are those of the closed form, with the damping as the ridge."""
    inputs = layers.Input((6,))
    first = layers.Dense(3, name="first")
    model = tf_keras.Model(inputs, layers.Dense(1, use_bias=False, name="last", trainable=False)(first(inputs)))
    changed = tf_keras.models.clone_model(model)
    changed.set_weights([weight * 1.3 + 0.2 for weight in model.get_weights()])
    x = images(400, shape=(6,))
    start = changed.get_weights()
    wanted, given = (np.asarray(one(x), np.float64)[:, 0] for one in (model, changed))
    found = scale_channels(model, changed, batches(x))
    hidden = x.astype(np.float64) @ start[0] + start[1]
    mean, spread = hidden.mean(0), hidden.std(0)
    terms = np.concatenate(
        [(hidden - mean) * start[2][:, 0], spread * start[2][:, 0] * np.ones_like(hidden), given[:, None]], 1
    )
    curvature = terms.T @ terms / len(x) / wanted.var()
    damping = found.damping * np.trace(curvature) / 8  # the last layer's shift is never felt, and counts
    step = np.linalg.solve(curvature + damping * np.eye(7), terms.T @ (wanted - given) / len(x) / wanted.var())
    np.testing.assert_allclose(changed.get_weights()[0], start[0] * (1 + step[:3]), rtol=1e-3)
    np.testing.assert_allclose(changed.get_weights()[2], start[2] * (1 + step[6]), rtol=1e-3)
    np.testing.assert_allclose(
        changed.get_weights()[1], start[1] * (1 + step[:3]) + step[3:6] * spread - step[:3] * mean, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Dense(4),
        lambda: layers.Dense(4, use_bias=False),
        lambda: layers.Conv2D(4, 3, strides=2, groups=2),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.Conv2DTranspose(3, 3, strides=2),
        lambda: layers.Conv2D(4, 3, use_bias=False, name="normed"),
    ],
)  # fmt: skip
def test_channels_are_scaled_around_their_mean_and_shifted_by_their_spread(make):
    """In what a layer makes, and the batch normalization behind it; without a bias or that one, around zero."""
    inputs, layer = layers.Input((8, 8, 4)), make()
    behind = layers.BatchNormalization(center=False, scale=False)(layer(inputs)) if layer.name == "normed" else None
    model = randomize(tf_keras.Model(inputs, layer(inputs) if behind is None else behind))
    view = View(model)
    nodes = [node for node in view.nodes if node.layer is layer]
    channels = channel_scales._channels_of(view)[layer.name]
    x = images(20, shape=(8, 8, 4))
    made = call(nodes[0], {id(model.inputs[0]): x})
    channels.count_in(made, len(x))
    before = np.asarray(model(x))
    generator = np.random.default_rng(2)
    scales, shifts = generator.normal(size=(2, channels.count)) / 5
    channels.set(scales, shifts)
    if layer.name == "normed":
        norm = model.layers[-1]
        deviation = np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
        spread, mean = channels.spread / deviation, before.mean((0, 1, 2))
    else:
        spread, mean = channels.spread, before.mean((0, 1, 2)) if layer.use_bias else 0
    assert bool(np.any(channels.spread)) == (layer.use_bias or layer.name == "normed")
    np.testing.assert_allclose(model(x), mean + (1 + scales) * (before - mean) + shifts * spread, rtol=1e-3, atol=1e-4)


def test_an_unchanged_model_stays_as_it_is(classifier):
    """To the last bit."""
    same = tf_keras.models.clone_model(classifier)
    same.set_weights(classifier.get_weights())
    found = scale_channels(classifier, same, batches(images(200)))
    assert (found.before, found.after, found.damping) == (0, 0, None)
    for ours, theirs in zip(same.get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_zeros_stay_zero(classifier):
    """Scales leave the pattern of zeros as it is."""
    sparse = tf_keras.models.clone_model(classifier)
    generator = np.random.default_rng(0)
    sparse.set_weights(
        [
            weight * (generator.random(weight.shape) > 0.3) if weight.ndim > 1 else weight
            for weight in classifier.get_weights()
        ]
    )
    zeros = [weight == 0 for weight in sparse.get_weights() if weight.ndim > 1]
    assert scale_channels(classifier, sparse, batches(images(800))).damping is not None
    for weight, gone in zip((weight for weight in sparse.get_weights() if weight.ndim > 1), zeros, strict=True):
        np.testing.assert_array_equal(weight == 0, gone)


def test_where_there_is_only_noise_to_fit_nothing_gets_worse():
    """Errors that no scale makes up for are no larger on other samples afterwards, by a hundredth at most."""
    tf_keras.utils.set_random_seed(0)
    inputs = layers.Input((40,))
    model = tf_keras.Model(inputs, layers.Dense(30, name="out")(inputs))
    others = batches(images(2000, seed=99, shape=(40,)))
    kernel, untouched = model.get_weights()[0].astype(np.float64), 0
    for seed in range(5):
        changed = tf_keras.models.clone_model(model)
        moved = kernel + np.random.default_rng(seed).normal(size=kernel.shape) / 10
        # As large as is best for inputs that are not correlated, so that only the samples at hand ask for other scales.
        moved *= (moved * kernel).sum(0) / np.square(moved).sum(0)
        changed.set_weights([moved, np.zeros(30)])
        before = apart(model, changed, others)
        untouched += scale_channels(model, changed, batches(images(200, seed, (40,)), 10)).damping is None
        assert apart(model, changed, others) < 1.01 * before
    assert untouched > 0


def test_too_few_samples_are_no_evidence(classifier):
    """Three samples scale nothing."""
    changed = tf_keras.models.clone_model(classifier)
    assert scale_channels(classifier, changed, batches(images(3), 1)) is None


def test_large_models_are_left_out(classifier, monkeypatch):
    """Where the runs would take too long for as many samples as determine the scales, nothing is scaled."""
    changed = tf_keras.models.clone_model(classifier)
    monkeypatch.setattr(channel_scales, "_WORK", 1e6)
    assert scale_channels(classifier, changed, batches(images(400))) is None


def test_outputs_that_cannot_be_compared_scale_nothing():
    """The number of the likeliest class is no measure of how far an answer is off."""
    inputs = layers.Input((4,))
    best = layers.Lambda(lambda values: tf_keras.backend.argmax(values))(layers.Dense(3)(inputs))
    model = tf_keras.Model(inputs, best)
    assert scale_channels(model, model, batches(images(40, shape=(4,)), 10)) is None


def test_a_layer_that_is_called_twice_has_one_scale_for_both():
    """Its gradients are added; the answers come nearer."""
    inputs = layers.Input((6,))
    shared = layers.Dense(6, "relu", name="shared")
    model = randomize(tf_keras.Model(inputs, layers.Dense(2, name="out")(shared(shared(inputs)))))
    changed = tf_keras.models.clone_model(model)
    changed.set_weights([weight * 1.2 for weight in model.get_weights()])
    others = batches(images(400, seed=1, shape=(6,)))
    before = apart(model, changed, others)
    assert scale_channels(model, changed, batches(images(800, shape=(6,)))).damping is not None
    assert apart(model, changed, others) < 0.5 * before


@pytest.mark.parametrize("activation", representatives([None, "relu"], None))
def test_numbers_between_zero_and_one_are_no_chances(activation):
    """A changed model may leave that range; the answers come nearer all the same."""
    inputs = layers.Input((16,))
    hidden = layers.Dense(32, "relu")(inputs)
    model = randomize(tf_keras.Model(inputs, layers.Dense(1, activation, name="out")(hidden)))
    x = images(600, shape=(16,))
    low, high = (function(model.predict(x, verbose=0)) for function in (np.min, np.max))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel / (high - low), (bias - low) / (high - low)])
    assert -1e-5 <= model.predict(x, verbose=0).min() < model.predict(x, verbose=0).max() <= 1 + 1e-5
    changed = tf_keras.models.clone_model(model)
    changed.set_weights([weight * 1.3 for weight in model.get_weights()])
    before = apart(model, changed, batches(x))
    found = scale_channels(model, changed, batches(x))
    assert np.isfinite(found.before)
    assert apart(model, changed, batches(x)) < 0.5 * before


def test_samples_without_a_slope_are_left_out():
    """The root of a distance of zero has none. Weights stay finite, and the other samples are fitted."""
    left, right = layers.Input((8,), name="left"), layers.Input((8,), name="right")
    shared = layers.Dense(6, name="shared")
    apart_by = layers.Lambda(lambda pair: tf.sqrt(tf.reduce_sum(tf.square(pair[0] - pair[1]), -1, keepdims=True)))
    model = randomize(tf_keras.Model([left, right], apart_by([shared(left), shared(right)])))
    changed = tf_keras.models.clone_model(model)
    changed.set_weights([weight * 1.4 for weight in model.get_weights()])
    a, b = images(400, 0, (8,)), images(400, 1, (8,))
    b[::40] = a[::40]
    pairs = [[a[start : start + 50], b[start : start + 50]] for start in range(0, 400, 50)]
    before = apart(model, changed, pairs)
    scale_channels(model, changed, pairs)
    assert all(np.isfinite(weight).all() for weight in changed.get_weights())
    assert apart(model, changed, pairs) < before


def test_an_answer_that_never_changes_asks_for_nothing():
    """A distribution over one class is always 1: its gradients are what rounding leaves."""
    inputs = layers.Input((8,))
    model = randomize(tf_keras.Model(inputs, layers.Dense(1, "softmax")(layers.Dense(6, "relu")(inputs))))
    changed = tf_keras.models.clone_model(model)
    weights = [weight * 1.1 for weight in model.get_weights()]
    changed.set_weights(weights)
    scale_channels(model, changed, batches(images(300, shape=(8,))))
    for before, after in zip(weights, changed.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_models_of_open_size_are_left_as_they_are():
    """Nobody knows how long their runs take."""
    inputs = layers.Input((None, None, 3))
    hidden = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2, "softmax")(hidden))
    assert scale_channels(model, model, batches(images(100))) is None
