"""Every recipe, and every pruning recipe with int8 and with training for int8, on the demo, trained for an epoch."""

import pytest

import edgeprune
from edgeprune.errors import RecipeError
from edgeprune.recipe.config import Recipe
from edgeprune.recipe.load import load_recipe, parse_recipe
from edgeprune.tflite.flatbuffer import read
from edgeprune.tflite.size import kernels

FORMATS = ["float16", "dynamic", "int8", "int16x8", "qat", "pqat", "cluster-int8", "pcqat", "mixed"]
PRUNING = ["magnitude", "filters", "slim", "gradual", "lottery", "compact", "sparse"]
COMBINED = [(name, other) for name in PRUNING for other in ("int8", "qat") if (name, other) != ("sparse", "qat")]


def short(*names: str) -> Recipe:
    """The recipes together, with as little training as they allow."""
    table = {"extends": list(names), "finetune": {"epochs": 1}, "calibration": {"samples": 48}}
    known = parse_recipe(table, "short")
    for section, changes in {
        "qat": {"epochs": 1}, "cluster": {"epochs": 1}, "sparsify": {"epochs": 1},
        "lottery": {"epochs": 2, "rewind": 1}, "filters": {"steps": 1, "samples": 256},
    }.items():  # fmt: skip
        if getattr(known, section):
            table[section] = changes
    return parse_recipe(table, "short")


@pytest.mark.slow
@pytest.mark.parametrize("names", [*((name,) for name in FORMATS), *COMBINED], ids="+".join)
def test_the_recipe_runs_and_keeps_its_promises(names, begin_demo, tmp_path):
    """Its files run and were measured; what was pruned or clustered is so in the flatbuffer."""
    begin_demo(tmp_path / "run")
    recipe = short(*names)
    report = edgeprune.build(None, target="rpi4", recipe=recipe, out=tmp_path / "run")
    made = [v for v in report["variants"] if not v["baseline"]]
    assert made
    assert all(v["metric"]["samples"] == report["data"]["test"] for v in made)
    last = [v for v in made if not v["control_of"]][-1]
    stored = kernels(read(tmp_path / "run" / last["file"]))
    if recipe.weights and not recipe.weights.sparse_inference:
        total = sum(kernel.size for kernel in stored)
        assert sum(kernel.sparsity * kernel.size for kernel in stored) >= 0.9 * recipe.weights.sparsity * total
    if recipe.cluster:
        assert all(kernel.channel_distinct <= recipe.cluster.n_clusters for kernel in stored)
    if recipe.filters:
        assert last["macs"] <= 0.52 * report["model"]["macs"]


def test_sparse_inference_and_training_for_int8_exclude_each_other():
    """The sparse kernels are for float files only: the combination is refused by name."""
    with pytest.raises(RecipeError, match="sparse_inference"):
        short("sparse", "qat")


@pytest.mark.parametrize("name", [*FORMATS, *PRUNING])
def test_every_recipe_of_the_list_is_there(name):
    """They are built in."""
    assert load_recipe(name).description
