"""The scripts in examples/ train models, or build them, as they say. How good these are is never asserted here."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import edgeprune
from edgeprune.recipe.load import parse_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"
# Folder → the archive of ../shared that it trains on, and what a build takes as data.
EXPECTED = {
    "keywords": ("audio_fsdd.tar.gz", "data"),
    "sensor_windows": ("har_smartphone.tar.gz", "data.npz"),
    "segmentation": ("segmentation_camvid.tar.gz", "data"),
    "detection": ("detection_bccd.tar.gz", "data"),
    "steering": ("regression_steering.tar.gz", "data.py:load"),
    "tables": ("regression_tabular.tar.gz", "data.npz"),
}


# Folder whose script goes from data to files → its options, with files of ../shared, and the file that it names first.
RUNS = {
    "transfer": {"--weights": "models/imagenet_mobilenet025.tar.gz", "--data": "data/cifar10-jpeg.tar.gz"},
    "teacher": {"--detector": "models/detector_facemask.tar.gz"},
    "tflite": {
        "--model": "models/mlperf_tiny_resnet8_int8_reference.tflite",
        "--data": "data/cifar10-jpeg.tar.gz",
    },
}

# Notebook → the files of ../shared that lie beside it where it runs.
NOTEBOOKS = {
    "keywords/keywords.ipynb": ["data/audio_fsdd.tar.gz"],
    "transfer/transfer.ipynb": ["models/imagenet_mobilenet025.tar.gz", "data/cifar10-jpeg.tar.gz"],
}


def test_every_example_is_tested():
    """Each folder of examples/ has a row above, or a test of its own; each script has at most 80 lines."""
    assert {path.parent.name for path in EXAMPLES.glob("*/train.py")} == set(EXPECTED)
    assert {path.parent.name for path in EXAMPLES.glob("*/run.py")} == {*RUNS, "micro"}
    assert [path for path in EXAMPLES.glob("*/*.py") if len(path.read_text("utf-8").splitlines()) > 80] == []
    assert {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.ipynb")} == set(NOTEBOOKS)


def run(script: str, *options: str | Path) -> dict:
    """What an example prints in its last line."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_holds_no_results(name):
    """What it shows is what it computes when it runs, and a change of it is a change of its text."""
    cells = nbformat.read(EXAMPLES / name, as_version=4).cells
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_tells_its_story(name, shared, tmp_path):
    """Every cell runs in a folder with the examples and the data; there are plots, and the report as a table."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    for path in NOTEBOOKS[name]:
        (tmp_path / Path(path).name).symlink_to(shared / path)
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output["data"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    drawn = sum("plt.subplots" in cell.source for cell in notebook.cells)
    assert sum("image/png" in data for data in shown) == drawn >= 3
    assert [data for data in shown if "filters-int8" in data.get("text/html", "")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_an_example_goes_from_data_to_a_smaller_file(name, shared, tmp_path):
    """The files are there with the bytes that are printed, and the pruned int8 file is the smallest of all."""
    options = [part for option, path in RUNS[name].items() for part in (option, shared / path)]
    printed = run(f"{name}/run.py", *options, "--out", tmp_path)
    variants = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))["variants"]
    sizes = {variant["name"]: (tmp_path / "run" / variant["file"]).stat().st_size for variant in variants}
    assert {file: figures["bytes"] for file, figures in printed.items()} == sizes
    assert min(sizes, key=sizes.get) == "filters-int8"
    assert all(0 < value <= 1 for figures in printed.values() for key, value in figures.items() if key != "bytes")


@pytest.mark.slow
def test_the_keywords_fit_a_microcontroller(shared, tmp_path):
    """The pruned file takes the least flash, and less than without codes; the sources of the pick are there."""
    digits = tmp_path / "digits"
    run("keywords/train.py", "--data", shared / "data" / "audio_fsdd.tar.gz", "--out", digits, "--epochs", "2")
    printed = run("micro/run.py", "--keywords", digits, "--out", tmp_path / "spotter")
    assert min(printed, key=lambda name: printed[name]["flash"]) == "coded-int8"
    assert printed["coded-int8"]["flash"] < printed["coded-int8"]["plain"]
    assert (tmp_path / "spotter" / "run" / "micro" / "model_data.cc").is_file()


@pytest.mark.slow  # figures of Keras and of files: tests/evaluate/test_files.py
@pytest.mark.parametrize("name", EXPECTED)
def test_a_float_file_has_the_figures_that_the_example_printed(name, shared, tmp_path):
    """An example prints the figures of model.evaluate in its last line; the float32 file of a build has the same."""
    archive, data = EXPECTED[name]
    command = [sys.executable, str(EXAMPLES / name / "train.py"), "--data", str(shared / "data" / archive)]
    command += ["--out", str(tmp_path), "--epochs", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    printed = ast.literal_eval(done.stdout.splitlines()[-1])
    written = next(tmp_path.glob("*.toml"), None)  # of an example whose data need words
    given = tomllib.loads(written.read_text("utf-8")) if written else {}
    recipe = parse_recipe({**given, "extends": [], "quantize": {"modes": ["float32"]}}, "float32.toml")
    report = edgeprune.build(tmp_path / "model.keras", data=str(tmp_path / data), recipe=recipe, out=tmp_path / "run")
    figures = {key.replace(".", "_"): metric["value"] for key, metric in report["variants"][0]["metrics"].items()}
    assert figures == pytest.approx({key: printed[key] for key in figures}, abs=1e-5)
    assert set(printed) - set(figures) == {key for key in printed if key.endswith("loss")}
