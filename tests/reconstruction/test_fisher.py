"""How much a model's answers feel errors."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeprune.reconstruction.fisher import output_fisher

layers = tf_keras.layers


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_of_probabilities_it_is_their_variance(activation):
    """Of the values before softmax or sigmoid, the Fisher information is p (1 - p): the closed form."""
    inputs = layers.Input((4,))
    model = tf_keras.Model(inputs, layers.Dense(3, activation, name="out")(inputs))
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 4)), 4000, 0).astype("float32")
    p = np.asarray(model(x[:1]))[0]
    found = output_fisher(model, [[x[:2000]], [x[2000:]]])
    np.testing.assert_allclose(found["out"], p * (1 - p), rtol=0.1)


def test_what_is_not_heard_is_not_felt():
    """A channel that the classifier does not read has none; a frozen layer has some all the same."""
    inputs = layers.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="relu", name="conv", trainable=False)(inputs)
    model = tf_keras.Model(inputs, layers.Dense(4, "softmax", name="out")(layers.GlobalAveragePooling2D()(x)))
    kernel = model.get_layer("out").kernel
    kernel.assign(np.where(np.arange(3)[:, None] == 1, 0, kernel))
    found = output_fisher(model, [[np.random.default_rng(0).normal(size=(50, 6, 6, 2)).astype("float32")]])
    assert found["conv"][1] == 0
    assert (found["conv"][[0, 2]] > 0).all()


def test_any_other_output_counts_by_its_own_scale():
    """A regression's answers in metres or millimetres feel the same errors."""
    inputs = layers.Input((3,))
    hidden = layers.Dense(4, name="hidden")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(1, name="out")(hidden))
    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    metres = output_fisher(model, [[x]])
    model.get_layer("out").kernel.assign(model.get_layer("out").kernel * 1000)
    np.testing.assert_allclose(output_fisher(model, [[x]])["hidden"], metres["hidden"], rtol=1e-3)


def test_outputs_of_several_axes_have_one_per_column():
    """A projection to heads has as many as its matrix has columns, in their order."""
    inputs = layers.Input((5, 4))
    heads = layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", name="heads")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(3, "softmax", name="out")(layers.Flatten()(heads)))
    kernel = model.get_layer("out").kernel
    heard = np.tile(np.arange(6) != 4, 5)[:, None]
    kernel.assign(np.where(heard, kernel, 0))
    found = output_fisher(model, [[np.random.default_rng(0).normal(size=(50, 5, 4)).astype("float32")]])
    assert found["heads"].shape == (6,)
    assert np.flatnonzero(found["heads"] == 0).tolist() == [4]


def test_a_last_batch_of_one_sample_changes_nothing():
    """How far numbers vary is seen from many samples: one alone has no variance, and would count a billion times."""
    inputs = layers.Input((16,))
    trunk = layers.Dense(8, "relu", name="trunk")(inputs)
    model = tf_keras.Model(inputs, [layers.Dense(3, "softmax")(trunk), layers.Dense(1, name="number")(trunk)])
    x = np.random.default_rng(0).normal(size=(97, 16)).astype("float32")
    found, with_one = (output_fisher(model, [[x[i : min(i + 32, n)]] for i in range(0, n, 32)]) for n in (96, 97))
    singly = output_fisher(model, [[one[None]] for one in x])
    for name, values in found.items():
        np.testing.assert_allclose(with_one[name].sum(), values.sum(), rtol=0.2)
        np.testing.assert_allclose(singly[name].sum(), values.sum(), rtol=0.5)


def test_samples_without_a_slope_are_left_out():
    """The root of zero has none: the information is that of the other samples, and finite."""
    inputs = layers.Input((4,))
    root = layers.Lambda(tf.sqrt)(layers.Dense(2, "relu", name="hidden")(inputs))
    found = output_fisher(tf_keras.Model(inputs, root), [[np.random.default_rng(0).normal(size=(64, 4)).astype("f4")]])
    assert np.isfinite(found["hidden"]).all()
    assert (found["hidden"] > 0).all()
