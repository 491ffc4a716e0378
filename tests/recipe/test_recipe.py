"""Recipes: TOML in, merged with what they extend, and validated."""

import importlib.resources
import json
import re
import tomllib
from pathlib import Path

import pytest

from edgeprune.errors import RecipeError
from edgeprune.hardware.xnnpack.sparse_inference import MIN_ZEROS
from edgeprune.recipe.config import SPARSE_INFERENCE_ABOVE, Recipe, SoundConfig, TableConfig
from edgeprune.recipe.load import builtin_names, load_recipe, parse_recipe, resolve_recipes


@pytest.mark.parametrize("name", builtin_names())
def test_every_builtin_recipe_loads_and_survives_being_written_out(name, tmp_path):
    """The resolved recipe, written out and read again, is the same recipe."""
    recipe = load_recipe(name)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(path) == recipe
    assert recipe.description


def test_extends_merges_key_by_key():
    """A recipe may build on others; its own keys win, and keys that it does not name stay."""
    recipe = parse_recipe({"extends": ["magnitude", "int8"], "weights": {"sparsity": 0.8}}, "mine.toml")
    assert recipe.weights.sparsity == 0.8
    assert recipe.quantize.modes == ("float32", "int8")
    assert recipe.finetune == load_recipe("magnitude").finetune
    assert recipe.name == "mine"


def test_limits_of_files_may_be_tables_by_target(tmp_path):
    """They survive being written out, and stand beside limits of the build's own target; steps go with both."""
    table = {"max_latency": {"rpi4": "50%", "boards/my board.toml": 2.5}, "max_size": 2e5, "steps": 3}
    recipe = parse_recipe({"filters": table}, "mine.toml")
    assert recipe.filters.of_file == {"latency": table["max_latency"], "size": {None: 2e5}}
    path = tmp_path / "mine.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(path) == recipe


def test_recipes_ask_for_as_many_zeros_as_sparse_kernels_need():
    """The recipe's bound for sparse inference is XNNPACK's, which recipes stand too far left to import."""
    assert SPARSE_INFERENCE_ABOVE == MIN_ZEROS


@pytest.mark.parametrize("given", [[3], 3, {"name": "int8"}])
def test_what_is_extended_has_names(given):
    """Anything else than names of recipes is one message."""
    with pytest.raises(RecipeError, match="names no recipes"):
        parse_recipe({"extends": given}, "wrong.toml")


def test_a_file_that_is_not_toml_and_a_name_that_is_no_recipe(tmp_path):
    """Both say what is wrong; the second names the nearest recipe."""
    path = tmp_path / "broken.toml"
    path.write_text("[magnitude\n")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(path)
    with pytest.raises(RecipeError, match="did you mean 'magnitude-int8'"):
        load_recipe("magnitude-int9")


# Keys of which a section needs one of several, and one without a useful default: the template shows an example.
EXAMPLES = {("filters", "rate"), ("filters", "max_params"), ("filters", "layer_rates"), ("layers", "max_macs")}
EXAMPLES |= {("sparsify", "bn_l1"), ("task", "outputs"), ("data", "sound"), ("data", "group"), ("data", "boxes")}
EXAMPLES |= {("detection", key) for key in ("head", "outputs", "anchors", "activation", "background")}
EXAMPLES |= {("filters", "max_latency"), ("filters", "max_memory"), ("filters", "max_size"), ("coded", "max_size")}


def _template():
    return importlib.resources.files("edgeprune.recipe").joinpath("template.toml.txt").read_text()


def test_the_template_is_the_first_of_what_a_build_does_without_a_recipe():
    """`edgeprune init` starts from pruning by magnitude; a build without a recipe removes filters beside it."""
    assert [recipe.name for recipe in resolve_recipes(None)] == ["magnitude-int8", "filters30-int8"]
    named = {"name": "x", "description": ""}
    written = parse_recipe(tomllib.loads(_template()), "edgeprune.toml").model_copy(update=named)
    assert written == load_recipe("magnitude-int8").model_copy(update=named)


def test_recipes_of_one_build_are_each_there_once_and_read_the_data_alike(tmp_path):
    """A name stands for one recipe, and figures of one build are about the same data."""
    assert [recipe.name for recipe in resolve_recipes(["int8", "filters", "int8"])] == ["int8", "filters"]
    same = Recipe(name="int8")
    with pytest.raises(RecipeError, match="have the name 'int8'"):
        resolve_recipes(["int8", same])
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nscale = 2.0\n")
    with pytest.raises(RecipeError, match=r"'int8' and 'mine' say different things in \[data\]"):
        resolve_recipes(["int8", path])
    with pytest.raises(RecipeError, match="no name of a file"):
        resolve_recipes(["int8", Recipe(name="a/b")])
    with pytest.raises(RecipeError, match="empty"):
        resolve_recipes([])


def test_the_template_names_every_key_with_its_value():
    """Uncommented it is valid, and says of every key that has a default what it is: the recipe's, or the section's."""
    document = tomllib.loads(re.sub(r"^# (?=\[[\w.]+\]|[a-z_0-9]+ = )", "", _template(), flags=re.MULTILINE))
    del document["rates"]
    assert set(document["data"]["table"]) == set(TableConfig.model_fields)
    del document["data"]["table"]["image"]  # in place of columns of numbers
    for sections in (("coded",), ("cluster", "qat")):  # in place of each other
        given = {name: section for name, section in document.items() if name not in sections}
        assert isinstance(parse_recipe(given, "edgeprune.toml"), Recipe)
    default = load_recipe("magnitude-int8").model_dump(mode="json")
    for section, field in Recipe.model_fields.items():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            for key, description in getattr(kind, "model_fields", {}).items():
                shown = document[section].get(key, ...)
                assert shown is not ... or (section, key) in EXAMPLES, f"[{section}] {key} is missing in the template"
                value = default[section][key] if default[section] else description.default
                if value is not None and (section, key) not in EXAMPLES:
                    assert shown == json.loads(json.dumps(value)), f"[{section}] {key}"
    shown, fields = document["data"]["sound"], SoundConfig.model_fields
    assert set(shown) == set(fields)
    assert {key for key in fields if fields[key].default not in (None, shown[key])} == set()


def test_recipes_that_extend_each_other_in_a_circle_are_refused(tmp_path, monkeypatch):
    """The message names the circle; one that two others extend is no circle."""
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text('extends = ["b.toml"]')
    Path("b.toml").write_text('extends = ["a.toml"]')
    with pytest.raises(RecipeError, match=r"b\.toml extends a\.toml extends b\.toml"):
        load_recipe("a.toml")
    Path("a.toml").write_text('extends = ["int8"]')
    Path("both.toml").write_text('extends = ["a.toml", "b.toml"]')
    assert load_recipe("both.toml").quantize == load_recipe("int8").quantize
