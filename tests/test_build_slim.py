"""Recipe `slim` and `[layers]` on the demo: the methods chain, and the report says what was done."""

import json

import pytest

import edgeprune
from edgeprune.recipe.load import parse_recipe

# Choices that are measured by answers: tests/test_build_filters.py.
TINY = {"finetune": {"epochs": 1}, "distill": {}, "reconstruct": {"samples": 64, "match": "layers"}}


def build(folder, recipe, begin_demo):
    begin_demo(folder / "run")
    path = folder / "edgeprune.toml"
    path.write_text(parse_recipe(recipe, "tiny.toml").to_toml())
    edgeprune.build(None, target="rpi4", data="demo", recipe=path, out=folder / "run")
    return folder / "run", json.loads((folder / "run" / "report.json").read_text())


@pytest.fixture(scope="module")
def slim(tmp_path_factory, begin_demo):
    # Files of int8 come of the same models: tests/test_build_filters.py has those of pruned filters.
    table = {"extends": ["slim"], "sparsify": {"epochs": 1}, "quantize": {"modes": ["float32"]}, **TINY}
    return build(tmp_path_factory.mktemp("slim"), table, begin_demo)


@pytest.fixture(scope="module")
def shallow(tmp_path_factory, begin_demo):
    table = {"layers": {"remove": 1, "samples": 64}, "quantize": {"modes": ["float32"]}, **TINY}
    return build(tmp_path_factory.mktemp("shallow"), table, begin_demo)


def test_slim_trains_with_the_penalty_and_halves_the_macs(slim):
    """The scales shrink, the filters go, and the file has half of the MACs."""
    _, report = slim
    rows = {row["name"]: row for row in report["variants"]}
    assert list(rows) == ["float32", "sparsify-filters-float32"]
    assert 0.48 <= rows["sparsify-filters-float32"]["macs"] / rows["float32"]["macs"] <= 0.52
    (entry,) = report["pruning"]
    (penalty,) = entry["sparsify"]["penalties"]
    assert (entry["name"], penalty["name"], penalty["weight"]) == ("sparsify-filters", "bn_l1", 0.01)
    assert penalty["after"] < penalty["before"]


@pytest.mark.slow
def test_a_removed_block_is_in_the_report_and_not_in_the_model(shallow):
    """The demo's residual block goes, alone with a fine-tuning; every view names it."""
    folder, report = shallow
    (entry,) = report["pruning"]
    (block,) = entry["layers"]["removed"]
    assert (entry["name"], block["name"], block["kind"]) == ("layers", "residual_add", "residual")
    assert block["oracle_difference"] <= 1e-4
    rows = {row["name"]: row for row in report["variants"]}
    assert rows["float32"]["macs"] - rows["layers-float32"]["macs"] == block["macs"]
    assert [training["name"] for training in report["training"]] == ["layers"]
    for name in ("report.html", "report.md"):
        assert "residual_add" in (folder / name).read_text()
    names = {layer.name for layer in edgeprune.load_model(folder / "models" / "demo-layers.keras").layers}
    assert not names & set(block["layers"])
