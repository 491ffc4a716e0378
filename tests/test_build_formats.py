"""Number formats: recipes of post-training quantization end in files that run and keep the accuracy."""

import gzip
import json
import shutil
import subprocess
import sys

import pytest

from edgeprune.builder import build
from edgeprune.errors import ModelError
from edgeprune.progress import Progress
from edgeprune.recipe.load import load_recipe, parse_recipe

RECIPES = {
    "float16": ["float32", "float16"],
    "dynamic": ["float32", "dynamic"],
    "int16x8": ["float32", "int16x8"],
    "mixed": ["float32", "int8", "mixed"],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny_model):
    """The run folder of one build of all formats at once; the recipes' own modes are a part of these."""
    folder = tmp_path_factory.mktemp("formats")
    table = {
        "extends": list(RECIPES),
        "data": {"scale": 1 / 255},
        "quantize": {"modes": ["float32", "float16", "dynamic", "int8", "int16x8", "mixed"], "io": "uint8"},
        "calibration": {"samples": 48, "strategy": "coverage"},
    }
    recipe = parse_recipe(table, "formats")
    return folder, build(tiny_model, data="demo", target="coral", recipe=recipe, out=folder, compress=True)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_their_formats(name):
    """Each builds float32 beside what it is named after."""
    assert list(load_recipe(name).quantize.modes) == RECIPES[name]


def test_every_format_keeps_the_accuracy(built):
    """Within two points of float32, measured on the files."""
    _, report = built
    assert {v["name"] for v in report["variants"]} == {"float32", "float16", "dynamic", "int8", "int16x8", "mixed"}
    assert all(v["drop_points"] <= 2 for v in report["variants"])


def test_the_report_has_what_each_format_adds(built):
    """Bytes of metadata, zstd sizes, parity per output, and the trials of mixed precision."""
    _, report = built
    rows = {v["name"]: v for v in report["variants"]}
    for row in rows.values():
        assert 500 < row["metadata_bytes"] < 3000
        assert 0 < row["zstd_bytes"] < row["bytes"]
        (output,) = row["parity"]["outputs"]
        assert output["max_abs_error"] == row["parity"]["max_abs_error"]
    trials = rows["mixed"]["mixed"]["trials"]
    assert 1 <= len(trials) <= 5
    assert any(trial["met"] for trial in trials)


def test_ranges_of_activations_are_those_that_the_files_answers_decide(built):
    """Of int8 and mixed files, with the error of each method; the page says which was taken."""
    folder, report = built
    rows = {v["name"]: v["activation_ranges"] for v in report["variants"] if v.get("activation_ranges")}
    assert set(rows) == {"int8", "mixed"}
    for row in rows.values():
        assert set(row["differences"]) == {"minmax", "percentile", "mse"}
        assert row["differences"][row["method"]] <= row["differences"]["minmax"] < 0.1
        assert f"ranges of activations: {row['method']}" in (folder / "report.html").read_text()


def test_calibration_samples_are_in_the_manifest(built):
    """The positions of the samples, for every format that has them."""
    folder, _ = built
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["calibration"]) == {"int8", "int16x8", "mixed"}
    assert all(len(set(indices)) == 48 for indices in manifest["calibration"].values())


def test_compressed_files_and_snippets_are_beside_the_artifacts(built):
    """Unpacked they are the same; the snippet of the pick runs in a process of its own."""
    import numpy as np

    folder, report = built
    for variant in report["variants"]:
        path = folder / variant["file"]
        packed = path.with_name(path.name + ".gz").read_bytes()
        assert gzip.decompress(packed) == path.read_bytes()
        assert len(packed) == variant["gzip_bytes"]
    shape = report["model"]["input_shape"][1:]
    np.save(folder / "sample.npy", np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    for script, options in (("run_tiny.py", []), ("run_tiny_coral.py", ["--cpu"])):
        found = subprocess.run(
            [sys.executable, script, "sample.npy", *options], cwd=folder, capture_output=True, text=True, timeout=240
        )
        assert found.returncode == 0, found.stderr
        assert len(found.stdout.splitlines()) == 5


def test_a_build_without_compression_leaves_no_compressed_files(built, tiny_model, tmp_path):
    """Those of an earlier build are not taken for files of this one."""
    folder, _ = built
    shutil.copytree(folder, tmp_path / "run")
    recipe = load_recipe(tmp_path / "run" / "recipe.toml")
    again = build(tiny_model, data="demo", target="coral", recipe=recipe, out=tmp_path / "run")
    assert all(stage["reused"] for stage in again["stages"])
    assert not [*(tmp_path / "run").rglob("*.gz")]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert not [name for name in manifest["files"] if name.endswith(".gz")]


def test_another_model_in_the_same_folder_leaves_nothing_of_the_first(built, tiny_model, tmp_path):
    """Its pick and the code that runs it would be taken for results of this build; files of others stay."""
    folder, _ = built
    out = shutil.copytree(folder, tmp_path / "run")
    tiny_model.save(tmp_path / "other.h5")
    (out / "mine.tflite").write_bytes(b"of somebody else")
    build(tmp_path / "other.h5", data="demo", target="rpi4", recipe=parse_recipe({}, "other"), out=out)
    assert {path.name for path in out.glob("*.tflite")} == {"other.tflite", "mine.tflite"}
    assert {path.name for path in out.glob("*.py")} == {"run_other.py"}


def test_operators_of_full_tensorflow_are_named_though_the_build_ends(tmp_path):
    """Where no runtime has them, the file cannot be measured; what it needs was said when it was written."""
    import tensorflow as tf
    import tf_keras

    notes = []

    class Listener(Progress):
        def note(self, text):
            notes.append(text)

    layers = tf_keras.layers
    inputs = layers.Input([16, 16, 1])
    square = layers.Reshape([1, 1, 16, 16])(inputs)
    x = layers.Concatenate()([layers.Flatten()(inputs), layers.Flatten()(layers.Lambda(tf.linalg.det)(square))])
    model = tf_keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="det")
    recipe = parse_recipe({"convert": {"select_tf_ops": True}}, "select")
    with pytest.raises(ModelError, match="MatrixDeterminant"):
        build(model, data="demo", recipe=recipe, out=tmp_path, progress=Listener(), trust_model=True)
    assert any("MatrixDeterminant" in note for note in notes)


@pytest.mark.slow  # so is the file of test_build_sparse.py
def test_pruned_weights_are_stored_sparse_where_that_is_smaller(tiny_model, tmp_path):
    """If the recipe asks for it; the file computes what its Keras model computes, and unpruned files stay dense."""
    table = {
        "extends": ["magnitude"],
        "data": {"scale": 1 / 255},
        "finetune": {"epochs": 1},
        "convert": {"sparse_encoding": True},
    }
    report = build(tiny_model, data="demo", recipe=parse_recipe(table, "sparse"), out=tmp_path)
    dense, sparse = report["variants"]
    assert {kernel["encoding"] for kernel in dense["kernels"]} == {"dense"}
    assert {kernel["encoding"] for kernel in sparse["kernels"]} == {"sparse"}
    facts = json.loads((tmp_path / "stages" / f"{sparse['name']}.convert" / "artifact.json").read_text())["facts"]
    encoding = facts["conversion"]["sparse_encoding"]
    assert encoding["used"]
    assert encoding["sparse_bytes"] == sparse["bytes"] - sparse["metadata_bytes"] < encoding["dense_bytes"]
    assert sparse["parity"]["max_abs_error"] < 1e-5
    assert not sparse["warnings"]
