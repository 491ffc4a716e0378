"""``rates`` in a recipe: a pruned chain for each, sharing what comes before; and a build that draws them."""

import json
import subprocess
import sys

import pytest

from edgeprune.errors import RecipeError
from edgeprune.plan import make_plan
from edgeprune.recipe.load import parse_recipe
from edgeprune.target import load_target

MODES = {"modes": ["float32", "int8"]}


def _plan(**table):
    return make_plan([parse_recipe({"rates": [0.3, 0.5], "quantize": MODES, **table}, "x.toml")], load_target("rpi4"))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [({"rate": 0.1}, ("rate", [0.3, 0.5])), ({"max_macs": 0.9}, ("max_macs", [0.7, 0.5])), ({"max_params": 0.9}, None)],
)
def test_filters_remove_the_rate_of_what_the_recipe_limits(limit, expected):
    """The one budget of the recipe is replaced at every rate; variants are named after it and know their series."""
    key, values = expected or ("max_params", [0.7, 0.5])
    plan = _plan(filters=limit)
    steps = {step.name: step for step in plan.steps}
    removals = [steps[f"filters{at}.remove1"] for at in (30, 50)]
    assert [getattr(step.config.filters, key) for step in removals] == values
    assert [step.after for step in removals] == ["filters.scores1"] * 2  # which no rate changes
    assert [v.name for v in plan.variants] == [
        "float32", "int8", "filters30-float32", "filters30-int8", "filters50-float32", "filters50-int8",
    ]  # fmt: skip
    assert [(v.series, v.rate) for v in plan.variants[2:4]] == [("filters-float32", 0.3), ("filters-int8", 0.3)]
    assert plan.variants[0].series is None


def test_limits_of_several_targets_all_take_the_share_that_the_rate_leaves():
    """Each target of a table keeps its place, and so does the limit of the build's own."""
    plan = _plan(filters={"max_latency": {"rpi4": 3.0, "coral": "99%"}, "max_size": 1000})
    limits = {step.name: step.config.files for step in plan.steps if step.name.endswith(".remove1")}
    for at, share in ((30, "70%"), (50, "50%")):
        found = {limit.name: limit.most for limit in limits[f"filters{at}.remove1"]}
        assert found == {"latency on rpi4": share, "latency on coral": share, "size": share}


def test_weights_become_as_sparse_as_the_rate():
    """Chains part at the first section with a budget; all names are unique, and every step comes after its parent."""
    plan = _plan(weights={}, filters={"rate": 0.5, "steps": 2})
    steps = {step.name: step for step in plan.steps}
    assert len(steps) == len(plan.steps)
    assert [steps[f"filters-magnitude{at}"].config.weights.sparsity for at in (30, 50)] == [0.3, 0.5]
    seen = {"model"}
    for step in plan.steps:
        assert step.after in seen
        seen.add(step.name)


def test_without_rates_nothing_changes():
    """Names carry no number, and variants belong to no series."""
    plan = _plan(weights={}, rates=[])
    assert [variant.name for variant in plan.variants][2:] == ["magnitude-float32", "magnitude-int8"]
    assert {variant.series for variant in plan.variants} == {None}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"rates": [0.3], "weights": {}}, "at least two"),
        ({"rates": [0.5, 0.3], "weights": {}}, "increasing"),
        ({"rates": [0.3, 0.3], "weights": {}}, "increasing"),
        ({"rates": [0.3, 1.0], "weights": {}}, "less than 1"),
        ({"rates": [0.0, 0.5], "weights": {}}, "greater than 0"),
        ({"rates": [0.3, 0.5]}, "need a pruning section"),
        ({"rates": [0.3, 0.3000000001], "weights": {}}, "differ"),
        ({"filters": {"rate": 0.3, "rates": {"a": 0.1}}}, "layer_rates"),
    ],
)
def test_wrong_rates(table, words):
    """At least two, increasing, in (0, 1), and with a section whose budget they replace."""
    with pytest.raises(RecipeError, match=words):
        parse_recipe(table, "wrong.toml")


RECIPE = """
extends = ["filters-int8"]
rates = ["30%", "60%"]
[filters]
max_macs = "50%"
steps = 1
samples = 128
allocation = "sensitivity"
[finetune]
epochs = 1
"""


@pytest.mark.slow
def test_a_build_draws_a_line_per_method_and_format(tmp_path):
    """On the demo: MACs in the files are what each rate leaves, and the report joins the points of a format."""
    (tmp_path / "edgeprune.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "edgeprune", "build", "--target", "rpi4", "--json", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["variants"]}
    for mode in ("float32", "int8"):
        for at, kept in ((30, 0.7), (60, 0.4)):
            row = rows[f"filters{at}-{mode}"]
            assert abs(row["macs"] / rows[mode]["macs"] - kept) <= 0.02
            assert (row["series"], row["rate"]) == (f"filters-{mode}", at / 100)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Multiply-accumulates (millions)" in page
    assert page.count(">filters-int8<") == page.count("Pareto front") > 2
    points = (tmp_path / "run" / "stages" / "filters60.remove1" / "sensitivity.jsonl").read_text().splitlines()
    assert len(points) > 2
