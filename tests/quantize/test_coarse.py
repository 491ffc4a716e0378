"""Outputs whose integers are too far apart for their typical values: found, and kept in float by mixed precision."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import tf_keras  # noqa: E402

from edgeprune.convert.converter import calibrate, convert, quantize_calibrated  # noqa: E402
from edgeprune.quantize.coarse import answers_of, coarse_outputs  # noqa: E402
from edgeprune.quantize.plan import QuantizationPlan  # noqa: E402
from edgeprune.tflite.flatbuffer import parse  # noqa: E402

INT8 = QuantizationPlan("int8", "float", True)


@pytest.fixture(scope="module")
def detector():
    """Two outputs of which one has few values far off, as scores before a sigmoid have."""
    tf_keras.utils.set_random_seed(3)
    i = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.Conv2D(4, 3, padding="same", activation="relu")(i)
    boxes = tf_keras.layers.Reshape((64, 4), name="regressors")(tf_keras.layers.Conv2D(4, 1)(x))
    scores = tf_keras.layers.Conv2D(1, 1, name="head")(x)
    scores = tf_keras.layers.Reshape((64, 1), name="classificators")(scores - 40.0 * tf.nn.relu(scores - 1.5))
    return tf_keras.Model(i, [boxes, scores])


@pytest.fixture(scope="module")
def samples():
    draw = np.random.default_rng(0)
    return [[draw.normal(size=(1, 8, 8, 3)).astype("float32")] for _ in range(16)]


def test_coarse_output(detector, samples):
    """The output with a stretched range is named, with what has to be in float; the other is not."""
    values = answers_of(detector, samples)
    (found,) = coarse_outputs(parse(convert(detector, INT8, lambda: iter(samples))), values)
    assert found.name == "classificators"
    assert found.step > 0.1 * found.spread
    assert 'modes = ["mixed"]' in found.warning
    assert len(found.tensors) >= 2  # the reshape, and the operator that computes


def test_in_float_it_is_not_coarse(detector, samples):
    """With these operators in float, no output is coarse, and the file still computes in int8."""
    values = answers_of(detector, samples)
    calibrated = calibrate(detector, INT8, lambda: iter(samples), ["minmax"])["minmax"]
    (found,) = coarse_outputs(parse(quantize_calibrated(calibrated, INT8, detector)), values)
    plan = QuantizationPlan("mixed", "float", True, float_tensors=found.tensors)
    made = parse(quantize_calibrated(calibrated, plan, detector))
    assert coarse_outputs(made, values) == []
    graph = made.subgraphs[0]
    assert any(o.name == "CONV_2D" and graph.output(o).dtype == "int8" for o in graph.operators)


def test_fractions_and_floats_are_fine(samples):
    """Probabilities use all of their range, and files of floats have no steps."""
    i = tf_keras.Input((8, 8, 3))
    model = tf_keras.Model(i, tf_keras.layers.Dense(5, activation="softmax")(tf_keras.layers.Flatten()(10.0 * i)))
    values = answers_of(model, samples)
    assert coarse_outputs(parse(convert(model, INT8, lambda: iter(samples))), values) == []
    plan = QuantizationPlan("float32", "float", False)
    assert coarse_outputs(parse(convert(model, plan)), values) == []
