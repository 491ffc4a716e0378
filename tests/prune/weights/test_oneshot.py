"""Zeroing weights that a refit can make up for."""

import numpy as np
import pytest
import tf_keras

from edgeprune.models.rebuild import copy_model
from edgeprune.prune.weights.engines import check
from edgeprune.prune.weights.oneshot import zero_weights
from edgeprune.recipe.config import WeightsConfig
from edgeprune.reconstruction.refit import refit

layers = tf_keras.layers


@pytest.fixture(scope="module")
def model():
    tf_keras.utils.set_random_seed(0)
    inputs = layers.Input((10, 10, 4))
    x = layers.Conv2D(16, 3, activation="relu", name="first")(inputs)
    x = layers.SeparableConv2D(16, 3, activation="relu", name="separable")(x)
    x = layers.Conv2D(16, 3, groups=2, activation="relu", name="grouped")(x)
    x = layers.Reshape((16, 16))(x)
    x = layers.LSTM(8, name="recurrent")(x)
    return tf_keras.Model(inputs, layers.Dense(6, activation="softmax", name="classes")(x))


def batches(seed=0):
    noise = np.random.default_rng(seed).normal(size=(256, 10, 10, 4)).cumsum(1).cumsum(2)
    return [[part.astype("float32")] for part in np.split(noise, 8)]


def config(**options):
    return WeightsConfig(criterion="reconstruct", **{"sparsity": 0.5, **options})


@pytest.mark.parametrize(
    ("pattern", "scope"),
    [
        pytest.param("weight", "layer", marks=pytest.mark.slow),
        ("weight", "global"),
        ("2:4", "layer"),  # holds in every group, so there is no ranking over all
        pytest.param("block:1x4", "layer", marks=pytest.mark.slow),
        pytest.param("block:1x4", "global", marks=pytest.mark.slow),
        pytest.param("connection", "layer", marks=pytest.mark.slow),
        pytest.param("connection", "global", marks=pytest.mark.slow),
    ],
)
def test_as_many_weights_go_as_the_recipe_says(model, pattern, scope):
    """In the pattern of the recipe, in layers that can be refitted and in those that cannot."""
    pruned = copy_model(model)
    some = config(granularity=pattern, scope=scope, exclude=("recurrent",) if pattern != "weight" else ())
    names = zero_weights(pruned, some, batches(), ridge=1e-4)
    rows = check(pruned, names, some)
    assert {row["layer"] for row in rows} == set(names)
    zeros, size = (sum(row[key] for row in rows) for key in ("zeros", "size"))
    assert zeros == pytest.approx(0.5 * size, abs=40)
    before = [np.count_nonzero(weight) for weight in pruned.get_weights()]
    refit(model, pruned, batches())
    assert all(np.count_nonzero(w) <= n or w.ndim < 2 for w, n in zip(pruned.get_weights(), before, strict=True))


def test_outputs_stay_nearer_than_without_the_smallest_weights(model):
    """After a refit, the outputs on other inputs are nearer to the model's than with the smallest weights zeroed."""
    chosen, smallest = copy_model(model), copy_model(model)
    names = zero_weights(chosen, config(scope="global"), batches(), ridge=1e-4)
    for name in names:
        for weight in smallest.get_layer(name).weights:
            if len(weight.shape) > 1:
                value = weight.numpy()
                weight.assign(np.where(np.abs(value) > np.median(np.abs(value)), value, 0))
    for pruned in (chosen, smallest):
        refit(model, pruned, batches())
    (x,) = batches(seed=5)[0]
    errors = [np.square(pruned(x) - model(x)).sum() for pruned in (chosen, smallest)]
    assert errors[0] < errors[1]


@pytest.mark.slow
def test_the_same_seed_chooses_the_same_zeros(model):
    first, second = copy_model(model), copy_model(model)
    for pruned in (first, second):
        zero_weights(pruned, config(), batches(), ridge=1e-4, seed=3)
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
