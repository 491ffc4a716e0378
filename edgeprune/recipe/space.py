"""``[search]`` of a recipe: which of its keys a search may vary, and within what.

The section mirrors the recipe. In place of a value stands what it may be: ``{ choices = [...] }`` or
``{ low = ..., high = ... }``; a whole section can be varied, too: ``distill = { choices = [false, true] }``, where
``false`` leaves it out and ``true`` takes it as the recipe has it, or with its defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

import pydantic

from edgeprune.errors import did_you_mean
from edgeprune.recipe.config import Config, Recipe, sections_in

# What a search compares trials by must be the same in all of them.
FIXED = ("name", "description", "data", "task", "detection", "rates", "search")

Value = bool | int | float | str


class Varies(Config):
    """What a key may be: one of ``choices``, or a number from ``low`` to ``high``.

    Attributes:
        choices: values of the key; of a section: ``false``, ``true``, or tables.
        low, high: both included; shares may be written "30%".
        step: between the values that are tried; None: any. Trials with equal values share their work.
        log: tried evenly over the magnitudes.
    """

    choices: Annotated[tuple[Any, ...], pydantic.Field(min_length=1)] | None = None
    low: float | str | None = None
    high: float | str | None = None
    step: float | str | None = None
    log: bool = False

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Varies:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("needs choices, or low and high")
        if self.choices is not None:
            if self.step is not None or self.log:
                raise ValueError("step and log go with low and high")
            return self
        given = [value for value in (self.low, self.high, self.step) if value is not None]
        if self.low is None or self.high is None or len({isinstance(value, str) for value in given}) > 1:
            raise ValueError('needs both low and high, all numbers or all shares such as "30%"')
        if not all(value > 0 or index < 2 for index, value in enumerate(map(number, given))):
            raise ValueError("step must be above 0")
        if number(self.low) >= number(self.high):
            raise ValueError("low must be below high")
        if self.step is not None and number(self.step) > number(self.high) - number(self.low):
            raise ValueError("step must be at most what lies between low and high")
        if self.log and (self.step is not None or number(self.low) <= 0):
            raise ValueError("log needs low above 0, and no step")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that decide whether the key can take all of them."""
        return self.choices if self.choices is not None else (self.low, self.high)


def number(value: float | str) -> float:
    """A number, or the percents of a share.

    Raises:
        ValueError: neither.
    """
    return float(value.strip().removesuffix("%")) if isinstance(value, str) else float(value)


def parse_space(table: Mapping[str, Any]) -> dict[str, Varies]:
    """The keys that may vary, dotted (``filters.max_latency``), in the order of the table.

    Raises:
        ValueError: a key that no recipe has, or a value that the key cannot take; the words name the nearest right one.
    """
    found = dict(_leaves(table, ()))
    for key, varies in found.items():
        for value in varies.ends:
            _check(key, value)
        if varies.choices is None and not _is_section(key):
            _check_range(key, varies)
    return found


def _leaves(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Varies]]:
    for key, value in table.items():
        here = (*path, *key.split("."))
        where = ".".join(here)
        _annotation(here)
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} = {value!r}: expected {{ choices = [...] }} or {{ low = ..., high = ... }}")
        if set(value) & set(Varies.model_fields):
            try:
                yield where, Varies.model_validate(value)
            except pydantic.ValidationError as error:
                item = error.errors()[0]
                inner = ".".join(map(str, item["loc"]))
                known = _nearest(inner, list(Varies.model_fields)) if item["type"] == "extra_forbidden" else ""
                message = item["msg"].removeprefix("Value error, ")
                raise ValueError(f"{where}{'.' + inner if inner else ''}: {message}{known}") from None
        elif not value:
            raise ValueError(
                f"{where} is empty: expected {{ choices = [...] }}, {{ low = ..., high = ... }}, or keys that have them"
            )
        else:
            yield from _leaves(value, here)


def _nearest(word: str, known: list[str]) -> str:
    """The rest of a sentence about an unknown word."""
    return did_you_mean(word, known) or f"; known: {', '.join(known)}"


def _annotation(path: tuple[str, ...]) -> Any:
    """The field of a recipe at a path."""
    config: type[Config] = Recipe
    for depth, part in enumerate(path, 1):
        known = [name for name in config.model_fields if config is not Recipe or name not in FIXED]
        if part not in known:
            where = ".".join(path[:depth])
            if config is Recipe and part in FIXED:
                raise ValueError(f"{where}: stays as it is in a search, or its trials could not be compared")
            raise ValueError(f"{where}: unknown key{_nearest(part, known)}")
        field = config.model_fields[part]
        section = next(sections_in(field.annotation), None)
        if depth == len(path):
            return field
        if section is None:
            raise ValueError(f"{'.'.join(path[: depth + 1])}: unknown key; {'.'.join(path[:depth])} has none below it")
        config = section
    raise ValueError("an empty key")


def _is_section(key: str) -> bool:
    return next(sections_in(_annotation(tuple(key.split("."))).annotation), None) is not None


def _check(key: str, value: Any) -> None:
    """Make sure that a value fits a key, as far as that can be said of one key alone."""
    if _is_section(key):
        if not isinstance(value, bool | Mapping):
            raise ValueError(f"{key} = {value!r}: a section is varied by false, true and tables")
        for inner, content in value.items() if isinstance(value, Mapping) else ():
            _check(f"{key}.{inner}", content)
        return
    field = _annotation(tuple(key.split(".")))
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        pydantic.TypeAdapter(kind).validate_python(as_field(key, value))
    except pydantic.ValidationError as error:
        item = error.errors()[0]
        known = [word.strip("'") for word in item.get("ctx", {}).get("expected", "").replace(" or ", ", ").split(", ")]
        hint = _nearest(str(value), known) if item["type"] == "literal_error" else ""
        raise ValueError(f"{key} = {value!r}: {item['msg'].removeprefix('Value error, ')}{hint}") from None


def _check_range(key: str, varies: Varies) -> None:
    # A boolean takes 0 and 1, the two ends of a range, and nothing between them.
    if not {int, float} & {*_plain(_annotation(tuple(key.split("."))).annotation)}:
        raise ValueError(f"{key}: takes no numbers; its values go into choices")
    if takes_integers(key) and varies.step is not None and number(varies.step) % 1:
        raise ValueError(f"{key}.step = {varies.step!r}: the key takes whole numbers, so step is one, too")
    for value in varies.ends:
        if isinstance(value, str) and not value.strip().endswith("%"):
            raise ValueError(f"{key} = {value!r}: low and high are numbers or shares; words go into choices")


def as_field(key: str, value: Any) -> Any:
    """A value as the key takes it: a name where a list of names belongs is a list of one."""
    field = _annotation(tuple(key.split(".")))
    is_list = any(
        getattr(kind, "__origin__", None) is tuple for kind in (field.annotation, *get_args(field.annotation))
    )
    return (value,) if is_list and isinstance(value, str) else value


def takes_integers(key: str) -> bool:
    """Whether a key takes whole numbers only."""
    field = _annotation(tuple(key.split(".")))
    kinds = set(_plain(field.annotation))
    return int in kinds and float not in kinds


def _plain(annotation: Any) -> Iterator[Any]:
    """A type, and those that it is made of."""
    yield annotation
    for inner in get_args(annotation):
        yield from _plain(inner)
