"""What a rectifier lets through of a layer's errors."""

import numpy as np
import pytest
import tf_keras

from edgeprune.models.graph import View
from edgeprune.reconstruction.moments import Moments, fit
from edgeprune.reconstruction.rectified import Rectifier, Rows

layers = tf_keras.layers


def rectifier_behind(body, known=True):
    inputs = layers.Input((4, 4, 3))
    x = layers.Conv2D(5, 1, name="layer")(inputs)
    model = tf_keras.Model(inputs, body(x, inputs))
    view = View(model)
    (node,) = view.uses(model.get_layer("layer"))
    return Rectifier.behind(view, node, lambda tensor: known), node, model


def add(x, inputs):
    return layers.Add()([layers.BatchNormalization()(x), layers.Conv2D(5, 1)(inputs)])


CASES = {
    "relu": (lambda x, i: layers.ReLU()(x), 0),
    "relu6": (lambda x, i: layers.Activation("relu6")(layers.BatchNormalization()(x)), 1),
    "operation": (lambda x, i: __import__("tensorflow").nn.relu(x), 0),
    "sum": (lambda x, i: layers.ReLU(6.0)(add(x, i)), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_found_with_what_it_reads(name):
    """The value that it reads is the one of the original model, and rises with the layer's output by the slope."""
    body, steps = CASES[name]
    found, node, model = rectifier_behind(body)
    assert len(found.steps) == steps
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).uniform(0.5, 2, weight.shape))
    found, node, model = Rectifier.behind(View(model), node, lambda tensor: True), node, model
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype("float32")
    inner = tf_keras.Model(model.inputs, [node.outputs, *(step.keras_inputs[-1] for step in found.steps[1:])])
    linear, *others = inner(x) if found.steps[1:] else [inner(x)]
    values = dict(zip([id(step.keras_inputs[-1]) for step in found.steps[1:]], others, strict=True))
    reached = found.reached(node, linear, values)
    np.testing.assert_allclose(np.clip(reached, found.low, found.high), model(x), rtol=1e-5)
    np.testing.assert_allclose(found.reached(node, linear + 1, values) - reached, found.slope + 0 * reached, rtol=1e-3)


@pytest.mark.parametrize(
    "body",
    [
        lambda x, i: layers.LeakyReLU()(x),
        lambda x, i: layers.ReLU(negative_slope=0.1)(x),
        lambda x, i: layers.ReLU()(layers.MaxPooling2D()(x)),
        lambda x, i: layers.Concatenate()([layers.ReLU()(x), x]),
        lambda x, i: x,
    ],
)
def test_where_values_pass_another_way_there_is_none(body):
    assert rectifier_behind(body)[0] is None


def test_a_sum_whose_other_terms_are_not_known_has_none():
    assert rectifier_behind(CASES["sum"][0], known=False)[0] is None


def test_targets_move_only_where_values_are_cut_off():
    """Passing values keep their targets. A value that is cut off takes what the layer gives, if that is cut off, too,
    or else the edge."""
    rows = Rows(Rectifier((), np.array([2.0]), 0.0, 6.0))
    reached = np.array([3.0, -1.0, -1.0, 8.0, 8.0])
    wanted, given = reached / 2, np.array([0.0, -3.0, 4.0, 5.0, 1.0])
    rows.add(*(value.reshape(1, -1, 1).astype("float32") for value in (given, wanted, reached)))
    ((_, targets),) = rows.targets(np.ones((1, 1, 1)), np.zeros((1, 1)))
    np.testing.assert_allclose(targets.reshape(-1), [1.5, -3.0, 0.0, 5.0, 3.0])


def test_rows_beyond_the_room_for_them_are_let_go(monkeypatch):
    monkeypatch.setattr("edgeprune.reconstruction.rectified.ROWS_BYTES", 1000)
    rows = Rows(Rectifier((), np.ones(1), 0.0, 6.0))
    for _ in range(3):
        rows.add(*(np.zeros((1, 50, 1), "float32") for _ in range(3)))
    assert not rows.fits


def test_what_is_right_already_stays_where_inputs_are_nearly_equal():
    """Rounding in the sums does not move a layer that gives what it should, however ill-conditioned its inputs are."""
    draw = np.random.default_rng(0)
    pixels = draw.normal(size=(1, 20_000, 1)) + 1e-2 * draw.normal(size=(1, 20_000, 6))
    x, matrix = pixels.astype(np.float32), draw.normal(size=(1, 6, 4))
    wanted = (x.astype(np.float64) @ matrix).astype(np.float32)
    rows = Rows(Rectifier((), np.ones(4), 0.0, 6.0))
    rows.add(x, wanted, wanted)
    moments = Moments(1, 6, 4)
    moments.add(x, wanted)
    moments = moments.with_targets(rows.targets(matrix, np.zeros((1, 4))))
    found = fit(moments, matrix, 1e-6, intercept=True)
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-5)
