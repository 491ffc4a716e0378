"""Two files on the same data, whatever their task."""

import json
import re

import numpy as np
import pytest
from task_files import KINDS, make

import edgeprune
from edgeprune.data import InputSpec, load_data
from edgeprune.errors import DataError, RecipeError, UsageError
from edgeprune.evaluate.accuracy import keras_figures
from edgeprune.evaluate.files import compare_accuracy
from edgeprune.evaluate.sample import load_sample
from edgeprune.profiling.compare import compare
from edgeprune.recipe.config import DataConfig, Recipe, TaskConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.tasks.stating import stated

CLASSES = {"two_heads": True, "regression": False, "binary": True, "masks": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return {name: kind(tmp_path_factory.mktemp(name)) for name, kind in KINDS.items()}


def of_keras(one):
    """The model's task, its recipe, and its own figures on the test data."""
    data = load_data(one.splits, DataConfig(), InputSpec.of(one.model))
    task = resolve_task(one.model, TaskConfig(), data)
    return task, Recipe(name="run", task=stated(task, TaskConfig())), keras_figures(
        one.model, task.prepare(data).test, task
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_keras(made, kind):
    """With the recipe of the run, the figures of the float32 file are Keras' own, under the same names, with the same
    direction; and the document is JSON."""
    one = made[kind]
    task, recipe, expected = of_keras(one)
    found = json.loads(json.dumps(compare(one.float32, one.int8, data=one.splits, recipe=recipe)))["accuracy"]
    assert {name: pair["values"][0] for name, pair in found["metrics"].items()} == pytest.approx(expected, abs=1e-4)
    assert {name: pair["values"][1] for name, pair in found["metrics"].items()} == pytest.approx(expected, abs=0.1)
    assert found["primary"] == task.name
    for metric in task.metrics:
        pair = found["metrics"][metric.name]
        assert (pair["higher_is_better"], pair["points"]) == (metric.higher_is_better, metric.points)
    assert set(found["outputs"]) == {output.name for output in task.outputs}
    assert all(0.9 < output["agreement"] < 1.0001 for output in found["outputs"].values())
    assert (found["accuracy"] is not None) == CLASSES[kind]
    assert found["samples"] == 200


@pytest.mark.parametrize(("kind", "metric"), [("regression", "mean_absolute_error"), ("masks", "mean_iou")])
def test_a_file_alone_is_measured_by_inference(made, kind, metric):
    """Without a recipe the task is inferred from labels and from how the file ends, quantized or not."""
    one = made[kind]
    for a, b in ((one.float32, one.int8), (one.int8, one.float32)):
        found = compare_accuracy((a, b), one.splits, DataConfig())
        assert found["primary"] == metric
    assert found["metrics"][metric]["higher_is_better"] == (kind == "masks")


def test_accuracy_is_the_share_of_right_classes(made):
    """A sigmoid answers the second class from one half on, in both files."""
    one = made["binary"]
    found = compare_accuracy((one.float32, one.int8), one.splits, DataConfig())
    x, y = one.splits["test"]
    right = (one.model.predict(x, verbose=0)[:, 0] > 0.5) == y
    assert [found["accuracy"][0], found["metrics"]["accuracy"]["values"][0]] == pytest.approx([right.mean()] * 2)


def test_a_file_equals_itself(made):
    """Two times the same file agrees with itself in every output, and no output differs."""
    for one in made.values():
        _, recipe, _ = of_keras(one)
        found = compare_accuracy((one.int8, one.int8), one.splits, DataConfig(), recipe.task)
        assert found["agreement"] == 1
        assert all(output["max_abs_difference"] == 0 for output in found["outputs"].values())


@pytest.mark.parametrize("teacher", [False, True])
def test_without_labels_there_is_the_agreement(made, teacher):
    """Data without labels, or a task without them: no metrics, and the agreement of B with A."""
    one = made["regression"]
    data = one.splits if teacher else {name: x for name, (x, _) in one.splits.items()}
    task = TaskConfig(kind="teacher") if teacher else TaskConfig()
    found = compare_accuracy((one.float32, one.int8), data, DataConfig(), task)
    assert (found["metrics"], found["primary"], found["accuracy"]) == ({}, None, None)
    a, b = (outputs_of(path, data["test"][0] if teacher else data["test"]) for path in (one.float32, one.int8))
    explained = 1 - np.square(a - b).sum() / np.square(a - a.mean(0)).sum()
    assert found["agreement"] == pytest.approx(explained, abs=1e-6)
    (output,) = found["outputs"].values()
    assert output["max_abs_difference"] == pytest.approx(np.abs(a - b).max())


def outputs_of(path, x):
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.runner import run_samples

    (outputs,) = run_samples(find_runtime().interpreter(path), [x])
    return outputs


def test_two_readings_are_asked_for(made, tmp_path):
    """Zeros and ones over an output without activation may be classes or numbers: the recipe has to say."""
    import tf_keras

    entry = tf_keras.layers.Input([6])
    x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    one = make(tmp_path, tf_keras.Model(entry, tf_keras.layers.Dense(1)(entry)), x, (x[:, 0] > 0).astype(np.int64))
    with pytest.raises(RecipeError, match="cannot be known"):
        compare_accuracy((one.float32, one.int8), one.splits, DataConfig())
    found = compare_accuracy((one.float32, one.int8), one.splits, DataConfig(), TaskConfig(kind="classification"))
    right = (one.model.predict(one.splits["test"][0], verbose=0)[:, 0] > 0) == one.splits["test"][1]
    assert [found["accuracy"][0], found["metrics"]["accuracy"]["values"][0]] == pytest.approx([right.mean()] * 2)


def test_a_tuple_of_labels_needs_the_order_of_the_outputs(made, tmp_path):
    """A signature sorts the names of outputs, so labels without names are refused where the file does not know more."""
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    one = made["two_heads"]
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(convert(one.model, QuantizationPlan("float32", "float", needs_samples=False), None))
    with pytest.raises(DataError, match="alphabetical"):
        compare_accuracy((foreign, foreign), one.splits, DataConfig())
    named = {name: (x, {"alarm": y[1], "tag": y[0]}) for name, (x, y) in one.splits.items()}
    found = compare_accuracy((foreign, one.int8), named, DataConfig())
    assert list(found["metrics"]) == ["alarm.accuracy", "tag.accuracy"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A file as TensorFlow's converter makes it, of two inputs and two outputs, and the samples that it has right."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = [layers.Input((4,), name=name) for name in ("right", "left")]
    both = layers.Concatenate()([layers.Dense(5)(one) for one in inputs])
    model = tf_keras.Model(inputs, [layers.Dense(3, "softmax", name=name)(both) for name in ("tag", "alarm")])
    path = tmp_path_factory.mktemp("foreign") / "foreign.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    rng = np.random.default_rng(0)
    x = tuple(rng.normal(size=(60, 4)).astype(np.float32) for _ in inputs)
    return path, x, tuple(values.argmax(1) for values in model.predict(x, verbose=0))


def test_a_tuple_of_inputs_needs_the_order_of_the_inputs(foreign):
    """Inputs of one shape could be exchanged where the file does not keep their order; by name they are right."""
    path, x, (tag, alarm) = foreign
    y = {"tag": tag, "alarm": alarm}
    with pytest.raises(DataError, match=r"tuple of inputs.*\(left, right\)") as raised:
        compare_accuracy((path, path), {"train": (x, y), "test": (x, y)}, DataConfig())
    assert '{"left": ..., "right": ...}' in raised.value.fix
    named = {"right": x[0], "left": x[1]}
    found = compare_accuracy((path, path), {"train": (named, y), "test": (named, y)}, DataConfig())
    assert {name: pair["values"][0] for name, pair in found["metrics"].items()} == {
        "alarm.accuracy": 1.0, "tag.accuracy": 1.0,
    }  # fmt: skip


def test_a_build_of_a_file_needs_the_order_of_inputs_and_outputs(foreign, tmp_path):
    """As a comparison does; it would prune by figures of exchanged inputs or labels."""
    path, x, (tag, alarm) = foreign
    named, y = {"right": x[0], "left": x[1]}, {"tag": tag, "alarm": alarm}
    options = {"target": "rpi4", "recipe": "float", "out": tmp_path}
    for wrong, said in (((x, y), "tuple of inputs"), ((named, (tag, alarm)), "tuple of labels")):
        with pytest.raises(DataError, match=said) as raised:
            edgeprune.build(path, data={"train": wrong, "test": wrong}, **options)
        assert "imported" not in str(raised.value)
    report = edgeprune.build(path, data={"train": (named, y), "test": (named, y)}, **options)
    assert {figure.value for figure in report.variants[0].metrics.values()} == {1.0}


@pytest.mark.parametrize("io", ["int8", "float32"])
def test_samples_of_another_scale_than_a_quantized_file_takes_are_told(io, tmp_path):
    """Far beyond what its integers can hold, or all on one or two of them, whatever its inputs and outputs are: by
    comparisons as a warning, and a build of the file ends."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential([tf_keras.layers.Input([8]), tf_keras.layers.Dense(3, "softmax")])
    x = np.random.default_rng(0).uniform(0, 255, (100, 8)).astype(np.float32)
    y = model.predict(x, verbose=0).argmax(1)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
    path = tmp_path / "pixels.tflite"
    path.write_bytes(converter.convert())
    for scale in (1 / 255, 255):
        scaled = {"train": (x * np.float32(scale), y), "test": (x * np.float32(scale), y)}
        (warning,) = compare_accuracy((path, path), scaled, DataConfig())["warnings"]
        assert re.search(r"(?s)takes 0 to 25[45].*mean = \[0\]", warning)
        assert load_sample([path], scaled, DataConfig()).tasks[path].warnings == (warning,)
        with pytest.raises(DataError, match="takes 0 to 25"):
            edgeprune.build(path, data=scaled, target="rpi4", recipe="float", out=tmp_path / "run")
    found = compare_accuracy((path, path), {"train": (x, y), "test": (x, y)}, DataConfig())
    assert found["accuracy"][0] > 0.9
    assert found["warnings"] == []


def test_files_of_different_outputs_are_refused(made, tmp_path):
    """Outputs that do not correspond in name and shape cannot be put side by side."""
    import tf_keras

    entry = tf_keras.layers.Input([6])
    x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    other = make(tmp_path, tf_keras.Model(entry, tf_keras.layers.Dense(3)(entry)), x, None)
    with pytest.raises(UsageError, match="outputs of"):
        compare_accuracy((made["regression"].float32, other.float32), other.splits, DataConfig())


def test_padding_that_the_file_cannot_know_is_a_warning(made, tmp_path):
    """Where the model leaves padding out of its metrics, the figures of its files say that they count it."""
    from edgeprune.tflite.flatbuffer import parse
    from edgeprune.tflite.interface import with_interface

    one = made["regression"]
    padded = tmp_path / "padded.tflite"
    assert compare_accuracy((one.float32, one.float32), one.splits, DataConfig())["warnings"] == []
    (signature,) = parse(one.float32.read_bytes()).signatures
    names = list(signature.inputs), [list(signature.outputs)]
    padded.write_bytes(with_interface(one.float32.read_bytes(), *names, padded=True))
    (warning,) = compare_accuracy((one.float32, padded), one.splits, DataConfig())["warnings"]
    assert "padding" in warning
