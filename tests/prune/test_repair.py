"""Reconstruction after pruning, from Python."""

import numpy as np
import pytest
import tf_keras
from matrix import representatives

import edgeprune
from edgeprune.errors import DataError, UsageError

layers = tf_keras.layers


@pytest.fixture
def model(randomize):
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(12, 3, padding="same", use_bias=False, name="one")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = shortcut = layers.Conv2D(8, 1, name="two")(x)
    x = layers.Add()([layers.Conv2D(8, 3, padding="same", name="three")(layers.ReLU()(x)), shortcut])
    return randomize(tf_keras.Model(inputs, layers.Dense(4, name="out")(layers.Flatten()(x))))


@pytest.fixture
def images():
    return np.random.default_rng(3).normal(size=(1700, 8, 8, 3)).astype("float32")


def _distance(model, other, x):
    return float(np.square(np.asarray(model(x)) - np.asarray(other(x))).mean())


def test_a_pruned_model_is_repaired_without_labels(model, images):
    """The repaired model is much nearer to the unpruned one on images that it was not fitted to; both inputs stay."""
    pruned = edgeprune.prune_filters(model, 0.4)
    before = [weight.copy() for weight in pruned.model.get_weights()]
    found = edgeprune.reconstruct(model, pruned, images[:200])
    assert isinstance(found, edgeprune.Reconstructed)
    assert _distance(found.model, model, images[200:]) < 0.6 * _distance(pruned.model, model, images[200:])
    assert [weight.shape for weight in found.model.weights] == [weight.shape for weight in pruned.model.weights]
    for ours, old in zip(pruned.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, old)
    assert {one.layer for one in found.layers} == {"one", "two", "three", "out"}
    assert all(one.after <= one.before + 1e-9 for one in found.layers if one.after is not None)


@pytest.mark.slow
def test_channels_chosen_for_the_repair_are_repaired_better(model, images):
    """At the same budget, channels chosen knowing that they will be repaired leave less error than those by norm."""
    evidence = edgeprune.Evidence(lambda: [(images[start : start + 50],) for start in range(0, 1600, 50)])
    errors = {}
    for criterion in ("l2", "reconstruct"):
        pruned = edgeprune.prune_filters(model, max_macs=0.5, criterion=criterion, evidence=evidence)
        repaired = edgeprune.reconstruct(model, pruned, images[:1600]).model
        errors[criterion] = _distance(repaired, model, images[1600:])
    assert errors["reconstruct"] < errors["l2"]


FORMS = {"list": lambda x: [x], "by name": lambda x: {"image": x}}


@pytest.mark.parametrize("form", representatives(FORMS, "by name"))
def test_inputs_come_in_any_form(model, images, form):
    """An array, a list of arrays and arrays by name are the same."""
    pruned = edgeprune.prune_filters(model, 0.4)
    forms = (images[:100], FORMS[form](images[:100]))
    found, other = (edgeprune.reconstruct(model, pruned, inputs).model.get_weights() for inputs in forms)
    for a, b in zip(found, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"picture": np.zeros((4, 8, 8, 3))}, "lack 'image'"),
        (np.zeros((4, 9, 8, 3)), r"\(4, 9, 8, 3\)"),
        ([], "of nothing"),
        (np.zeros((0, 8, 8, 3)), r"\(0, 8, 8, 3\)"),
        (None, r"\(\)"),
        ("images.npz", r"\(\)"),
        (np.zeros((4, 8, 8, 3), complex), "the type complex128"),
        (np.zeros((4, 8, 8, 3), object), "the type object"),
        (np.where(np.arange(4).reshape(4, 1, 1, 1) == 2, np.nan, np.zeros((4, 8, 8, 3))), "Sample 2 .* not finite"),
        (np.full((4, 8, 8, 3), 1e300), "Sample 0 .* not finite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(model, inputs, words):
    """Wrong names, shapes and numbers of inputs are data errors that say what the model takes."""
    with pytest.raises(DataError, match=words):
        edgeprune.reconstruct(model, edgeprune.prune_filters(model, 0.4), inputs)


def test_whole_numbers_are_inputs_as_they_are_for_keras(model, images):
    """Images of bytes repair a model as the same numbers in float32 do."""
    pruned = edgeprune.prune_filters(model, 0.4)
    pixels = (50 * np.abs(images[:100])).astype("uint8")
    found = [edgeprune.reconstruct(model, pruned, x).model.get_weights() for x in (pixels, pixels.astype("float32"))]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_models_that_do_not_belong_together_are_refused(model, images):
    """A pruned model without what was removed, and another model, are refused; the message says what to pass."""
    pruned = edgeprune.prune_filters(model, 0.4)
    with pytest.raises(UsageError, match="which of its channels are left is not known"):
        edgeprune.reconstruct(model, pruned.model, images)
    inputs = layers.Input((8, 8, 3))
    other = tf_keras.Model(inputs, layers.Conv2D(4, 3, name="elsewhere")(inputs))
    with pytest.raises(UsageError, match="do not belong together"):
        edgeprune.reconstruct(model, other, images)


def test_a_model_that_lost_nothing_but_parts_of_attention_is_repaired(randomize):
    """No output of a layer has fewer channels then; that the model was pruned is known all the same."""
    inputs = layers.Input((6, 8))
    x = layers.MultiHeadAttention(2, 6, name="attention")(inputs, inputs)
    model = randomize(tf_keras.Model(inputs, layers.Dense(3, name="out")(layers.GlobalAveragePooling1D()(x))))
    rates = edgeprune.Constraints(layer_rates={"attention/key_dim": 0.5, "*": 0.0})
    pruned = edgeprune.prune_filters(model, 0.1, allocation="uniform", constraints=rates)
    assert set(pruned.removed) == {"attention/key_dim"}
    x = np.random.default_rng(0).normal(size=(400, 6, 8)).astype("float32")
    found = edgeprune.reconstruct(model, pruned, x)
    assert _distance(found.model, model, x) <= _distance(pruned.model, model, x)
