"""The scripts in examples/ train models that a build takes. How good these are is never asserted here."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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


def test_every_example_is_tested():
    """Each folder of examples/ has a row above."""
    assert {path.parent.name for path in EXAMPLES.glob("*/train.py")} == set(EXPECTED)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("keywords", "tables") else pytest.mark.slow) for name in EXPECTED]
)
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
