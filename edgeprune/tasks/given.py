"""What is known of one output before its task is decided, and how what a recipe names is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgeprune.code import load_function
from edgeprune.data.targets import TargetFacts
from edgeprune.errors import RecipeError
from edgeprune.models.compiled import CompiledOutput, Loaded, Unknown, What, restore
from edgeprune.models.types import ConfigValue, CustomObjects
from edgeprune.recipe.config import OutputTaskConfig, Term
from edgeprune.tasks.infer import OutputFacts

if TYPE_CHECKING:
    from edgeprune.data import Data


# What a table of the recipe says of a metric itself, beside the arguments of its class.
TERM_KEYS = ("class", "weighted", "higher_is_better")


@dataclasses.dataclass(frozen=True)
class Given:
    """What is known of one output.

    Attributes:
        index: its position.
        name: the user's name for it.
        many: whether the model has several.
        config: what the recipe says of it.
        facts: its shape and end.
        target: its labels; None: there are none.
        data: the source.
        objects: the user's own functions and classes by name.
        compiled: what it was compiled with; empty where the model was not.
        was_compiled: whether the model was.
        warnings: filled while its task is decided.
    """

    index: int
    name: str
    many: bool
    config: OutputTaskConfig
    facts: OutputFacts
    target: TargetFacts | None
    data: Data
    objects: CustomObjects
    compiled: CompiledOutput
    was_compiled: bool
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def section(self) -> str:
        """The recipe's section about it."""
        return f"task.outputs.{self.name}" if self.many else "task"

    @property
    def of(self) -> str:
        """Words that say which output is meant, where there are several."""
        return f" of output {self.name!r}" if self.many else ""

    def full(self, name: str) -> str:
        """The name of a metric in reports."""
        return f"{self.name}.{name}" if self.many else name

    def restore(self, term: Term, what: What) -> Loaded:
        """Load the loss or metric that the recipe names.

        Raises:
            RecipeError: there is no such one.
        """
        word = {"losses": "loss", "metrics": "metric"}[what]
        named = term["class"] if isinstance(term, Mapping) else term
        given = {k: v for k, v in term.items() if k not in TERM_KEYS} if isinstance(term, Mapping) else {}
        objects = dict(self.objects)

        def by_name(place: str) -> str:
            """The name of what the user's code has there, which is restored like what a model was compiled with."""
            found = load_function(place, RecipeError)
            objects[found.__name__] = found
            return found.__name__

        name = by_name(named) if ":" in named else named
        if ":" in str(given.get("fn")):  # of a wrapper of Keras around a function
            given["fn"] = by_name(given["fn"])
        config: ConfigValue = {"class_name": name, "config": given}
        if isinstance(term, str) or (not name[:1].isupper() and not set(given) - {"name"}):
            config = name
        try:
            return restore(config, what, objects)
        except Unknown as error:
            raise RecipeError(
                f"There is no {word} {named!r} in Keras, or not with these arguments: {error.reason}.",
                fix=f"check [{self.section}] {word}, or name a function: file.py:function.",
            ) from None


def shape_words(shape: Sequence[int | None]) -> str:
    """A shape without the batch, for people."""
    return " x ".join("any" if one is None else str(one) for one in shape) or "one number"


def range_words(facts: TargetFacts | None) -> str:
    """The range of labels, for people."""
    return "" if facts is None else f"{facts.low:.4g} to {facts.high:.4g}"
