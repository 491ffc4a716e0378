"""Conversion: every number format runs, keeps names, and computes what the Keras model computes."""

import numpy as np
import pytest

from edgeprune.calibration import representative_dataset, representative_indices
from edgeprune.convert.tflite import convert
from edgeprune.devices.runtime import find_runtime
from edgeprune.errors import ConversionError
from edgeprune.evaluate.accuracy import evaluate_keras, evaluate_tflite
from edgeprune.evaluate.session import Session
from edgeprune.progress import Progress
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe import TaskConfig
from edgeprune.train.task import resolve_task

# mode, io → smallest agreement of the classes with the Keras model on the 500 test digits
FORMATS = {
    ("float32", "float"): 1.0,
    ("float16", "float"): 0.99,
    ("dynamic", "float"): 0.97,
    ("int8", "float"): 0.95,
    ("int8", "int8"): 0.95,
}


def make(tiny_model, tiny_data, mode, io):
    samples = representative_dataset(tiny_data.train, representative_indices(tiny_data.train, 64, "stratified", 0))
    return convert(tiny_model, QuantizationPlan(mode, io, mode == "int8"), samples if mode == "int8" else None)


@pytest.mark.parametrize(("mode", "io"), FORMATS)
def test_the_file_agrees_with_its_keras_model(tiny_model, tiny_data, tmp_path, mode, io):
    """Parity on the whole test split, and an accuracy to match."""
    path = tmp_path / "model.tflite"
    path.write_bytes(make(tiny_model, tiny_data, mode, io))
    session = Session(path, tiny_model.input_names, tiny_model.output_names, runtime=find_runtime())
    task = resolve_task(tiny_model, TaskConfig(), np.array([1]))
    value, parity = evaluate_tflite(session, tiny_data.test, task, reference=tiny_model, progress=Progress())
    assert parity.top1_agreement >= FORMATS[mode, io]
    assert parity.mean_abs_error <= parity.max_abs_error < (1e-4 if mode == "float32" else 0.5)
    assert value == pytest.approx(evaluate_keras(tiny_model, tiny_data.test, task), abs=1 - FORMATS[mode, io] + 1e-6)


def test_formats_have_the_dtypes_they_promise(tiny_model, tiny_data):
    """Full int8 leaves no float operator; int8 inputs and outputs only where asked for; float16 halves the file."""
    sizes = {}
    for mode, io in FORMATS:
        content = make(tiny_model, tiny_data, mode, io)
        sizes[mode, io] = len(content)
        interpreter = find_runtime().interpreter(content, kernels="builtin")
        interpreter.allocate_tensors()
        ends = {interpreter.get_input_details()[0]["dtype"], interpreter.get_output_details()[0]["dtype"]}
        assert ends == {np.int8 if io == "int8" else np.float32}
        if (mode, io) == ("int8", "int8"):
            assert {detail["dtype"] for detail in interpreter.get_tensor_details()} <= {np.int8, np.int32}
    assert sizes["int8", "int8"] < sizes["float16", "float"] < sizes["float32", "float"]


def test_several_inputs_and_outputs_keep_their_order(tmp_path):
    """Names that sort the other way round do not swap tensors."""
    import tf_keras

    layers = tf_keras.layers
    b, a = layers.Input([4], name="b"), layers.Input([4], name="a")
    model = tf_keras.Model([b, a], [layers.Dense(3, name="z")(b), layers.Dense(3, name="y")(a)])
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    batch = [np.random.default_rng(0).normal(size=(5, 4)).astype("float32") for _ in range(2)]
    session = Session(path, model.input_names, model.output_names, runtime=find_runtime())
    for found, expected in zip(session.run(batch), model(batch), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_the_converter_refuses_is_one_message(tmp_path):
    """An operation without a TFLite counterpart names itself."""
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.layers.Input([4, 4])
    model = tf_keras.Model(inputs, tf.linalg.det(inputs))
    with pytest.raises(ConversionError, match="refused"):
        convert(model, QuantizationPlan("float32", "float", False))


def test_lost_zeros_fail_the_build(tiny_model, tmp_path):
    """A file with fewer zeros than its model had is refused, kernel by kernel."""
    from edgeprune.errors import VerificationError
    from edgeprune.stages.conversion import check_zeros_kept

    path = tmp_path / "model.tflite"
    path.write_bytes(convert(tiny_model, QuantizationPlan("float32", "float", False)))
    check_zeros_kept(path, [])
    with pytest.raises(VerificationError, match="lost zeros"):
        check_zeros_kept(path, [{"layer": "conv2d_1", "size": 576, "zeros": 288}])
