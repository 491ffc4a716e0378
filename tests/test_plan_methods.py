"""The order of pruning methods is fixed, and the chain's last step is named after all of them."""

import pytest

from edgeprune.errors import RecipeError
from edgeprune.plan import make_plan
from edgeprune.recipe.load import load_recipe, parse_recipe
from edgeprune.target import ChannelSteps, load_target

LAYERS, SPARSIFY, FILTERS = {"layers": {"remove": 1}}, {"sparsify": {"bn_l1": 0.1}}, {"filters": {"rate": 0.5}}


@pytest.mark.parametrize(
    ("table", "steps"),
    [
        (LAYERS, ["layers.remove", "layers"]),
        (SPARSIFY, ["sparsify"]),
        (LAYERS | SPARSIFY, ["layers", "layers-sparsify"]),
        (
            FILTERS | SPARSIFY | LAYERS,
            [
                "layers",
                "layers-sparsify",
                "layers-sparsify-filters.scores1",
                "layers-sparsify-filters.remove1",
                "layers-sparsify-filters",
            ],
        ),
        ({"filters": {"rate": 0.5, "criterion": "l1"}}, ["filters.remove1", "filters"]),
    ],
)
def test_methods_chain_in_their_order(table, steps):
    """Each step continues from the one before, whatever the order in the recipe."""
    plan = make_plan([parse_recipe(table, "mine.toml")], load_target("rpi4"))
    pruning = [step for step in plan.steps if step.name.split(".")[0] in {name.split(".")[0] for name in steps}]
    assert [step.name for step in pruning] == steps
    assert [step.after for step in pruning] == ["model", *steps[:-1]]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"layers": {}}, "exactly one of remove and max_macs"),
        ({"layers": {"remove": 1, "max_macs": 0.5}}, "exactly one of remove and max_macs"),
        ({"sparsify": {}}, "at least one of weights_l1, bn_l1 and group_lasso"),
    ],
)
def test_sections_that_say_nothing_are_refused(table, words):
    """A budget or a penalty is needed, and one budget only."""
    with pytest.raises(RecipeError, match=words):
        parse_recipe(table, "mine.toml")


@pytest.mark.parametrize("steps", [1, 3])
def test_rates_of_layers_hold_after_all_steps(steps):
    """A layer's own rate is reached by the steps together, not by each of them."""
    from edgeprune.stages.filters import FiltersStageConfig, _step_rate

    filters = parse_recipe({"filters": {"rate": 0.3, "steps": steps}}, "mine.toml").filters
    kept = 1.0
    for number in range(1, steps + 1):
        kept *= 1 - _step_rate(FiltersStageConfig(filters=filters, number=number, steps=ChannelSteps()), 0.5)
    assert kept == pytest.approx(0.5)


def plan_of(*tables):
    return make_plan([parse_recipe(table, f"{name}.toml") for name, table in tables], load_target("rpi4"))


def test_what_several_recipes_have_in_common_is_done_once():
    """Two recipes that remove the same filters share the step; the formats of the unpruned model are there once."""
    int8 = {"quantize": {"modes": ["float32", "int8"]}}
    plan = plan_of(("one", FILTERS | int8), ("two", FILTERS | int8 | {"qat": {}}), ("three", int8))
    names = [step.name for step in plan.steps]
    assert len(names) == len(set(names))
    assert names.count("filters") == names.count("baseline.round8") == names.count("filters.round8") == 1
    assert [variant.name for variant in plan.variants] == [
        "float32", "int8", "filters-float32", "filters-int8", "filters-qat-int8",
    ]  # fmt: skip


def test_the_unpruned_model_is_quantized_as_each_recipe_says():
    """Recipes that differ in how they quantize each have their own file, also where they prune nothing."""
    by_range = {"quantize": {"modes": ["int8"]}, "calibration": {"range": "mse"}}
    nearest = {"quantize": {"modes": ["int8"], "rounding": "nearest", "equalize": True}}
    plan = plan_of(("a", {"quantize": {"modes": ["int8"]}}), ("b", by_range), ("c", nearest), ("d", by_range))
    assert [v.name for v in plan.variants] == ["float32", "int8", "b-int8", "c-int8", "d-int8"]
    steps = {step.name: step for step in plan.steps}
    assert steps["b-int8.convert"].config.plan.ranges == "mse"
    assert steps["c-int8.convert"].after == "c.equalize"


@pytest.mark.parametrize(
    ("mode", "ranges", "runs"),
    [("int8", "auto", True), ("int8", "mse", True), ("int8", "minmax", False), ("int16x8", "auto", False)],
)
def test_files_are_run_where_their_ranges_are_looked_for(mode, ranges, runs):
    """Ranges are narrower than what the samples reach in int8 files alone, and what they are needs a runtime."""
    plan = plan_of(("a", {"quantize": {"modes": [mode]}, "calibration": {"range": ranges}}))
    step = next(step for step in plan.steps if step.name == f"{mode}.convert")
    assert ("runtime" in step.stage.uses) is runs


def test_recipes_whose_steps_differ_are_told_apart_by_their_names():
    """The second recipe that removes filters, and removes others, has its name before its steps and variants."""
    plan = plan_of(("one", FILTERS), ("two", {"filters": {"rate": 0.25}}))
    assert [variant.name for variant in plan.variants] == ["float32", "filters-float32", "two-filters-float32"]
    last = {step.name: step for step in plan.steps}
    assert last["two-filters.remove1"].config.filters.rate == 0.25
    assert last["filters.remove1"].config.filters.rate == 0.5


def test_what_two_recipes_call_by_other_names_is_still_done_once():
    """Scores of channels do not depend on the budget, nor the removal on how the file is quantized afterwards."""
    plan = plan_of(
        ("one", FILTERS),
        ("two", {"filters": {"rate": 0.25}}),
        ("three", FILTERS | {"quantize": {"modes": ["int8"], "rounding": "nearest"}}),
        ("four", FILTERS | {"quantize": {"modes": ["int8"], "rounding": "nearest", "equalize": True}}),
    )
    names = [step.name for step in plan.steps]
    assert [name for name in names if "scores" in name] == ["filters.scores1"]
    assert [name for name in names if "remove" in name] == ["filters.remove1", "two-filters.remove1"]
    steps = {step.name: step for step in plan.steps}
    assert steps["two-filters.remove1"].after == "filters.scores1"
    assert steps["four-filters.equalize"].after == "filters"
    assert [(v.name, v.model) for v in plan.variants if "filters" in v.name] == [
        ("filters-float32", "filters"), ("two-filters-float32", "two-filters"), ("filters-int8", "filters"),
        ("four-filters-int8", "filters"),
    ]  # fmt: skip


def test_zeros_without_training_take_one_step():
    """With epochs, the zeros are trained around; without, nothing is trained."""
    zeros = {"weights": {"criterion": "reconstruct"}}
    assert [s.name for s in plan_of(("x", zeros | {"finetune": {"epochs": 0}})).steps][-5] == "reconstruct"
    names = [step.name for step in plan_of(("x", zeros)).steps]
    assert names.index("reconstruct.zero") + 1 == names.index("reconstruct")


@pytest.mark.parametrize("recipe", ["oneshot", "oneshot-half"])
def test_without_training_steps_are_not_trained_between(recipe, tmp_path):
    """A recipe that never trains does not begin to when its pruning is split into steps."""
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = ["{recipe}"]\n[filters]\nsteps = 3\n')
    plan = make_plan([load_recipe(path)], load_target("rpi4"))
    trained = [step for step in plan.steps if hasattr(step.config, "finetune") and step.config.finetune.epochs]
    steps = [step.name for step in plan.steps if ".scores" in step.name or ".remove" in step.name]
    assert steps == [f"filters.{what}{number}" for number in (1, 2, 3) for what in ("scores", "remove")]
    assert trained == []


def test_weights_on_grids_are_not_rounded_again():
    """The recipe micro puts weights on grids, and converts them from there; the plain int8 file is rounded as ever."""
    names = [step.name for step in make_plan([load_recipe("micro")], load_target("cortex-m4")).steps]
    assert names[names.index("coded") :][:2] == ["coded", "coded-float32.convert"]
    assert {"baseline.round8", "coded-int8.convert", "coded-int8.encode"} <= set(names)
    assert "coded.round8" not in names


def test_int8_files_are_encoded_for_microcontrollers():
    """The encoded file is measured, by its own interpreter; formats that are there to be compared are not encoded."""
    plan = make_plan([load_recipe("int8")], load_target("cortex-m4"))
    names = [step.name for step in plan.steps]
    assert {"int8.encode", "int8.evaluate_micro", "float32.evaluate"} <= set(names)
    assert "float32.encode" not in names
    assert names.index("int8.convert") < names.index("int8.encode") < names.index("int8.evaluate_micro")
