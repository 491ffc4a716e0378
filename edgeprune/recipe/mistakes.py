"""What is wrong with a recipe, in words of recipes: what validation found, told by keys and not by types of Python."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic

from edgeprune.errors import did_you_mean
from edgeprune.recipe.config import Config, Recipe, sections_in

# What people may look for → how it is called here.
RENAMED = {"magnitude": "weights"}
# What pydantic says in its own terms → in those of a recipe.
_WORDS = {
    "string_pattern_mismatch": 'such words have another form; a share is "5%"',
    "string_type": "expected words in quotes",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "tuple_type": "expected a list",
}


def explain(error: pydantic.ValidationError, source: str) -> str:
    """One line for each value of a recipe that is at fault, below a line that names the recipe.

    Args:
        error: of :class:`Recipe`.
        source: name or file of the recipe.
    """
    lines = [f"The recipe {source} is not valid."]
    errors = error.errors()
    reasons: dict[str, list[str]] = {}  # of a value that may be one of several things, and is none of them
    for item in errors:
        path = _place(item["loc"])
        where = ".".join(path)
        reason = _WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
        if item["type"] == "too_short" and any(_is_below(other["loc"], item["loc"]) for other in errors):
            continue  # items that are at fault themselves are not counted
        if item["type"] == "extra_forbidden":
            keys = _keys_at(path[:-1])
            hint = f"; did you mean {RENAMED[where]!r}?" if where in RENAMED else did_you_mean(path[-1], keys) or "."
            lines.append(f"  {where}: unknown key{hint} Known keys: {', '.join(keys)}.")
        elif item["type"] == "literal_error":
            known = [word.strip("'") for word in item["ctx"]["expected"].replace(" or ", ", ").split(", ")]
            lines.append(
                f"  {where} = {item['input']!r}: expected one of {', '.join(known)}"
                + (did_you_mean(str(item["input"]), known) or ".")
            )
        elif path and isinstance(item["input"], Mapping):  # about several keys of a section
            lines.append(f"  {where}: {reason}.")
        elif path:
            reasons.setdefault(f"  {where} = {item['input']!r}", []).append(reason)
        else:  # about several sections
            lines.append(f"  {reason}.")
    lines += [f"{where}: {'; or: '.join(dict.fromkeys(several))}." for where, several in reasons.items()]
    return "\n".join(lines)


def _place(location: tuple[int | str, ...]) -> list[str]:
    """Where in a recipe pydantic found an error: without the names that it gives to the kinds that a value may have."""
    found: list[str] = []
    annotation: Any = Recipe
    for part in location:
        kinds = _kinds(annotation)
        if len(kinds) > 1 and isinstance(part, str):
            annotation = Any
            continue
        if str(part).startswith("constrained-"):  # of kinds within kinds
            continue
        kind = kinds[0] if len(kinds) == 1 else Any
        found.append(str(part))
        if isinstance(kind, type) and issubclass(kind, Config):
            field = kind.model_fields.get(str(part))
            annotation = field.annotation if field else Any
        else:  # of a list or a table, the type of what is in it
            annotation = next((inner for inner in reversed(get_args(kind)) if inner is not Ellipsis), Any)
    return found


def _kinds(annotation: Any) -> list[Any]:
    """The types that a value may be of, apart from none."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return [annotation]
    return [kind for inner in get_args(annotation) if inner is not type(None) for kind in _kinds(inner)]


def _is_below(place: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    """Whether a place in a recipe is within another one."""
    return len(place) > len(other) and place[: len(other)] == other


def _keys_at(path: list[str]) -> list[str]:
    config: Any = Recipe
    for part in path:
        if part in config.model_fields:  # else the user's own key of a table, such as the name of an output
            config = next(sections_in(config.model_fields[part].annotation))
    return list(config.model_fields)
