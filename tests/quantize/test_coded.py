"""Grids of integers for the fewest bytes after encoding."""

import numpy as np
import pytest
import tf_keras

from edgeprune.convert.converter import convert
from edgeprune.models.rebuild import copy_model
from edgeprune.prune.choice.program import Infeasible
from edgeprune.quantize.coded import OPERATOR_BYTES, allocate, choices, model_bytes, smallest, within_size
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.reconstruction.linear import product_of
from edgeprune.reconstruction.refit import refit
from edgeprune.tflite.compact import compact
from edgeprune.tflite.encode import encoded

layers = tf_keras.layers


@pytest.fixture(scope="module")
def model():
    """A stem, a depthwise and a pointwise convolution with normalization, a dense layer; weights as training leaves
    them, the input of each is correlated."""
    tf_keras.utils.set_random_seed(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.Conv2D(48, 3, name="wide", activation="relu")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.GlobalAveragePooling2D()(x)
    return tf_keras.Model(inputs, layers.Dense(5, activation="softmax", name="classes")(x))


@pytest.fixture(scope="module")
def batches():
    noise = np.random.default_rng(1).normal(size=(64, 12, 12, 3)).cumsum(1).cumsum(2)
    return [[batch.astype("float32")] for batch in np.split(noise, 4)]


@pytest.fixture(scope="module")
def tensors(model, batches):
    return choices(model, batches, ridge=1e-4)


@pytest.fixture(scope="module")
def make(model, batches):
    def rounded(options):
        copy = copy_model(model)
        refit(model, copy, batches, grids={name: option.grid for name, option in options.items()})
        return copy

    return rounded


def error(model, batches):
    """A function from a model to its mean square difference from ``model``, relative to what that varies."""
    wanted = np.concatenate([model(x).numpy() for (x,) in batches])

    def of(other):
        return float(np.square(np.concatenate([other(x).numpy() for (x,) in batches]) - wanted).mean() / wanted.var())

    return of


def test_each_tensor_has_options_that_pay(tensors):
    """Fewer bytes cost more loss, the first is next to lossless, and the last takes a fraction of eight bits."""
    assert [one.layer for one in tensors] == ["stem", "depthwise", "wide", "classes"]
    for one in tensors:
        sizes, losses = ([getattr(option, what) for option in one.options] for what in ("bytes", "loss"))
        assert sizes == sorted(sizes, reverse=True)
        assert losses == sorted(losses)
    wide = tensors[2]
    assert wide.options[-1].bytes < 0.35 * wide.weights
    assert wide.options[0].loss < 1e-3 * wide.options[-1].loss


def test_the_choice_is_the_best_within_its_bytes(tensors):
    """More bytes never cost loss, the limit holds, and what none of the options reaches is refused."""
    whole = sum(one.options[0].bytes for one in tensors)
    losses = []
    for share in (0.5, 0.6, 0.8, 1.0):
        options, loss = allocate(tensors, share * whole)
        assert sum(option.bytes for option in options.values()) <= share * whole
        assert loss == pytest.approx(sum(option.loss for option in options.values()))
        losses.append(loss)
    assert losses == sorted(losses, reverse=True)
    with pytest.raises(Infeasible):
        allocate(tensors, 100)


def test_the_file_takes_as_many_bytes_as_counted(model, tensors, make):
    """The converter finds the grids: what the encoder writes is what the program counted, operators included."""
    options, _ = allocate(tensors, 0.5 * sum(one.options[0].bytes for one in tensors))
    rounded = make(options)
    samples = [[row[None]] for row in np.random.default_rng(2).normal(size=(8, 12, 12, 3)).astype("float32")]
    content = convert(rounded, QuantizationPlan("int8", "int8", True), lambda: iter(samples))
    encoding = encoded(content)
    coded = [one for one in encoding.tensors if one.code]
    stored = sum(one.bytes for one in encoding.tensors)
    counted = model_bytes(rounded, list(options))
    assert counted == pytest.approx(stored + OPERATOR_BYTES * len(coded), abs=16 * len(encoding.tensors))
    saved = sum(one.plain_bytes - one.bytes for one in coded)
    each = (len(compact(encoding.content)) + saved - len(compact(content))) / len(coded)
    assert each == pytest.approx(OPERATOR_BYTES, abs=60)


def test_the_smallest_size_that_is_good_enough(model, batches, tensors, make):
    """Sizes are halved until one is left: it keeps the limit, and smaller ones that were tried did not."""
    trials = smallest(tensors, make, error(model, batches), lambda value: value <= 1e-3, steps=5)
    *others, chosen = trials
    assert len(trials) == 5
    assert chosen.met
    assert error(model, batches)(chosen.model) == pytest.approx(chosen.drop)
    assert all(one.model is None for one in others)
    assert all(one.bytes >= chosen.bytes for one in others if one.met)
    assert any(not one.met and one.bytes < chosen.bytes for one in others)


def test_where_no_size_is_good_enough_the_largest_is_taken(model, batches, tensors, make):
    """It is marked as what was not allowed."""
    chosen = smallest(tensors, make, error(model, batches), lambda value: False, steps=1)[-1]
    assert not chosen.met
    assert {option.grid.levels for option in chosen.options.values()} == {127}
    assert chosen.drop < 1e-3


def test_a_size_is_kept_after_rounding(model, batches, tensors, make):
    """The bytes of the rounded weights are within the limit; refitting has changed some of them."""
    most = 0.45 * sum(one.options[0].bytes for one in tensors)
    chosen = within_size(tensors, most, make, error(model, batches))[-1]
    assert chosen.met
    assert 0.9 * most < chosen.bytes <= most
    assert chosen.bytes == model_bytes(chosen.model, list(chosen.options))


def test_zeros_stay_zero(model, batches):
    """What pruning removed does not come back on any grid."""
    pruned = copy_model(model)
    kernel = pruned.get_layer("wide").kernel
    kept = np.random.default_rng(3).random(kernel.shape) > 0.7
    kernel.assign(kernel.numpy() * kept)
    found = choices(pruned, batches, ridge=1e-4)
    copy = copy_model(pruned)
    options, _ = allocate(found, 0.6 * sum(one.options[0].bytes for one in found))
    refit(pruned, copy, batches, grids={name: option.grid for name, option in options.items()})
    assert not product_of(copy.get_layer("wide")).weight.numpy()[~kept].any()
