"""Names of inputs and outputs in the signature, whatever they are, and samples that reach the input they are for."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.convert.converter import convert
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session

# (image, vector) and (first output, second output)
SLOW = pytest.mark.slow
NAMES = [
    (("in", "self"), ("class", "a/b")),
    (("my input", "größe: 5"), ("x-1", "X-1")),
    pytest.param(("lambda", "training"), ("None", "inputs"), marks=SLOW),
    pytest.param(("1x", "."), ("../x", "img"), marks=SLOW),
    pytest.param(("x_1", "x"), ("y", "Y"), marks=SLOW),
    pytest.param(("a.b", "a_b"), ("a.b.c", "a_b_c"), marks=SLOW),
]


def _model(keras, inputs, outputs, image_first):
    layers = keras.layers
    image, vector = keras.Input((6, 6, 1), name=inputs[0]), keras.Input((3,), name=inputs[1])
    joined = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(image)), layers.Dense(4)(vector)])
    ends = [layers.Dense(2, name=outputs[0])(joined), layers.Dense(1, name=outputs[1])(vector)]
    return keras.Model([image, vector] if image_first else [vector, image], ends)


@pytest.mark.parametrize("image_first", representatives([True, False], False))
@pytest.mark.parametrize(("inputs", "outputs"), NAMES, ids=lambda pair: "+".join(pair))
def test_a_file_keeps_names_and_takes_samples_in_the_order_of_the_model(inputs, outputs, image_first, tmp_path):
    """Names are keywords, paths, or differ in case only: float32 gives Keras' outputs by name, int8 nearly."""
    import tf_keras

    model = _model(tf_keras, inputs, outputs, image_first)
    generator = np.random.default_rng(0)
    batch = [generator.normal(size=(8, *x.shape[1:])).astype("float32") for x in model.inputs]
    samples = [[values[i : i + 1] for values in batch] for i in range(8)]
    expected = model.predict(batch, verbose=0)
    for mode, allowed in (("float32", 1e-5), ("int8", 0.1)):
        plan = QuantizationPlan(mode, "float", needs_samples=mode == "int8")
        (tmp_path / "model.tflite").write_bytes(convert(model, plan, lambda: iter(samples)))
        session = Session(tmp_path / "model.tflite", model.input_names, model.output_names, runtime=find_runtime())
        for one, other in zip(expected, session.run(batch), strict=True):
            np.testing.assert_allclose(other, one, atol=allowed * np.abs(one).max())
