"""What the converter says when it refuses a model, in terms of its layers."""

import pytest
import tf_keras

from edgeprune.convert.refusals import translate

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
