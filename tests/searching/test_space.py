"""What may vary: ``[search]`` of a recipe, and the built-in space."""

import optuna
import pytest

from edgeprune.errors import RecipeError
from edgeprune.recipe.load import load_recipe, parse_recipe
from edgeprune.recipe.space import parse_space
from edgeprune.searching.space import BUILT_IN, Circumstances, base_recipe, space_of
from edgeprune.target import load_target


def circumstances(target="rpi4", **changes):
    given = {"blocks": True, "filters": True, "weight_only": True, "size": True, "download": False, "epochs": 8}
    return Circumstances(load_target(target), **{**given, "least_latency": 0.4, **changes})


def fixed(space, params):
    return space.recipe(optuna.trial.FixedTrial(params), "x")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"filter": {}}, ["filter: unknown key", "did you mean 'filters'"]),
        ({"filters": {"max_latencyy": {"low": 1, "high": 2}}}, ["filters.max_latencyy", "did you mean 'max_latency'"]),
        ({"filters": {"max_latency": {"lo": 1, "high": 2}}}, ["filters.max_latency.lo", "did you mean 'low'"]),
        ({"filters": {"criterion": {"choices": ["taylr"]}}}, ["'taylr'", "did you mean 'taylor'"]),
        ({"filters": {"criterion": {"low": "a%", "high": "b%"}}}, ["filters.criterion"]),
        ({"quantize": {"modes": {"choices": ["int8", "int9"]}}}, ["'int9'", "did you mean 'int8'"]),
        ({"finetune": {"epochs": {"low": -1, "high": 2}}}, ["finetune.epochs = -1", "greater than or equal to 0"]),
        ({"finetune": {"epochs": {"low": 4, "high": 2}}}, ["low must be below high"]),
        ({"finetune": {"epochs": {"low": 1}}}, ["needs both low and high"]),
        ({"finetune": {"epochs": {"choices": [1], "step": 1}}}, ["go with low and high"]),
        ({"finetune": {"epochs": {"low": 0, "high": 2, "log": True}}}, ["log needs low above 0"]),
        ({"finetune": {"epochs": {"low": 1, "high": 4, "step": 0.5}}}, ["finetune.epochs.step = 0.5", "whole numbers"]),
        ({"filters": {"rate": {"low": 0.1, "high": 0.5, "step": 0.7}}}, ["step must be at most"]),
        ({"filters": {"blocks": {"low": False, "high": True}}}, ["filters.blocks: takes no numbers"]),
        ({"filters": {}}, ["filters is empty", "choices"]),
        ({"filters": {"choices": [{"rate": 5}]}}, ["filters.rate = 5", "less than 1"]),
        ({"finetune": {"epochs": 3}}, ["finetune.epochs = 3", "choices"]),
        ({"finetune": {"epochs": {"deeper": {"choices": [1]}}}}, ["finetune.epochs.deeper"]),
        ({"distill": {"choices": [3]}}, ["distill = 3", "a section is varied by false, true and tables"]),
        ({"distill": {"choices": [{"wait": 0.5}]}}, ["distill.wait", "did you mean 'weight'"]),
        ({"data": {"scale": {"choices": [1.0]}}}, ["data: stays as it is"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_nearest_right_one(table, words):
    """Nothing that no recipe could take is tried; the error says where it stands."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"search": table}, "mine.toml")
    assert "search." in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_every_value_that_is_suggested_makes_a_recipe():
    """A space of all kinds of values: 60 random trials are valid recipes, within what the space says."""
    recipe = parse_recipe(
        {
            "extends": "filters-int8",
            "search": {
                "filters": {"max_macs": {"low": "30%", "high": "90%", "step": "5%"}},
                "distill": {"choices": [False, True, {"weight": 0.7}]},
                "quantize": {"modes": {"choices": ["int8", ["float16"]]}},
                "finetune": {
                    "epochs": {"choices": [0, 2]},
                    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                },
                "reconstruct": {"samples": {"low": 100, "high": 200, "step": 50}},
            },
        },
        "mine.toml",
    )
    space = space_of(recipe, circumstances())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made = [space.recipe(study.ask(), "x") for _ in range(60)]
    assert {one.filters.max_macs for one in made} <= {share / 100 for share in range(30, 95, 5)}
    assert {one.quantize.modes for one in made} == {("int8",), ("float16",)}
    assert {one.finetune.epochs for one in made} == {0, 2}
    assert {one.reconstruct.samples for one in made} == {100, 150, 200}
    assert {one.distill and one.distill.weight for one in made} == {None, 0.5, 0.7}
    assert all(1e-4 <= one.finetune.learning_rate <= 1e-2 for one in made)
    assert not any(one.search for one in made)


def test_keys_that_change_nothing_are_not_asked_for():
    """Without training, neither distillation nor the learning rate is part of a trial; without filters, no budget."""
    space = space_of(None, circumstances())
    usual = {"quantize.modes": "int8", "filters": False}
    made = fixed(space, {"finetune.epochs": 0, **usual})
    assert made.filters is None
    assert made.finetune.epochs == 0
    with pytest.raises(ValueError, match="distill"):
        fixed(space, {"finetune.epochs": 8, **usual})
    assert fixed(space, {"finetune.epochs": 8, **usual, "distill": False}).distill is None


def test_the_built_in_space_suits_target_and_objectives():
    """Accelerators take int8 only; zeros are tried where downloads count, grids and zeros on microcontrollers; blocks
    where there are some; latency where it is known and filters matter to it, else MACs; formats of weights alone where
    their package is there."""
    keys = space_of(None, circumstances()).varies
    assert keys["quantize.modes"].choices == ("int8", "float16", "int8-weights")
    assert keys["filters.max_latency"].ends == ("41%", "95%")
    assert {"filters.blocks", "filters.criterion", "distill"} <= keys.keys()
    assert not {"weights", "filters.max_macs"} & keys.keys()
    assert "quantize.modes" not in space_of(None, circumstances("coral-dev")).varies
    assert "weights" in space_of(None, circumstances(download=True)).varies
    assert {"coded", "weights"} <= space_of(None, circumstances("arduino-nano33")).varies.keys()
    assert "filters.blocks" not in space_of(None, circumstances(blocks=False)).varies
    assert "filters.max_params" in keys
    assert "filters.max_params" not in space_of(None, circumstances(size=False)).varies
    assert "filters.max_macs" in space_of(None, circumstances(least_latency=None)).varies
    assert "filters.max_macs" in space_of(None, circumstances(least_latency=0.97)).varies
    narrow = space_of(None, circumstances(least_latency=0.853)).varies["filters.max_latency"]
    assert (narrow.low, narrow.step) == ("86%", "1%")
    assert {key for key, _, _ in BUILT_IN} >= keys.keys()


def test_what_a_repair_matches_is_asked_only_where_something_is_repaired():
    """Trials of the model as it is would else be told apart by what changes nothing."""
    space = space_of(None, circumstances())
    plain = {"finetune.epochs": 0, "quantize.modes": "int8", "filters": False}
    assert fixed(space, plain).reconstruct.match == "answers"
    pruned = {**space.first[1], "reconstruct.match": "answers"}
    assert [fixed(space, values).reconstruct.match for values in (space.first[1], pruned)] == ["layers", "answers"]


def test_the_first_trials_of_the_built_in_space_are_what_people_build_by_hand():
    """The unpruned model and budgets all over the range without training, then those in its middle with all of it.

    Where size counts, parameters are limited, too, at first.
    """
    space = space_of(None, circumstances())
    made = [fixed(space, values) for values in (*space.first, *space.then)]
    assert len(space.first) == 7
    assert [one.finetune.epochs for one in made] == [0] * 5 + [8] * 4
    budgets = [None, "95%", "77%", "59%", "41%", "77%", "59%", "77%", "59%"]
    assert [one.filters and one.filters.max_latency for one in made] == budgets
    parameters = [None, 0.99, 0.75, 0.5, 0.35, 0.75, 0.5, 0.99, 0.99]
    assert [one.filters and one.filters.max_params for one in made] == parameters
    assert [bool(one.distill) for one in made[5:]] == [True] * 4
    assert [one.reconstruct.match for one in made] == ["answers", *["layers"] * 4, *["answers"] * 4]
    by_latency = space_of(None, circumstances(size=False))
    assert [values["filters.max_latency"] for values in by_latency.first[1:]] == [95, 77, 59, 41, 77, 59]
    untrained = space_of(None, circumstances(epochs=0))
    assert (len(untrained.first), untrained.then) == (5, ())
    assert {one.filters.criterion for one in made if one.filters} == {"reconstruct"}


def test_the_built_in_space_trains_and_converts_as_the_recipe_for_filters():
    """A pick is not behind what `edgeprune build --recipe filters-int8` makes of the same budget."""
    usual = load_recipe("filters-int8")
    space = space_of(None, circumstances(epochs=usual.finetune.epochs))
    made = fixed(space, space.first[-1])
    assert made.filters.max_latency
    for section in ("filters", "quantize"):
        made, usual = (one.model_copy(update={section: None}) for one in (made, usual))
    names = ("name", "description")
    assert made.model_dump(exclude=names) == usual.model_dump(exclude=names)


def test_a_recipe_without_a_space_is_what_the_built_in_one_varies():
    """What it says stays, but for its budget, which is what is searched."""
    recipe = parse_recipe({"extends": "filters-int8", "filters": {"min_channels": 4}}, "mine.toml")
    space = space_of(recipe, circumstances())
    made = fixed(space, {**space.first[1]})
    assert made.filters.min_channels == 4
    assert made.filters.max_macs is None
    assert made.filters.max_latency == "95%"


def test_nothing_to_vary_is_an_error():
    """A model without filters, and a recipe without training, on a target with one format."""
    given = circumstances("coral-dev", filters=False, epochs=0)
    with pytest.raises(RecipeError, match="Nothing of the recipe can be varied"):
        space_of(base_recipe(), given)
    assert parse_space({}) == {}


QAT, SPARSIFY = {"qat": {"epochs": 3}}, {"sparsify": {"epochs": 3, "bn_l1": 0.1}}
RATES = {"low": 1e-4, "high": 1e-3}


@pytest.mark.parametrize(
    ("sections", "searched"),
    [
        # Whichever stands first in the file.
        ({}, {"reconstruct": {"match": {"choices": ["layers", "answers"]}}, "filters": {"rate": {"choices": [0.5]}}}),
        ({}, {"filters": {"rate": {"choices": [0.5]}}, "reconstruct": {"match": {"choices": ["layers", "answers"]}}}),
        # Sections that train by epochs of their own.
        (QAT, {"qat": {"choices": [True]}}),
        (QAT, {"qat": {"epochs": {"choices": [1, 2]}}}),
        (QAT, {"finetune": {"learning_rate": RATES}}),
        (SPARSIFY, {"finetune": {"learning_rate": RATES}}),
        ({}, {"distill": {"choices": [True, False]}, "sparsify": {"choices": [SPARSIFY["sparsify"]]}}),
        ({}, {"distill": {"choices": [True, False]}, "qat": {"choices": [QAT["qat"]]}}),
    ],
)
def test_every_key_that_changes_the_recipe_is_asked_for(sections, searched):
    """What a key depends on is decided before it, in whichever order they stand; not by [finetune] epochs alone."""
    recipe = parse_recipe({"extends": "int8", "finetune": {"epochs": 0}, **sections, "search": searched}, "mine")
    space, trial = space_of(recipe, circumstances()), optuna.create_study().ask()
    space.recipe(trial, "x")
    assert set(trial.params) == set(space.varies)


@pytest.mark.parametrize(
    ("searched", "words"),
    [
        (
            {"reconstruct": {"match": {"choices": ["layers", "answers"]}}},
            r"reconstruct.match.*\[filters\] or \[weights\]",
        ),
        ({"distill": {"choices": [True, False]}}, r"distill.*\[finetune\] epochs is 0"),
        ({"finetune": {"epochs": {"choices": [0]}, "learning_rate": RATES}}, "finetune.learning_rate.*changes nothing"),
    ],
)
def test_a_key_that_changes_nothing_in_any_trial_is_refused(searched, words):
    """It would never be asked for, and a search that varies something else in its place is not what was wanted."""
    recipe = parse_recipe({"extends": "int8", "finetune": {"epochs": 0}, "search": searched}, "mine")
    with pytest.raises(RecipeError, match=words):
        space_of(recipe, circumstances())
