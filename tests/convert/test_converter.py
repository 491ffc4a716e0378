"""Conversion: every number format runs, keeps names, and computes what the Keras model computes."""

import dataclasses

import numpy as np
import pytest
from matrix import representatives

from edgeprune.calibration import representative_dataset, representative_indices
from edgeprune.convert.converter import CONVERTER, calibrate, convert, quantize_calibrated
from edgeprune.convert.findings import conversion_warnings, float_operators, select_operators
from edgeprune.convert.native import Refused, quantize
from edgeprune.errors import ConversionError, DataError
from edgeprune.evaluate.accuracy import evaluate_keras, evaluate_tflite
from edgeprune.progress import Progress
from edgeprune.quantize.plan import RULES, QuantizationPlan
from edgeprune.recipe.config import TaskConfig
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session
from edgeprune.tasks.resolve import resolve_task
from edgeprune.tflite.flatbuffer import parse

# mode, io → smallest agreement of the classes with the Keras model on the 500 test digits
FORMATS = {
    ("float32", "float"): 1.0,
    ("float16", "float"): 0.99,
    ("dynamic", "float"): 0.97,
    ("int8", "float"): 0.95,
    ("int8", "int8"): 0.95,
    ("int8", "uint8"): 0.95,
    ("int16x8", "float"): 0.98,
    ("int8-weights", "float"): 0.97,
    ("int4-weights", "float"): 0.85,
}
INTEGERS = {"int8": np.int8, "uint8": np.uint8, "float": np.float32}


def make(tiny_model, tiny_data, mode, io):
    samples = representative_dataset(tiny_data.train, representative_indices(tiny_data.train, 64, "stratified", 0))
    needed = RULES[mode].samples
    return convert(tiny_model, QuantizationPlan(mode, io, needed), samples if needed else None)


# The others are measured in builds: tests/test_build_formats.py.
QUICK = (("float32", "float"), ("int8", "int8"), ("int8-weights", "float"), ("int4-weights", "float"))


@pytest.mark.parametrize(("mode", "io"), representatives(FORMATS, *QUICK))
def test_the_file_agrees_with_its_keras_model(tiny_model, tiny_data, tmp_path, mode, io):
    """Parity on the whole test split, and an accuracy to match."""
    path = tmp_path / "model.tflite"
    path.write_bytes(make(tiny_model, tiny_data, mode, io))
    session = Session(path, tiny_model.input_names, tiny_model.output_names, runtime=find_runtime())
    task = resolve_task(tiny_model, TaskConfig(), tiny_data)
    figures, parity = evaluate_tflite(session, tiny_data.test, task, reference=tiny_model, progress=Progress())
    assert parity.top1_agreement >= FORMATS[mode, io]
    assert parity.mean_abs_error <= parity.max_abs_error < (1e-4 if mode == "float32" else 0.5)
    expected = evaluate_keras(tiny_model, tiny_data.test, task)
    assert task.value(figures) == pytest.approx(expected, abs=1 - FORMATS[mode, io] + 1e-6)


def test_formats_have_the_dtypes_they_promise(tiny_model, tiny_data):
    """Full int8 leaves no float operator; int8 inputs and outputs only where asked for; float16 halves the file."""
    sizes = {}
    for mode, io in FORMATS:
        content = make(tiny_model, tiny_data, mode, io)
        sizes[mode, io] = len(content)
        interpreter = find_runtime().interpreter(content, kernels="builtin")
        interpreter.allocate_tensors()
        ends = {interpreter.get_input_details()[0]["dtype"], interpreter.get_output_details()[0]["dtype"]}
        assert ends == {INTEGERS[io]}
        dtypes = {detail["dtype"] for detail in interpreter.get_tensor_details()}
        if io != "float":
            assert dtypes <= {np.int8, np.int32, INTEGERS[io]}
        if mode == "int16x8":
            assert {np.int16, np.int8, np.int64} <= dtypes
    assert sizes["int8", "int8"] < sizes["float16", "float"] < sizes["float32", "float"]
    assert sizes["int4-weights", "float"] < sizes["int8-weights", "float"] < sizes["float16", "float"]


@pytest.mark.parametrize(
    "mode", representatives(["int8", "int16x8", "int8-weights", "int4-weights"], "int8", "int4-weights")
)
def test_every_output_channel_has_a_scale_of_its_own(tiny_model, tiny_data, mode):
    """The kernels of convolutions are quantized per channel."""
    from edgeprune.tflite.flatbuffer import parse
    from edgeprune.tflite.size import stored_source

    graph = parse(make(tiny_model, tiny_data, mode, "float")).subgraphs[0]
    kernels = [stored_source(graph, graph.input(op, 1)) for op in graph.operators if op.name == "CONV_2D"]
    assert [len(kernel.quantization.scale) for kernel in kernels] == [8, 8]


@pytest.mark.parametrize("mode", representatives(["float32", "int8", "int8-weights"], "int8", "int8-weights"))
def test_names_of_inputs_and_outputs_are_kept(tiny_model, tiny_data, mode):
    """The signature names what the Keras model names, whichever tool wrote the file."""
    interpreter = find_runtime().interpreter(make(tiny_model, tiny_data, mode, "float"))
    names = {"inputs": tiny_model.input_names, "outputs": tiny_model.output_names}
    assert interpreter.get_signature_list() == {"serving_default": names}


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


@pytest.mark.parametrize("io", ["float", "int8", "uint8"])
def test_the_signature_names_the_inputs_of_the_graph(tmp_path, io):
    """Where inputs are outputs, too, each name in the signature leads to the input of that name, which takes values."""
    import tf_keras

    layers = tf_keras.layers
    b, a = layers.Input([4], name="b"), layers.Input([6], name="a")
    model = tf_keras.Model([b, a], [b, layers.Dense(3, name="made")(layers.Concatenate()([a, b])), a])
    rng = np.random.default_rng(0)
    batch = [rng.random((5, size), np.float32) for size in (4, 6)]
    samples = [[x[i : i + 1] for x in batch] for i in range(5)]
    content = convert(model, QuantizationPlan("int8", io, needs_samples=True), lambda: iter(samples))
    file = parse(content)
    (signature,), graph = file.signatures, file.subgraphs[0]
    assert {graph.tensors[signature.inputs[name]].shape for name in "ba"} == {(1, 4), (1, 6)}
    assert sorted(signature.inputs.values()) == sorted(graph.inputs)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    session = Session(path, model.input_names, model.output_names, runtime=find_runtime())
    for found, expected in zip(session.run(batch), model(batch), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.05)


def small_model(operation, shape=(4, 4)):
    """A dense layer named `before`, then an operation of TensorFlow in a layer named `odd`."""
    import tf_keras

    class Odd(tf_keras.layers.Layer):
        def call(self, x):
            return operation(x)

    inputs = tf_keras.layers.Input(shape)
    return tf_keras.Model(inputs, Odd(name="odd")(tf_keras.layers.Dense(4, name="before")(inputs)), name="small")


def sines(samples=4):
    def batches():
        for phase in range(samples):
            yield [np.sin(np.arange(16, dtype="float32") + phase).reshape(1, 4, 4)]

    return batches


def test_an_operator_of_full_tensorflow_is_refused_with_its_layer():
    """The message names operator and layer, and the recipe's key that would let it pass."""
    import tensorflow as tf

    with pytest.raises(ConversionError, match=r"MatrixDeterminant, from the layer 'odd'.*\n.*\n.*select_tf_ops = true"):
        convert(small_model(tf.linalg.det), QuantizationPlan("float32", "float", False))


def test_select_tf_ops_pass_where_the_recipe_allows_them():
    """Then a warning names them; without the key the same model is refused."""
    import tensorflow as tf

    model = small_model(tf.linalg.det)
    plan = QuantizationPlan("float32", "float", False, select_tf_ops=True)
    content = convert(model, plan)
    assert select_operators(content) == ["MatrixDeterminant"]
    assert "MatrixDeterminant" in conversion_warnings(content, plan, model)[0]
    with pytest.raises(ConversionError, match="MatrixDeterminant"):
        convert(model, dataclasses.replace(plan, select_tf_ops=False))


@pytest.mark.parametrize("mode", representatives(["int8", "mixed", "int8-weights"], "int8", "int8-weights"))
def test_a_refusal_of_any_quantizer_is_one_message(tiny_model, tiny_data, monkeypatch, mode):
    """TensorFlow's quantizer and ai-edge-quantizer raise errors of their own."""

    def refuse(*_, **__):
        raise Refused("Quantization not yet supported for op: 'RESIZE'")

    if mode == "int8-weights":
        monkeypatch.setattr(pytest.importorskip("ai_edge_quantizer").quantizer.Quantizer, "quantize", refuse)
    call = CONVERTER.call
    monkeypatch.setattr(CONVERTER, "call", lambda f, *arguments: (refuse if f is quantize else call)(f, *arguments))
    samples = representative_dataset(tiny_data.train, representative_indices(tiny_data.train, 4, "stratified", 0))
    plan = QuantizationPlan(mode, "float", True, ranges="minmax" if mode == "int8-weights" else "mse")
    with pytest.raises(ConversionError, match=f"'tiny' cannot be converted as {mode}: the operator RESIZE"):
        convert(tiny_model, plan, samples)


def test_samples_that_cannot_be_read_are_no_refusal(tiny_model):
    """The error is that of the data."""

    def samples():
        raise DataError("broken.png is no image.")
        yield

    with pytest.raises(DataError, match=r"broken\.png"):
        convert(tiny_model, QuantizationPlan("int8", "float", True), samples)


def test_an_operator_that_no_runtime_has_is_refused_with_its_layer():
    """Python code inside a model cannot travel."""
    import tensorflow as tf

    def python(x):
        return tf.ensure_shape(tf.numpy_function(np.sort, [x], tf.float32), x.shape)

    with pytest.raises(ConversionError, match=r"(?s)PyFunc.*'odd'.*replace the layer"):
        convert(small_model(python), QuantizationPlan("float32", "float", False, select_tf_ops=True))


@pytest.mark.parametrize("mode", representatives(["int8", "int16x8"], "int8"))
def test_what_has_no_integer_kernel_stays_in_float_and_is_named(mode):
    """A sine runs in float between integer layers; the warning says which layer."""
    import tensorflow as tf

    model = small_model(lambda x: tf.sin(x) + 1)
    plan = QuantizationPlan(mode, "float", True)
    content = convert(model, plan, sines())
    assert "SIN (odd)" in conversion_warnings(content, plan, model)[0]


def test_open_sizes_are_refused_where_the_target_needs_fixed_ones():
    """Other targets take them."""
    import tf_keras

    inputs = tf_keras.layers.Input([None, None, 3], name="image")
    model = tf_keras.Model(inputs, tf_keras.layers.GlobalAveragePooling2D()(inputs))
    assert convert(model, QuantizationPlan("float32", "float", False))
    with pytest.raises(ConversionError, match=r"image \(None, None, 3\)"):
        convert(model, QuantizationPlan("float32", "float", False, static_shapes=True))


@pytest.mark.parametrize("ranges", representatives(["percentile", "mse"], "percentile"))
def test_narrowed_ranges_arrive_in_the_file(tiny_model, tiny_data, ranges):
    """Some activation has a smaller step than with its full range, none a larger one; inputs keep theirs."""
    samples = representative_dataset(tiny_data.train, representative_indices(tiny_data.train, 32, "stratified", 0))
    plan = QuantizationPlan("int8", "float", True, ranges="minmax")
    full, narrow = (
        scales(convert(tiny_model, dataclasses.replace(plan, ranges=name, percentile=99), samples))
        for name in ("minmax", ranges)
    )
    assert full.keys() == narrow.keys()
    assert all(narrow[name] <= full[name] * 1.0001 for name in full)
    assert any(narrow[name] < full[name] * 0.98 for name in full)


def scales(content):
    from edgeprune.tflite.flatbuffer import parse

    tensors = parse(content).subgraphs[0].tensors
    return {t.name: t.quantization.scale[0] for t in tensors if t.quantization and not t.constant}


def test_tensors_named_stay_in_float(tiny_model, tiny_data):
    """Mode mixed: only the operators that make these tensors compute in float, and the file still runs."""
    samples = representative_dataset(tiny_data.train, representative_indices(tiny_data.train, 16, "stratified", 0))
    plan = QuantizationPlan("mixed", "float", True)
    calibrated = calibrate(tiny_model, plan, samples, ["minmax"])["minmax"]
    operator, tensor = float_operators(calibrated)[1]
    mixed = quantize_calibrated(calibrated, dataclasses.replace(plan, float_tensors=(tensor,)), tiny_model)
    assert float_operators(mixed) == [(operator, tensor)]
    assert float_operators(quantize_calibrated(calibrated, plan, tiny_model)) == []
    find_runtime().interpreter(mixed).invoke()


def test_lost_zeros_fail_the_build(tiny_model, tmp_path):
    """A file with fewer zeros than its model had is refused, kernel by kernel."""
    from edgeprune.errors import VerificationError
    from edgeprune.stages.conversion import check_zeros_kept

    path = tmp_path / "model.tflite"
    path.write_bytes(convert(tiny_model, QuantizationPlan("float32", "float", False)))
    check_zeros_kept(path, [])
    with pytest.raises(VerificationError, match="lost zeros"):
        check_zeros_kept(path, [{"layer": "conv2d_1", "size": 576, "zeros": 288}])
