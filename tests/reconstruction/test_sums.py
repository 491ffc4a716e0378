"""The sum behind a layer."""

import numpy as np
import pytest
import tf_keras

from edgeprune.models.graph import View
from edgeprune.reconstruction.sums import Sum, sum_behind

layers = tf_keras.layers


def found_behind(body):
    inputs = layers.Input((4, 4, 3))
    x = layers.Conv2D(5, 1, name="layer")(inputs)
    model = tf_keras.Model(inputs, body(x, layers.Conv2D(5, 1, name="other")(inputs)))
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 2, weight.shape))
    view = View(model)
    (node,) = view.uses(model.get_layer("layer"))
    return sum_behind(view, node), node, model


CASES = {
    "at once": lambda x, other: layers.Add()([x, other]),
    "an operator": lambda x, other: other + x,
    "a normalization": lambda x, other: layers.Add()([other, layers.BatchNormalization()(x)]),
    "two steps": lambda x, other: layers.Add()([layers.Dropout(0.5)(layers.BatchNormalization(scale=False)(x)), other]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sum_rises_with_the_layers_output_by_the_scale(name):
    """Channel by channel; and the term that it reads is the one that the layer's output becomes."""
    (call, own, scale), node, model = found_behind(CASES[name])
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype("float32")
    inner = tf_keras.Model(model.inputs, [node.outputs, own, call.outputs])
    made, term, total = (np.asarray(value) for value in inner(x))
    node.layer.bias.assign(node.layer.bias + 1)
    more, more_of_term, more_in_total = (np.asarray(value) for value in inner(x))
    np.testing.assert_allclose(more_in_total - total, scale * (more - made), rtol=1e-3)
    np.testing.assert_allclose(more_of_term - term, more_in_total - total, rtol=1e-3)


@pytest.mark.parametrize(
    "body",
    [
        lambda x, other: layers.Add()([layers.ReLU()(x), other]),
        lambda x, other: layers.Add()([layers.MaxPooling2D()(x), layers.MaxPooling2D()(other)]),
        lambda x, other: layers.Concatenate()([layers.Add()([x, other]), x]),
        lambda x, other: layers.Concatenate()([x, other]),
    ],
)
def test_where_something_else_is_made_of_it_there_is_none(body):
    assert found_behind(body)[0] is None


def test_an_error_of_a_hidden_channel_is_not_made_up_for():
    """A normalization that hides a channel would ask for weights without bounds."""
    np.testing.assert_allclose(Sum((), (), np.array([2.0, 1e-6, -0.5])).inverse, [0.5, 0.0, -2.0])
