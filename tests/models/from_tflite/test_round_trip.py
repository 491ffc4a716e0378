"""Files that edgeprune makes come back as models that compute the same; published files and damaged ones, too."""

import json
import random
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from matrix import representatives

tf = pytest.importorskip("tensorflow")

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from commands import run  # noqa: E402
from random_models import random_model  # noqa: E402
from tflite_mutations import TABLES  # noqa: E402

import edgeprune  # noqa: E402
from edgeprune.convert.converter import convert  # noqa: E402
from edgeprune.errors import EdgepruneError  # noqa: E402
from edgeprune.models.from_tflite import import_tflite  # noqa: E402
from edgeprune.models.from_tflite.check import check  # noqa: E402
from edgeprune.quantize.plan import QuantizationPlan  # noqa: E402
from edgeprune.tflite.flatbuffer import parse  # noqa: E402
from edgeprune.tflite.objects import packed, unpacked  # noqa: E402

PUBLISHED = Path(__file__).parents[4] / "shared" / "models" / "tflite"
FLOAT = ("blazeface", "deeplab", "dtln1", "fd-short", "flandmark", "lstm", "mbv1f", "pitch", "selfie")
QUANTIZED = ("automl", "jarvis", "mbv1q", "mspeech", "vad")
# Layers of the random models that become operators without an importer: loops, and what has an input of open size.
NO_RULE = ("WHILE", "is open", "SVDF", "batch", "one image", "one sequence", "FlexErf", "of type", "of any size")
# Mutations that leave most files whole.
HARMLESS = ("scales", "options", "buffers")
FLOAT32 = QuantizationPlan("float32", "float", False)


def write(path, model, plan=FLOAT32, samples=None):
    path.write_bytes(convert(model, plan, samples))
    return path


@pytest.mark.parametrize("number", representatives(range(0, 24, 2), 0, 4))
def test_random_model(number, tmp_path):
    """A random model's file is a model again that computes the same; what has no rule is refused by name."""
    made = random_model(number, "tf_keras")
    try:
        path = write(tmp_path / "it.tflite", edgeprune.load_model(made.model))
    except EdgepruneError as refused:
        pytest.skip(f"not converted: {refused.what[:80]}")
    said = refusal(path)
    if said is None:
        assert check(import_tflite(path), path).difference <= 1e-4
    else:
        assert any(words in said.what for words in NO_RULE), said.what


def refusal(path):
    """The error that reading a file ends in; None if it does not."""
    try:
        edgeprune.load_model(path)
    except EdgepruneError as error:
        return error
    return None


def small():
    import tf_keras
    from tf_keras import layers

    i = layers.Input((12, 12, 3), name="picture")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(i)
    y = layers.DepthwiseConv2D(3, padding="same", name="depth")(x)
    x = layers.ReLU(6.0)(layers.Add()([x, layers.Conv2D(8, 1, name="point")(y)]))
    x = layers.GlobalAveragePooling2D()(x)
    first, second = layers.Dense(4, activation="softmax", name="zebra")(x), layers.Dense(2, name="ape")(x)
    return tf_keras.Model(i, [first, second])


@pytest.fixture(scope="module")
def model():
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    return small()


@pytest.fixture(scope="module")
def samples():
    draw = np.random.default_rng(0)
    return lambda: ([draw.normal(size=(1, 12, 12, 3)).astype("float32")] for _ in range(20))


@pytest.fixture(scope="module")
def int8_file(model, samples, tmp_path_factory):
    return write(tmp_path_factory.mktemp("int8") / "it.tflite", model, QuantizationPlan("int8", "int8", True), samples)


@pytest.fixture(scope="module")
def float_file(model, tmp_path_factory):
    """The same model in float32, which tests that change it copy."""
    return write(tmp_path_factory.mktemp("float32") / "it.tflite", model)


def test_names_and_order(model, float_file):
    """Inputs and outputs keep the names and the order of the file, and constants are weights again."""
    again = edgeprune.load_model(float_file)
    assert again.input_names == ["picture"]
    assert sorted(again.output_names) == ["ape", "zebra"]
    kernels = [sorted(w.shape for w in m.get_weights() if w.ndim > 1) for m in (again, model)]
    assert kernels[0] == kernels[1]  # biases of zeros are left out
    x = np.random.default_rng(0).normal(size=(3, 12, 12, 3)).astype("float32")
    expected = dict(zip(["zebra", "ape"], model(x), strict=True))
    for name, value in zip(again.output_names, again(x), strict=True):
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)


def test_int8(int8_file):
    """Every operator of an int8 file is within one step of its quantization, and the new file has the same ranges."""
    imported = import_tflite(int8_file)
    checked = check(imported, int8_file)
    assert checked.operator_steps <= 1.01
    assert checked.steps <= 2
    assert any("real values" in note for note in checked.notes)
    content = convert(imported.rounded, QuantizationPlan("int8", "int8", True, ranges_in_model=True))
    old, new = imported.file.subgraphs[0], parse(content).subgraphs[0]
    assert [o.name for o in new.operators] == [o.name for o in old.operators]
    scales = [sorted(g.output(o).quantization.scale[0] for o in g.operators) for g in (old, new)]
    np.testing.assert_allclose(scales[0], scales[1], rtol=1e-3)


# Mode → inputs and outputs, whether it needs samples, the bar: relative for floats, in steps by operator for integers.
FORMATS = {
    "float16": ("float", False, 1e-4),
    "dynamic": ("float", False, 0.1),
    "int8-weights": ("float", False, 1e-4),
    "int4-weights": ("float", False, 1e-4),
    "int16x8": ("float", True, 1.01),
    "mixed": ("uint8", True, 1.01),
}


@pytest.mark.parametrize("mode", FORMATS)
def test_formats(mode, model, samples, tmp_path):
    """Files of every format that edgeprune makes are read: weights of fewer bits, integers of 16, and some in float."""
    io, needs_samples, bar = FORMATS[mode]
    plan = QuantizationPlan(mode, io, needs_samples, float_tensors=("model/zebra/Softmax",) if mode == "mixed" else ())
    path = write(tmp_path / "it.tflite", model, plan, samples if needs_samples else None)
    checked = check(import_tflite(path), path)
    assert (checked.operator_steps if needs_samples else checked.difference) <= bar


def test_sparse_weights(model, tmp_path):
    """Weights that are stored sparse come back with their zeros."""
    import tf_keras

    pruned = tf_keras.models.clone_model(model)
    kernels = [
        np.where(np.arange(w.size).reshape(w.shape) % 10, 0, w) if w.ndim > 1 else w for w in model.get_weights()
    ]
    pruned.set_weights(kernels)
    path = write(tmp_path / "it.tflite", pruned, QuantizationPlan("float32", "float", False, sparse=True))
    imported = import_tflite(path)
    assert "DENSIFY" in {operator.name for operator in imported.file.subgraphs[0].operators}
    assert check(imported, path).difference <= 1e-4
    zeros = [sum(int((w == 0).sum()) for w in m.get_weights() if w.ndim > 1) for m in (imported.model, pruned)]
    assert zeros[0] == zeros[1]


def test_what_a_range_cuts_off_is_an_activation(int8_file, monkeypatch):
    """Where a quantized file leaves a ReLU to the range of the output, the model has one."""
    from edgeprune.models.from_tflite import read

    def without(options):
        return {**options, "fused_activation_function": "NONE"}

    real = read.parse

    def parse_without(content, name="model"):
        import dataclasses

        file = real(content, name)
        graph = file.subgraphs[0]
        operators = tuple(dataclasses.replace(o, options=without(o.options)) for o in graph.operators)
        return dataclasses.replace(file, subgraphs=(dataclasses.replace(graph, operators=operators),))

    monkeypatch.setattr(read, "parse", parse_without)
    imported = import_tflite(int8_file)
    assert sum(type(layer).__name__ == "ReLU" for layer in imported.model.layers) == 2
    assert check(imported, int8_file).operator_steps <= 1.01


@pytest.mark.parametrize("name", representatives(FLOAT + QUANTIZED, "blazeface", "lstm", "mspeech"))
def test_published_file(name):
    """Published files are imported and verified: floats to 1e-4, integers within one step by operator."""
    path = PUBLISHED / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the published files are not here")
    imported = import_tflite(path)
    checked = check(imported, path)
    if name in FLOAT:
        assert checked.difference <= 1e-4
        assert checked.steps is None
    else:
        assert checked.operator_steps <= 1.01
        assert checked.steps <= 3


@pytest.mark.parametrize("rounds", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_damaged_files(rounds, int8_file, float_file, tmp_path):
    """A file with changed bytes is a model or one message, never anything else."""
    draw = random.Random(0)
    whole = [int8_file.read_bytes(), float_file.read_bytes()]
    path, refused = tmp_path / "it.tflite", 0
    for number in range(rounds):
        content = bytearray(whole[number % 2])
        for _ in range(draw.choice([1, 1, 2, 8])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        said = refusal(path)
        if said is not None:
            refused += 1
            assert said.exit_code == 2, said.what
            assert said.expected, said.what
    assert refused


@pytest.mark.parametrize("rounds", [4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mutation", TABLES, ids=lambda mutation: mutation.__name__)
def test_damaged_tables(mutation, rounds, int8_file, float_file, tmp_path):
    """So is a file with other values in its tables: options, shapes, types, scales, constants, order and cycles."""
    whole = [int8_file.read_bytes(), float_file.read_bytes()]
    path, draw, refused = tmp_path / "it.tflite", random.Random(1), 0
    for number in range(rounds):
        path.write_bytes(whole[number % 2])
        mutation(path, draw)
        said = refusal(path)
        if said is not None:
            refused += 1
            assert said.exit_code == 2, said.what
            assert said.expected, said.what
            assert len(str(said)) < 3000
    assert refused or mutation.__name__ in HARMLESS


def edited(path, content, change):
    """A file after a change of its objects."""
    made = unpacked(content)
    change(made)
    path.write_bytes(packed(made))
    return path


def test_messages_are_short(float_file, tmp_path):
    """A shape of a thousand axes is not told in full."""

    def change(made):
        graph = made.subgraphs[0]
        graph.tensors[graph.operators[0].inputs[0]].shape = [1, 12, 12, 3] + [1] * 1000

    said = refusal(edited(tmp_path / "it.tflite", float_file.read_bytes(), change))
    assert "works on a tensor of shape" in said.what
    assert len(str(said)) < 1500


def test_types_without_numbers(float_file, tmp_path):
    """A constant of a type that holds no numbers is refused with the types that do."""

    def change(made):
        graph = made.subgraphs[0]
        graph.tensors[graph.operators[0].inputs[1]].type = 127

    said = refusal(edited(tmp_path / "it.tflite", float_file.read_bytes(), change))
    assert "holds no numbers" in said.what
    assert "float32" in said.expected


def test_memory_is_bounded(float_file, monkeypatch):
    """A file whose tensors are too large, one of them or all together, is refused before anything is computed."""
    for limit, words in (
        ("call.MOST_VALUES", "makes a tensor of shape"),
        ("read.MOST_IN_ALL", "makes the model too large"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"edgeprune.models.from_tflite.{limit}", 400)
            assert words in refusal(float_file).what


def test_what_fails_when_it_runs(float_file, monkeypatch):
    """What TensorFlow refuses only when it computes ends in one message, too."""

    def fails(*arguments):
        raise tf.errors.InvalidArgumentError(None, None, "no such thing")

    monkeypatch.setattr("edgeprune.models.from_tflite.check._run_model", fails)
    said = refusal(float_file)
    assert "Its model cannot be run: no such thing" in said.what
    assert said.expected


def test_commands(int8_file, tmp_path):
    """`convert` writes the model, `inspect` takes the file, and a build of it needs no labels; the report says so."""
    out = tmp_path / "it.keras"
    done = run("convert", int8_file, "--keras", out)
    assert done.returncode == 0, done.stderr
    assert "real values" in done.stdout
    assert edgeprune.load_model(out).count_params() > 0
    done = run("inspect", int8_file, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["groups"]
    samples = np.random.default_rng(0).normal(size=(60, 12, 12, 3)).astype("float32")
    np.savez(tmp_path / "samples.npz", x_train=samples, x_test=samples[:20])
    done = run(
        "build",
        int8_file,
        "--data",
        tmp_path / "samples.npz",
        "--target",
        "rpi4",
        "--recipe",
        "int8",
        "--out",
        out.with_suffix(""),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((out.with_suffix("") / "report.json").read_text())
    assert report["model"]["imported"]["steps"] <= 2
    assert {row["kind"] or row["loss"] for row in report["task"]}
    assert "Read from a .tflite" in (out.with_suffix("") / "report.md").read_text()
    np.savez(tmp_path / "pixels.npz", x_train=100 * samples, x_test=100 * samples[:20])
    done = run("build", int8_file, "--data", tmp_path / "pixels.npz", "--target", "rpi4", "--out", tmp_path / "pixels")
    assert done.returncode == 2
    assert re.search(r"and the .tflite takes -[\d.]+ to [\d.]+\..*std = \[[\d.]+\]", done.stderr, re.DOTALL), (
        done.stderr
    )
    made = parse(next((out.with_suffix("") / "variants").glob("*-int8.tflite")).read_bytes()).subgraphs[0]
    old = parse(int8_file.read_bytes()).subgraphs[0]
    scales = [
        sorted(g.output(o).quantization.scale[0] for o in g.operators if g.output(o).quantization) for g in (old, made)
    ]
    np.testing.assert_allclose(scales[0], scales[1][: len(scales[0])], rtol=1e-3)


def test_convert_refuses(tmp_path):
    """Only .tflite files are converted, and only to .keras files."""
    (tmp_path / "it.h5").write_bytes(b"none")
    for arguments, words in (
        (("convert", tmp_path / "it.h5", "--keras", tmp_path / "it.keras"), "is not a .tflite file"),
        (("convert", tmp_path / "it.h5", "--keras", tmp_path / "it.h5"), "does not end in .keras"),
        (("convert", tmp_path / "none.tflite", "--keras", tmp_path / "it.keras"), "does not exist"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert words in done.stderr


def test_metadata_is_carried_over(float_file, tmp_path):
    """What a file says about its inputs, and the labels within it, are in the files that are made of it."""
    from edgeprune.stages.conversion import _carried
    from edgeprune.tflite.splice import with_buffer

    content = float_file.read_bytes()
    old = tmp_path / "old.tflite"
    old.write_bytes(with_buffer(with_buffer(content, "TFLITE_METADATA", b"about the ports"), "OF_ITS_OWN", b"more"))
    with zipfile.ZipFile(old, "a") as archive:
        archive.writestr("labels.txt", "ape\nzebra\n")
    (tmp_path / "new.tflite").write_bytes(_carried(content, old))
    made = parse((tmp_path / "new.tflite").read_bytes())
    assert made.metadata["TFLITE_METADATA"] == b"about the ports"
    assert made.metadata["OF_ITS_OWN"] == b"more"
    assert zipfile.ZipFile(tmp_path / "new.tflite").read("labels.txt") == b"ape\nzebra\n"
    assert _carried(content, float_file) is None
