"""Recipes that come with edgeprune, as TOML, and how recipes are read: merged and validated."""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pydantic

from edgeprune.errors import RecipeError, did_you_mean
from edgeprune.recipe.config import Recipe
from edgeprune.recipe.mistakes import explain
from edgeprune.recipe.space import parse_space

# One recipe of a build, or several: names, files or objects.
Recipes: TypeAlias = str | Path | Recipe | Sequence[str | Path | Recipe] | None

DEFAULT_RECIPES = ("magnitude-int8", "filters30-int8")
WORKING_RECIPE = Path("edgeprune.toml")


def builtin_names() -> list[str]:
    """Names of the recipes that come with edgeprune."""
    folder = importlib.resources.files("edgeprune.recipe").joinpath("builtin")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def resolve_recipe(recipe: str | Path | Recipe | None) -> Recipe:
    """The recipe itself, by name or file, or the first of those that apply where none is named."""
    return resolve_recipes(recipe)[0]


def resolve_recipes(recipes: Recipes) -> tuple[Recipe, ...]:
    """The recipes of one build, each once: given themselves, by name or file; or those that apply where none is named.

    Raises:
        RecipeError: one cannot be read; two have one name, or say different things of data, task or regressions.
    """
    if recipes is None:
        recipes = [WORKING_RECIPE] if WORKING_RECIPE.is_file() else DEFAULT_RECIPES
    elif isinstance(recipes, str | Path | Recipe):
        recipes = [recipes]
    found: dict[str, Recipe] = {}
    for given in recipes:
        recipe = given if isinstance(given, Recipe) else load_recipe(given)
        if found.setdefault(recipe.name, recipe) != recipe:
            raise RecipeError(
                f"Two recipes of one build have the name {recipe.name!r}, and differ.",
                expected="a name of its own for each: it stands in the names of files.",
                fix='write name = "…" at the top of one of them.',
            )
    if not found:
        raise RecipeError("No recipe was given: the list of recipes is empty.", expected="at least one.")
    first, *others = found.values()
    if others and (name := next((name for name in found if set(name) & set("/\\")), None)):
        raise RecipeError(
            f"The recipe {name!r} is one of several in a build, and its name is no name of a file.",
            expected="a name without slashes: each recipe is written out under its own.",
        )
    for other in others:
        for section in ("data", "task", "detection", "regression"):
            if getattr(other, section) != getattr(first, section):
                raise RecipeError(
                    f"The recipes {first.name!r} and {other.name!r} say different things in [{section}].",
                    expected="one reading of the data for one build, and one measure of its figures.",
                    fix=f"give both the same [{section}], or build them one after the other.",
                )
    return tuple(found.values())


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a built-in recipe by name, or a TOML file.

    Raises:
        RecipeError: no such recipe or file, not TOML, unknown keys or values.
    """
    return parse_recipe(_read(str(name_or_path)), source=str(name_or_path))


def parse_recipe(table: Mapping[str, Any], source: str) -> Recipe:
    """Validate a recipe given as nested tables; ``source`` names it in errors."""
    table = {"name": Path(source).stem, **_resolve_extends(table)}
    try:
        recipe = Recipe.model_validate(table)
        parse_space(recipe.search)
    except pydantic.ValidationError as error:
        raise RecipeError(
            explain(error, source), fix="`edgeprune init` writes a recipe with every key explained."
        ) from None
    except ValueError as error:
        raise RecipeError(f"The recipe {source} is not valid.\n  search.{error}.") from None
    return recipe


def _read(name_or_path: str) -> dict[str, Any]:
    names = builtin_names()
    if name_or_path in names:
        text = (
            importlib.resources.files("edgeprune.recipe").joinpath("builtin", f"{name_or_path}.toml").read_text("utf-8")
        )
    elif Path(name_or_path).is_file():
        try:
            text = Path(name_or_path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"The recipe {name_or_path} cannot be read: {error}.") from None
    else:
        raise RecipeError(
            f"There is no recipe {name_or_path!r}{did_you_mean(name_or_path, names) or '.'}",
            expected=f"a TOML file, or one of: {', '.join(names)}.",
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"The recipe {name_or_path} is not valid TOML: {error}.") from None


def _resolve_extends(table: Mapping[str, Any], within: tuple[str, ...] = ()) -> dict[str, Any]:
    """Merge the recipes named by ``extends``, later ones and the table itself winning key by key.

    Args:
        within: the names by which those were read that extend this one.
    """
    given = table.get("extends", [])
    bases = [given] if isinstance(given, str) else given
    if not isinstance(bases, list | tuple) or not all(isinstance(base, str) for base in bases):
        raise RecipeError(
            f"extends = {given!r} names no recipes.", expected="the name or file of one, or a list of them."
        )
    merged: dict[str, Any] = {}
    for base in bases:
        chain = (*within, base)
        if base in within:
            raise RecipeError(
                f"Recipes extend each other in a circle: {' extends '.join(chain)}.",
                expected="a recipe that extends others, which do not extend it.",
            )
        own = {key: value for key, value in _read(base).items() if key not in ("name", "description")}
        merged = _merge(merged, _resolve_extends(own, chain))
    return _merge(merged, {key: value for key, value in table.items() if key != "extends"})


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged
