"""Whether two models compute the same: what counts as a difference."""

import numpy as np
import pytest

from edgeprune._tensorflow import import_tf
from edgeprune.errors import ModelError, VerificationError
from edgeprune.models.load import load_model
from edgeprune.models.verify import largest_difference, random_inputs, refuse_random
from edgeprune.prune.filters import prune_filters

tf = import_tf()
import tf_keras  # noqa: E402

ONE = np.array([[1.0, -4.0]])


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        ([[1.0, -4.0]], 0.0),
        ([[1.0, -3.0]], 0.25),
        ([[1.0, np.nan]], np.inf),
        ([[1.0, np.inf]], np.inf),
        ([[1.0, -4.0, 0.0]], np.inf),
    ],
    ids=str,
)
def test_differences_are_relative_to_the_largest_value(found, difference):
    """A number that is none in one of both only, or another shape, is an infinite difference, on either side."""
    assert largest_difference([ONE], [np.array(found)]) == difference
    if difference in (0.0, np.inf):
        assert largest_difference([np.array(found)], [ONE]) == difference


def test_numbers_that_are_none_must_be_the_same():
    """NaN equals NaN, and infinities of one sign each other; the rest is still compared."""
    odd = np.array([np.nan, np.inf, 2.0])
    assert largest_difference([odd], [odd]) == 0.0
    assert largest_difference([odd], [np.array([np.inf, np.inf, 2.0])]) == np.inf
    assert largest_difference([odd], [np.array([np.nan, -np.inf, 2.0])]) == np.inf
    assert largest_difference([odd, ONE], [odd, ONE * 0.5]) == 0.5


def _cast(L, i):
    return tf.cast(i, "int32")


def _reshape(L, i):
    return L.Reshape((3, 2))(L.Flatten()(i))


def _slice(L, i):
    return i[:, 1:3]


def _squeeze(L, i):
    return tf.squeeze(tf.expand_dims(i, -1), -1)


def _concatenation(L, i):
    return L.Concatenate()([i, tf.split(i, 2, axis=-1)[0]])


def _lambda(L, i):
    return L.Lambda(lambda x: tf.cast(x, "int32"))(i)


@pytest.mark.parametrize("way", [_cast, _reshape, _slice, _squeeze, _concatenation, _lambda])
def test_numbers_that_are_looked_up_later_are_whole(way):
    """What reaches an Embedding past layers that only move it is small whole numbers that the Embedding knows."""
    L = tf_keras.layers
    i = L.Input((6,))
    model = tf_keras.Model(i, L.Embedding(3, 4)(way(L, i)))
    (values,) = random_inputs(model, samples=50)
    assert set(np.unique(values)) == {0, 1, 2}


def test_numbers_that_are_looked_up_in_another_model_or_a_wrapper_are_whole():
    """An Embedding is found in a nested model and in a TimeDistributed."""
    L = tf_keras.layers
    inner = tf_keras.Sequential([L.Input((6,)), L.Reshape((2, 3)), L.TimeDistributed(L.Embedding(3, 4))])
    i = L.Input((6,))
    (values,) = random_inputs(tf_keras.Model(i, inner(i)), samples=50)
    assert set(np.unique(values)) == {0, 1, 2}


def test_numbers_that_are_computed_with_first_are_not_whole():
    """Behind arithmetic and weights, what is looked up says nothing about the input."""
    L = tf_keras.layers
    i = L.Input((6,))
    model = tf_keras.Model(i, L.Embedding(3, 4)(tf.cast(L.Dense(1, "sigmoid")(i) * 2, "int32")))
    (values,) = random_inputs(model, samples=50)
    assert len(np.unique(values)) > 100


class _Noise(tf_keras.layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


def _sampling(L, x):
    return _Noise(name="drawn")(x)


def _dropout(L, x):
    return L.Dropout(0.5, name="drawn")(x, training=True)


def _random_model(L, Model, draw=_dropout):
    i = L.Input((5,))
    return Model(i, L.Dense(3)(L.Dense(8)(draw(L, L.Dense(8)(i)))))


@pytest.mark.parametrize("draw", [_dropout, _sampling])
def test_random_numbers_in_inference_are_named_when_pruning(draw):
    """A model that draws random numbers cannot be verified: the error names the layer, and pruning without goes on."""
    model = _random_model(tf_keras.layers, tf_keras.Model, draw)
    with pytest.raises(VerificationError, match=r"'drawn' draws random numbers in inference(.|\n)*verify = false"):
        prune_filters(model, 0.4)
    assert prune_filters(model, 0.4, verify=False).model.count_params() < model.count_params()


def test_random_numbers_in_inference_are_named_when_loading(keras3):
    """A nested model and one of Keras 3 cannot be compared with what is made of them, either."""
    L = tf_keras.layers
    i = L.Input((5,))
    nested = tf_keras.Model(i, L.Dense(2)(_random_model(L, tf_keras.Model)(i)))
    for model in (nested, _random_model(keras3.layers, keras3.Model)):
        with pytest.raises(ModelError, match="'drawn' draws random numbers in inference"):
            load_model(model)


def test_a_fixed_batch_of_one_input_is_that_of_all():
    """A model of one input with a batch of fixed size and one without is loaded, and drawn as many samples for."""
    L = tf_keras.layers
    inputs = [L.Input((3,)), L.Input((4, 2), batch_size=5)]
    model = tf_keras.Model(inputs, L.Concatenate()([L.Dense(2)(inputs[0]), L.Flatten()(inputs[1])]))
    assert [value.shape for value in random_inputs(model)] == [(5, 3), (5, 4, 2)]
    load_model(tf_keras.Model(model.inputs, model(model.inputs)))


def test_a_state_is_not_a_random_number():
    """A recurrent layer that goes on from its last state is not called random; dropout in inference draws nothing."""
    L = tf_keras.layers
    i = L.Input((5, 3), batch_size=2)
    model = tf_keras.Model(i, L.Dropout(0.5)(L.LSTM(4, stateful=True)(i)))
    refuse_random(model, random_inputs(model), ModelError)
