import numpy as np
import pytest
from tiny_files import Given, mediapipe_file, tflite_of

from edgeprune.checking.model import check
from edgeprune.errors import ConversionError
from edgeprune.runtime.trial import FileRefused, try_file
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.prefixes import prefix
from edgeprune.workers import WorkerDied


def chain(*nodes, scale=0.1):
    """Operators one after the other on eight int8 values; the third tensor's scale is the one to vary."""
    tensors = [Given((1, 8), "int8", scale=scale if place == 2 else 0.1) for place in range(len(nodes) + 1)]
    return tflite_of(tensors, [(name, (i,), (i + 1,)) for i, name in enumerate(nodes)], [0], [len(nodes)])


def found(path, content, target="rpi4"):
    path.write_bytes(content)
    return [item for item in check(path, target) if item.checker == "running"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


def test_a_file_that_runs_has_no_finding(path):
    """Files that the runtime here runs are not complained of, whether of built-in operators or MediaPipe's."""
    assert found(path, chain("RELU", "RELU")) == []
    assert found(path, mediapipe_file(), "android-arm64") == []


def test_a_refusal_names_the_operator(path):
    """An operator that the runtime refuses to prepare is an error that names it, with the runtime and its words."""
    (item,) = found(path, chain("RELU", "LOG_SOFTMAX", "RELU"))
    assert item.severity == "error"
    assert "ai-edge-litert" in item.what
    assert "refuses the file: " in item.what
    assert item.where == ("1 LOG_SOFTMAX",)


def test_a_death_names_the_operator(path):
    """A file on which the runtime's process dies is an error that names the operator, and the check goes on."""
    content = chain("RELU", "QUANTIZE", "RELU", scale=0.0)
    with pytest.raises(WorkerDied):
        try_file(content)
    (item,) = found(path, content)
    assert item.severity == "error"
    assert "does not survive the file" in item.what
    assert item.where == ("1 QUANTIZE",)
    assert [other for other in check(path, "rpi4") if other.checker == "delegates"]


def test_what_only_some_inputs_make_an_operator_refuse_is_no_finding(path):
    """A division that refuses zeros is not complained of where other inputs can be divided."""
    tensors = [Given((1, 8), "int8", scale=1.0), Given((1, 8), "int8", scale=1.0)]
    content = tflite_of([Given((1, 8)), *tensors], [("QUANTIZE", (0,), (1,)), ("DIV", (1, 1), (2,))], [0], [2])
    assert found(path, content) == []


def test_another_runtimes_operators_are_not_tried(path):
    """A custom operator, which the runtime here cannot have, has its own finding and no other."""
    content = chain("RELU", "MyOp")
    assert found(path, content) == []
    assert [item.severity for item in check(path, "rpi4") if item.checker == "runtime"] == ["error"]


def test_open_sizes_are_not_held_against_a_file(path, tmp_path):
    """A file whose input is known at run time only may be refused with sizes of 1, and runs with others."""
    tf_keras = pytest.importorskip("tf_keras")
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [tf_keras.Input((None, None, 3)), layers.Conv2D(2, 3), layers.MaxPooling2D(3), layers.GlobalMaxPooling2D()]
    )
    assert found(path, convert(model, QuantizationPlan("float32", "float", needs_samples=False))) == []


@pytest.mark.parametrize("count", [0, 1, 3])
def test_prefix(count):
    """A file can be cut down to its first operators."""
    graph = parse(prefix(chain("RELU", "TANH", "RELU"), count)).subgraphs[0]
    assert [operator.name for operator in graph.operators] == ["RELU", "TANH", "RELU"][:count]


def a_model(shape, last):
    import tf_keras

    data = tf_keras.Input(shape)
    return tf_keras.Model(data, last(data), name="small")


def over_one_feature(x):
    import tf_keras

    return tf_keras.layers.Dense(2)(tf_keras.layers.LayerNormalization(name="norm")(x))


def variance(x):
    import tensorflow as tf

    return tf.math.reduce_variance(x, -1)


def unlimited(x):
    return x[:, :4] * x[:, 4:]


@pytest.mark.parametrize(
    ("shape", "last", "mode", "scale", "said", "advice"),
    [
        (
            (5, 1),
            over_one_feature,
            "int8",
            1,
            "does not survive|gave up at the layer 'norm'",
            "leave out the layer 'norm'",
        ),
        ((5, 1), variance, "int16x8", 1, "refuses the file at the layer .*SquaredDifference", "build it as dynamic"),
        ((8,), unlimited, "int8", 1e30, "refuses the file at the layer", "build it as dynamic"),
    ],
)
def test_a_conversion_that_does_not_run_is_an_error(shape, last, mode, scale, said, advice):
    """What LiteRT does not run, or does not survive, is an error of the conversion that names format, layer and a way
    out; the way out works."""
    pytest.importorskip("tf_keras")
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    model = a_model(shape, last)
    samples = [[scale * np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)]]
    with pytest.raises(ConversionError, match=rf"(?s)as {mode}.*({said})") as caught:
        convert(model, QuantizationPlan(mode, "float", needs_samples=True), lambda: samples)
    assert advice in caught.value.fix
    try_file(convert(model, QuantizationPlan("dynamic", "float", needs_samples=False)))


def test_a_refusal_crosses_processes():
    """What one process says about a file is the same in another."""
    import pickle

    error = pickle.loads(pickle.dumps(FileRefused("LiteRT 2", "it has no kernel")))
    assert (error.worker, error.said, error.what) == (
        "LiteRT 2",
        "it has no kernel",
        "LiteRT 2 refuses the file: it has no kernel.",
    )
