"""A wrong key or value of a recipe is a line that names it as it is written, and the nearest right one."""

import re

import pytest

from edgeprune.errors import RecipeError
from edgeprune.recipe.load import parse_recipe


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"weight": {}}, ["weight", "did you mean 'weights'"]),
        ({"magnitude": {}}, ["magnitude", "did you mean 'weights'"]),
        ({"lottery": {}}, ["[lottery] needs [weights]"]),
        ({"filters": {"max_latency": {"rpi4": "much"}}}, ["filters.max_latency", "rpi4", "'much'", "valid number"]),
        ({"filters": {"max_latency": {}}}, ["filters.max_latency", "at least 1 item"]),
        ({"lottery": {"rewind": 20}}, ["rewind (20) must be less than epochs (20)"]),
        ({"lottery": {}, "weights": {"sparse_inference": True, "sparsity": 0.8}}, ["one of them"]),
        ({"weights": {}, "finetune": {"epochs": 0}}, ["[finetune] epochs must be at least 1"]),
        ({"weights": {"granularity": "4:2"}}, ["block:RxC"]),
        ({"weights": {"granularity": "1:4", "sparsity": 0.5}}, ["makes the sparsity 0.75"]),
        ({"weights": {"granularity": "2:4", "scope": "global"}}, ["holds in every group"]),
        ({"weights": {"schedule": "one_shot", "regrow": "random"}}, ["several updates"]),
        ({"weights": {"sparsty": 0.5}}, ["weights.sparsty", "did you mean 'sparsity'"]),
        ({"quantize": {"modes": ["int9"]}}, ["'int9'", "did you mean 'int8'"]),
        ({"weights": {"sparsity": 1.5}}, ["weights.sparsity = 1.5", "less than 1"]),
        ({"weights": {"begin": 0.9}}, ["  weights: begin (0.9) must be less than end"]),
        ({"weights": 5}, ["weights = 5"]),
        ({"rates": [0.1]}, ["rates = [0.1]: needs at least two rates"]),
        ({"finetune": {"epochs": "many"}}, ["finetune.epochs = 'many'"]),
        ({"cluster": {"n_clusters": 1}}, ["cluster.n_clusters = 1"]),
        ({"qat": {}, "quantize": {"modes": ["float32"]}}, ["[qat] trains for int8 files", "modes must have 'int8'"]),
        ({"extends": ["mixed", "qat"], "quantize": {"modes": ["int8", "mixed"]}}, ["take 'mixed' out of"]),
        ({"extends": ["sparse", "qat"]}, ["[weights] sparse_inference", "[qat]", "pqat"]),
        ({"extends": ["cluster-int8"], "quantize": {"equalize": True}}, ["equalize", "[cluster]"]),
        ({"extends": ["qat"], "quantize": {"equalize": True}}, ["equalize", "[qat]"]),
        ({"extends": ["micro"], "quantize": {"equalize": True}}, ["equalize", "[coded]"]),
        ({"extends": ["micro"], "qat": {}}, ["[coded] and [qat]", "one of them"]),
        ({"coded": {}, "quantize": {"modes": ["float32"]}}, ["[coded] is for int8 files"]),
        ({"coded": {"max_drop": 1, "max_size": "40%"}}, ["max_drop", "max_size", "one of them"]),
        ({"weights": {"criterion": "reconstruct", "regrow": "random"}}, ["reconstruct", "regrow"]),
        ({"extends": ["lottery"], "weights": {"criterion": "reconstruct"}}, ["[lottery]", "reconstruct"]),
    ],
)
def test_wrong_keys_and_values_are_named_with_the_nearest_right_one(table, words):
    """Unknown keys, unknown choices and values out of range are errors with exit code 2."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(table, "wrong.toml")
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_an_item_at_fault_is_one_error():
    """A list whose only item is refused is not called too short as well."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"quantize": {"modes": ["int9"]}}, "wrong.toml")
    assert str(caught.value).count("quantize.modes") == 1


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"regression": {"max_drop": "nan%"}}, "  regression.max_drop = 'nan%': "),
        ({"task": {"outputs": {"a": {"metric": 5}}}}, "  task.outputs.a.metric = 5: expected words in quotes; or: "),
        ({"reconstruct": 5}, "  reconstruct = 5: expected a table."),
        ({"filters": {"max_latency": 0}}, "  filters.max_latency = 0: Input should be greater than 0; or: "),
        ({"filters": {"max_size": {"rpi4": "1e3%"}}}, "  filters.max_size.rpi4 = '1e3%': "),
        ({"data": {"scale": float("nan")}}, "  data.scale = nan: Input should be a finite number."),
        ({"distill": {"temperature": float("inf")}}, "  distill.temperature = inf: Input should be a finite number."),
    ],
)
def test_a_value_of_no_kind_that_fits_is_one_line_in_words_of_recipes(table, line):
    """Whatever kinds a value may have, the line has the key as it is written, and no name of a type of Python."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(table, "wrong.toml")
    (found,) = [one for one in str(caught.value).splitlines() if one.startswith("  ")]
    assert found.startswith(line)
    assert not re.search(r"constrained|dict|tuple|pattern|Config", found)
