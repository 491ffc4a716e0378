"""Which layers a recipe's patterns mean: one reading of ``include``, ``exclude``, ``protect`` and rates per layer.

A pattern is a name, or a shell pattern over names (``*``, ``?``, ``[abc]``). It must match the whole name, and capital
letters count, on every system. What has several names, such as a group of layers, matches by any of them. ``exclude``
wins over ``include``; of patterns with a value each, the first that matches counts. Nothing else depends on the order.
"""

from __future__ import annotations

import difflib
import fnmatch
import glob
from collections.abc import Iterable, Mapping
from typing import TypeVar

from edgeprune.errors import RecipeError

T = TypeVar("T")


def matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches one of the names of something."""
    names = tuple(names)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def matching(names: Iterable[str], include: Iterable[str], exclude: Iterable[str] = ()) -> list[str]:
    """The names that are included and not excluded, in the order in which they are given."""
    include, exclude = tuple(include), tuple(exclude)
    return [name for name in names if matches([name], include) and not matches([name], exclude)]


def value_of(names: Iterable[str], table: Mapping[str, T]) -> T | None:
    """The value of the first pattern of a table that matches one of the names of something; None: none does."""
    names = tuple(names)
    return next((value for pattern, value in table.items() if matches(names, [pattern])), None)


def exactly(name: str) -> str:
    """The pattern that matches this name and no other."""
    return glob.escape(name)


def check_patterns(section: str, given: Mapping[str, Iterable[str]], names: Iterable[str], kind: str = "layer") -> None:
    """Refuse a pattern that matches nothing: most likely a name was mistyped.

    Args:
        section: of the recipe, for the message.
        given: key in the section → its patterns.
        names: all that a pattern may match.
        kind: what they are names of, for the message.

    Raises:
        RecipeError: with the names that come nearest.
    """
    known = list(dict.fromkeys(names))
    for key, patterns in given.items():
        for pattern in patterns:
            if matching(known, [pattern]):
                continue
            near = difflib.get_close_matches(pattern, known, 6) or known[:6]
            raise RecipeError(
                f"The pattern {pattern!r} in [{section}] {key} matches no {kind}.",
                expected=f"a name or a shell pattern over names, as {', '.join(near)}.",
                fix="see `edgeprune inspect MODEL` for the layers and groups of a model.",
            )
