"""Snippets: the Python ones run on the artifact and find what edgeprune finds; the Kotlin one has the right numbers."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matrix import representatives

from edgeprune.calibration import representative_dataset, representative_indices
from edgeprune.convert.converter import convert
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session
from edgeprune.snippets import ANDROID, write_snippets
from edgeprune.target import load_target
from edgeprune.tflite.flatbuffer import read

DOCS = Path(__file__).parents[2] / "docs"
PREPROCESSING = {"scale": 1 / 255, "mean": (0.0,), "std": (1.0,)}
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", 'ei"ght', "ni$ne"]


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_data, tmp_path_factory):
    """One uint8 file and one float file, each with the snippets of all targets, and a raw sample."""
    folder = tmp_path_factory.mktemp("run")
    samples = representative_dataset(tiny_data.train, representative_indices(tiny_data.train, 32, "stratified", 0))
    (folder / "small-uint8.tflite").write_bytes(convert(tiny_model, QuantizationPlan("int8", "uint8", True), samples))
    (folder / "small.tflite").write_bytes(convert(tiny_model, QuantizationPlan("float32", "float", False)))
    for name in ("small", "small-uint8"):
        for target in ("coral", "android"):
            target = load_target(target)
            names = tiny_model.input_names, tiny_model.output_names
            write_snippets(folder / f"{name}.tflite", target, PREPROCESSING, *names, LABELS)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 1)).astype(np.uint8)
    np.save(folder / "sample.npy", image)
    return folder


CASES = {
    "run_small.py": ("small", []),
    "run_small_uint8.py": ("small-uint8", []),
    "run_small_uint8_coral.py": ("small-uint8", ["--cpu"]),
}


@pytest.mark.parametrize("script", CASES)
def test_the_python_snippet_computes_what_edgeprune_computes(tiny_model, folder, script):
    """In a process of its own, on raw pixels: the five best classes and their scores."""
    name, options = CASES[script]
    command = [sys.executable, script, "sample.npy", *options]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    rows = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    x = np.load(folder / "sample.npy")[None].astype(np.float32) * np.float32(1 / 255)
    session = Session(
        folder / f"{name}.tflite", tiny_model.input_names, tiny_model.output_names, runtime=find_runtime()
    )
    (expected,) = session.run([x])[0]
    assert len(rows) == 5
    for score, label in rows:
        assert float(score) == pytest.approx(expected[LABELS.index(label)], abs=1e-6)
    assert rows[0][1] == LABELS[int(expected.argmax())]


NO_SAMPLES = {
    "missing.npy": "There is no file missing.npy.",
    ".": "There is no file .",
    "small.npy": "small.npy is no sample for .*cannot reshape",
    "text.png": "text.png is no sample for .*cannot identify",
    "other.npz": "other.npz is no sample for .*not a file",
}


# Each of them by one script, and one of them by each.
@pytest.mark.parametrize(
    ("script", "sample"),
    representatives(
        itertools.product(CASES, NO_SAMPLES),
        *(("run_small_uint8.py", sample) for sample in NO_SAMPLES), *((script, "text.png") for script in CASES),
    ),
)  # fmt: skip
def test_what_is_no_sample_is_one_line(folder, tmp_path, script, sample):
    """A sample that is missing, or is none of this model, ends the Python snippets with one line on standard error that
    names it, nothing on standard output, and exit code 2."""
    np.save(tmp_path / "small.npy", np.zeros((3, 3), np.uint8))
    np.savez(tmp_path / "other.npz", nobody=np.zeros((16, 16, 1)))
    (tmp_path / "text.png").write_text("no image")
    command = [sys.executable, folder / script, sample, *CASES[script][1]]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (found.returncode, found.stdout) == (2, "")
    assert re.fullmatch(f"({NO_SAMPLES[sample]}).*\n", found.stderr), found.stderr


def test_a_missing_model_is_one_line(folder, tmp_path):
    """So does a snippet whose .tflite is not beside it."""
    for script, (_, options) in CASES.items():
        (tmp_path / script).write_bytes((folder / script).read_bytes())
        command = [sys.executable, script, folder / "sample.npy", *options]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert found.returncode == 2
        assert re.fullmatch(r"There is no file .*\.tflite\.\n", found.stderr), found.stderr


def test_the_coral_snippet_asks_for_the_edge_tpu_library_unless_told_otherwise(folder):
    """Without --cpu it loads the delegate, which is not on this machine."""
    command = [sys.executable, "run_small_uint8_coral.py", "sample.npy"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert found.returncode == 2
    # Behind it, the package itself complains about the delegate that it could not make.
    assert re.match(r"The Edge TPU's library cannot be loaded: .*libedgetpu.*--cpu.*\n", found.stderr), found.stderr


def test_the_kotlin_snippet_has_the_files_numbers(folder):
    """Size, scale and zero point of the input, escaped labels; braces balance."""
    text = (folder / "SmallUint8Classifier.kt").read_text()
    graph = read(folder / "small-uint8.tflite").subgraphs[0]
    quantization = graph.tensors[graph.inputs[0]].quantization
    assert f"{quantization.scale[0]!r}f).roundToInt() + ({quantization.zero_point[0]})" in text
    assert "const val HEIGHT = 16" in text
    assert "FloatArray(10) {" in text
    assert r'"ei\"ght", "ni\$ne"' in text
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")
    assert "putFloat" in (folder / "SmallClassifier.kt").read_text()


def test_the_kotlin_snippet_for_compiled_model_runs_the_same_numbers(folder):
    """It names the library that has CompiledModel, copies the whole input, and prepares it as the other does."""
    text = (folder / "SmallCompiledModel.kt").read_text()
    assert f'implementation("{ANDROID["CompiledModel"]}")' in text
    assert "class SmallCompiledModel(context: Context, threads: Int = 4)" in text
    assert "inputs[0].writeFloat(FloatArray(256) { input.getFloat() })" in text  # 16 x 16 x 1
    assert "return listOf(outputs[0].readFloat())" in text
    assert "Interpreter" not in text
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")
    shared = (folder / "SmallClassifier.kt").read_text().partition("private fun put")[2]
    assert shared
    assert text.endswith(shared)
    # Its buffers have no unsigned bytes.
    assert not (folder / "SmallUint8CompiledModel.kt").exists()


def test_the_documentation_names_the_same_library():
    """The version of Android's library stands in one place, and the documentation follows it."""
    shown = re.findall(r"com\.google\.ai\.edge\.litert:litert:[\d.]+", (DOCS / "devices.md").read_text())
    assert shown
    assert set(shown) <= set(ANDROID.values())


def test_only_what_the_target_can_use_is_written(folder, tiny_model, tmp_path):
    """A Pi gets Python only."""
    path = tmp_path / "m.tflite"
    path.write_bytes((folder / "small.tflite").read_bytes())
    names = tiny_model.input_names, tiny_model.output_names
    written = write_snippets(path, load_target("rpi4"), PREPROCESSING, *names, None)
    assert [file.name for file in written] == ["run_m.py"]
    compile(written[0].read_text(), "run_m.py", "exec")


@pytest.mark.parametrize(("target", "found"), [("coral-usb", True), ("ethos-u55-128", False), ("pixel4", False)])
def test_the_coral_snippet_is_for_the_edge_tpu(folder, tiny_model, tmp_path, target, found):
    """Other accelerators have other compilers and libraries."""
    path = tmp_path / "m.tflite"
    path.write_bytes((folder / "small.tflite").read_bytes())
    names = tiny_model.input_names, tiny_model.output_names
    written = write_snippets(path, load_target(target), PREPROCESSING, *names, None)
    assert ("run_m_coral.py" in [file.name for file in written]) is found


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_snippets_show_all_outputs_by_name(tmp_path, names):
    """Each of two outputs, wherever the converter put it, and however many axes it has."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input([8, 8, 1])
    x = layers.Conv2D(3, 3, name=names[0])(inputs)
    model = tf_keras.Model(inputs, [x, layers.Dense(5, name=names[1])(layers.Flatten()(inputs))])
    (tmp_path / "two.tflite").write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    ends = model.input_names, model.output_names
    write_snippets(tmp_path / "two.tflite", load_target("android"), PREPROCESSING, *ends, None)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
    np.save(tmp_path / "sample.npy", image)
    command = [sys.executable, "run_two.py", "sample.npy"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    expected = model(image[None] * np.float32(1 / 255))
    first, second = found.stdout.split(names[1])
    for name, text, values in zip(names, (first, second), expected, strict=True):
        numbers = text.removeprefix(name).replace("[", " ").replace("]", " ").split()
        np.testing.assert_allclose(np.array(numbers, np.float32), values.numpy().ravel(), atol=1e-5)
    text = (tmp_path / "TwoClassifier.kt").read_text()
    graph = read(tmp_path / "two.tflite").subgraphs[0]
    places = [len(graph.tensors[index].shape) for index in graph.outputs]
    assert f"mapOf<Int, Any>({places.index(4)} to output0, {places.index(2)} to output1)" in text
    assert "FloatArray(108) { values.getFloat() }" in text  # 6 x 6 x 3


def test_no_kotlin_for_several_inputs(tmp_path):
    """Its snippet feeds one image."""
    import tf_keras

    layers = tf_keras.layers
    images = [layers.Input([8, 8, 1], name=name) for name in ("p", "q")]
    model = tf_keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Concatenate()(images))))
    (tmp_path / "m.tflite").write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    ends = model.input_names, model.output_names
    written = write_snippets(tmp_path / "m.tflite", load_target("android"), PREPROCESSING, *ends, None)
    assert [file.name for file in written] == ["run_m.py"]


def test_snippets_give_the_channels_in_the_order_of_the_model(tmp_path):
    """For a model of blue, green, red, the Python snippet on an image file and the Kotlin one reverse the channels."""
    import tf_keras
    from PIL import Image

    inputs = tf_keras.layers.Input([4, 4, 3])
    model = tf_keras.Model(inputs, tf_keras.layers.Flatten()(inputs))
    (tmp_path / "m.tflite").write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    settings = {**PREPROCESSING, "scale": 1.0, "mean": (1.0, 2.0, 3.0), "color": "bgr"}
    write_snippets(tmp_path / "m.tflite", load_target("android"), settings, model.input_names, model.output_names, None)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "sample.png")
    found = subprocess.run(
        [sys.executable, "run_m.py", "sample.png"], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert found.returncode == 0, found.stderr
    numbers = np.array(found.stdout.replace("[", " ").replace("]", " ").split(), np.float32)
    np.testing.assert_allclose(numbers, (pixels[..., ::-1] - np.array([1.0, 2.0, 3.0])).ravel())
    text = (tmp_path / "MClassifier.kt").read_text()
    for i, color in enumerate(("blue", "green", "red")):
        assert f"put(input, Color.{color}(pixel).toFloat(), {i})" in text


@pytest.mark.parametrize(
    ("script", "labels"),
    representatives(
        itertools.product(["run_m.py", "run_m_coral.py"], [None, ["off", "on"]]),
        ("run_m.py", None), ("run_m_coral.py", ["off", "on"]),
    ),
)  # fmt: skip
def test_snippets_read_tables_as_edgeprune_does(tmp_path, script, labels):
    """A line for every window of a CSV file, named by its last row: what the model gives for the samples that training
    sees, normalized and with categories; a bad cell is one message, behind the lines before it."""
    import tf_keras

    from edgeprune.data import InputSpec, load_data
    from edgeprune.recipe.config import DataConfig

    rng = np.random.default_rng(0)
    for name, who in (("train", "q"), ("test", "p")):
        rows = [f"{rng.normal(5, 9):.5g},{('n', 's')[i % 2]},{who}{i % 3},{i % 2}" for i in range(120)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["heat,side,who,y", *rows]) + "\n")
    table = {"target": "y", "group": "who", "window": 4, "normalize": "standard", "categories": {"side": "one-hot"}}
    data = load_data(str(tmp_path), DataConfig(table=table), InputSpec(((4, 3),)))
    layers = tf_keras.layers
    inputs = layers.Input([4, 3])
    model = tf_keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(inputs)))
    (tmp_path / "m.tflite").write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    names = model.input_names, model.output_names
    write_snippets(tmp_path / "m.tflite", load_target("coral"), data.preprocessing, *names, labels)
    expected = np.concatenate([model(x).numpy() for x, _ in data.test.batches(16)])
    command = [sys.executable, script, "test.csv", *(["--cpu"] if "coral" in script else [])]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    ends = sorted(group + 3 * (4 * number + 3) for group in range(3) for number in range(10))
    assert [line.split(":")[0] for line in lines] == [f"line {end + 2}" for end in ends]
    for line, answer in zip(lines, expected, strict=True):
        shown = line.split(": ")[1]
        if labels:
            name, score = shown.split()
            assert (name, float(score)) == (labels[answer.argmax()], pytest.approx(answer.max(), abs=2e-6))
        else:
            assert [float(v) for v in shown.strip("[]").split()] == pytest.approx(answer, abs=2e-6)
    (tmp_path / "bad.csv").write_text("\n".join(["heat,side,who", "1,n,p", "2,s,p", "3,n,p", "4,s,p", "warm,n,p"]))
    found = subprocess.run(
        [*command[:2], "bad.csv", *command[3:]], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert found.returncode == 2
    assert found.stdout.startswith("line 5: ")
    assert found.stderr.endswith(  # behind what the runtime says
        "bad.csv is no table for this model: line 6, column 'heat': could not convert string to float: 'warm'.\n"
    )
