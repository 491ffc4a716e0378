"""Filters, distilled, on the demo: smaller by construction, exact by the oracle, still accurate."""

import json
import subprocess
import sys

import numpy as np
import pytest
from commands import run

from edgeprune.report.allocation import ranges

RECIPE = """
extends = ["filters-int8"]
[filters]
max_macs = "50%"
steps = 2
samples = 64
[reconstruct]
samples = 64
[quantize]
rounding = "nearest"
[calibration]
samples = 32
range = "minmax"
[finetune]
epochs = 1
[distill]
temperature = 2.0
weight = 0.9
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory, begin_demo):
    folder = tmp_path_factory.mktemp("filters")
    begin_demo(folder / "run")
    (folder / "edgeprune.toml").write_text(RECIPE)
    done = run("build", "--target", "rpi4", "--json", "--out", "run", "--export-keras3", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads(done.stdout)


def test_the_macs_are_halved_in_the_files(built):
    """MACs counted in the flatbuffer, of both number formats: within the budget, as near as multiples of 8 come."""
    rows = {row["name"]: row for row in built[1]["variants"]}
    assert list(rows) == ["float32", "int8", "filters-float32", "filters-int8"]
    for mode in ("float32", "int8"):
        assert 0.45 <= rows[f"filters-{mode}"]["macs"] / rows[mode]["macs"] <= 0.50
        assert rows[f"filters-{mode}"]["bytes"] < rows[mode]["bytes"]
        assert rows[f"filters-{mode}"]["memory"]["arena_bytes"] < rows[mode]["memory"]["arena_bytes"]


def test_accuracy_comes_back(built):
    """A few epochs restore most of it."""
    rows = {row["name"]: row for row in built[1]["variants"]}
    assert rows["filters-int8"]["metric"]["value"] > rows["float32"]["metric"]["value"] - 0.1


def test_each_removal_was_verified_and_repaired(built):
    """Two steps, each equal to its oracle; the repair does not hurt; what is frozen says why."""
    for number in (1, 2):
        facts = json.loads((built[0] / "stages" / f"filters.remove{number}" / "artifact.json").read_text())["facts"]
        assert facts["filters"]["oracle_difference"] <= 1e-4
        assert facts["filters"]["validation"]["reconstructed"] >= facts["filters"]["validation"]["pruned"]
        assert sum(row["removed"] for row in facts["filters"]["groups"]) > 0
        assert all(row["frozen"] for row in facts["filters"]["groups"] if row["name"] == "outputs")


def test_the_pruned_model_is_an_ordinary_keras_model(built):
    """The .keras file loads and has the layers of the original; the one for Keras 3 is beside it."""
    import edgeprune

    pruned = edgeprune.load_model(built[0] / "models" / "demo-filters.keras")
    original = edgeprune.load_model(built[0] / "models" / "demo-baseline.keras")
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in original.layers]
    assert edgeprune.count(pruned).params < edgeprune.count(original).params
    assert (built[0] / "models" / "demo-filters.keras3.keras").is_file()  # written only if its outputs are the same


@pytest.mark.slow  # the export compares; read back in tests/models/test_keras3_layers.py
def test_the_pruned_model_is_there_for_keras_3(built):
    """Keras 3 reads it without edgeprune, and it computes what the tf_keras model computes."""
    import edgeprune

    code = (
        "import sys, keras, numpy as np; "
        "np.save(sys.argv[2], keras.models.load_model(sys.argv[1]).predict(np.load(sys.argv[3])))"
    )
    folder, ours = built[0], edgeprune.load_model(built[0] / "models" / "demo-filters.keras")
    np.save(folder / "x.npy", np.random.default_rng(0).random((4, *ours.input_shape[1:]), "float32"))
    files = [folder / "models" / "demo-filters.keras3.keras", folder / "y.npy", folder / "x.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, files)], check=True, capture_output=True, timeout=120)
    assert np.allclose(np.load(folder / "y.npy"), ours.predict(np.load(folder / "x.npy")), atol=1e-5)


def test_inspect_shows_what_can_be_pruned(built):
    """Groups with sizes and savings, the frozen one with its reason."""
    command = ["inspect", built[0] / "models" / "demo-baseline.keras"]
    found = json.loads(run(*command, "--json").stdout)
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    frozen = [group for group in found["groups"] if group["frozen"]]
    free = [group for group in found["groups"] if not group["frozen"]]
    assert len(frozen) == 1
    assert free
    assert all(group["saves_macs_per_channel"] > 0 for group in free)
    assert "made by" in run(*command).stdout


def test_the_report_says_why_every_group_got_its_width(built):
    """Of the last step: the groups that had a choice, whose losses add up to that of the choice."""
    (pruned,) = json.loads((built[0] / "report.json").read_text())["pruning"]
    facts = json.loads((built[0] / "stages" / "filters.remove2" / "artifact.json").read_text())["facts"]["filters"]
    kept = {row["name"]: row["channels"] - row["removed"] for row in facts["groups"] if not row["frozen"]}
    reasons = pruned["allocation"]["reasons"]
    assert {row["name"]: row["kept"] for row in reasons} == kept
    assert sum(row["loss"] for row in reasons) == pytest.approx(pruned["allocation"]["loss"])
    assert "What was removed, and why" in (built[0] / "report.html").read_text()


def test_the_report_says_which_channels_went(built):
    """As many of every group as its layers lost over both steps, and every number stands in the page."""
    import edgeprune

    (pruned,) = json.loads((built[0] / "report.json").read_text())["pruning"]
    page = (built[0] / "report.html").read_text()
    left = edgeprune.load_model(built[0] / "models" / "demo-filters.keras")
    assert any(group["gone"] for group in pruned["channels"])
    for group in pruned["channels"]:
        widths = {left.get_layer(layer).weights[0].shape[-1] for layer in group["layers"][:1]}
        assert group["frozen"] or widths == {group["original"] - len(group["gone"])}
        assert ranges(group["gone"]) in page
