"""What the converter says when it refuses a model, in terms of its layers."""

import numpy as np
import pytest
import tf_keras

from edgeprune.convert.converter import convert
from edgeprune.convert.refusals import translate
from edgeprune.errors import ConversionError
from edgeprune.quantize.plan import QuantizationPlan

_SAID = (
    '<unknown>:0: error: loc(fused[callsite(fused["AddV2:", "model/x/y/add@__inference_serve_1"] at fused["Call:", '
    '"Call"]), callsite(fused["Relu:", "model/{}/Relu@__inference_serve_1"])]): \'tfl.add\' op failed to verify.'
)


@pytest.mark.parametrize("other", ["x/y", "last"])
def test_the_layers_of_a_refusal_are_named(other):
    """The places of the graph that the converter's compiler names become the layers that they are of."""
    inputs = tf_keras.Input((2, 3))
    layers = [tf_keras.layers.PReLU(name=name) for name in ("x/y", "last")]
    model = tf_keras.Model(inputs, layers[1](layers[0](inputs)))
    error = translate(RuntimeError(_SAID.format(other)), model, "float32")
    named = dict.fromkeys(["x/y", other])
    assert "'tfl.add' op failed to verify" in error.what
    assert "loc(" not in error.what
    assert error.fix.endswith(": " + ", ".join(map(repr, named)) + ".")


def test_masked_ids_in_16_bits_are_refused_with_another_format():
    """The ids that a mask compares have no range, which 16 bits ask for: the way out is another format."""
    layers = tf_keras.layers
    ids = tf_keras.Input((6,), dtype="int32", name="ids")
    model = tf_keras.Model(ids, layers.LSTM(4)(layers.Embedding(9, 4, mask_zero=True)(ids)))
    samples = [[np.full((1, 6), row, np.int32)] for row in range(9)]
    with pytest.raises(ConversionError, match="whole numbers in 'ids'") as refused:
        convert(model, QuantizationPlan("int16x8", "float", True), lambda: iter(samples))
    assert "dynamic" in refused.value.fix


def test_only_inputs_of_whole_numbers_are_said_to_be():
    """Where the tensor without a range is another, the converter's own words stand."""
    values = tf_keras.Input((6,), name="values")
    model = tf_keras.Model(values, tf_keras.layers.Dense(2)(values))
    said = "Max and min for dynamic tensors should be recorded during calibration: Failed for tensor {}:0"
    for name in ("serving_default_values", "model/dense/MatMul"):
        error = translate(RuntimeError(said.format(name)), model, "int16x8")
        assert "whole numbers" not in error.what
        assert "should be recorded during calibration" in error.what
