"""The table of rules: what each operator of a .tflite becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from edgeprune.tflite.graph import Operator

if TYPE_CHECKING:
    from edgeprune.models.from_tflite.call import Call

# A rule returns one result per output of its operator: see :meth:`edgeprune.models.from_tflite.call.Call.run`.
Rule = Callable[["Call"], Any]
AnyRule = TypeVar("AnyRule", bound=Rule)

RULES: dict[str, Rule] = {}


# What would be needed where an operator cannot have a rule: (the beginning of its name, the need).
_NEEDED = (
    (
        ("WHERE", "UNIQUE", "NON_MAX_SUPPRESSION"),
        "a file that ends before it, as its result has another size each time",
    ),
    (("RANDOM_", "MULTINOMIAL"), "a file without random numbers, which cannot be compared"),
    (("HASHTABLE", "LSH_", "SKIP_GRAM"), "a file that begins behind it, where words are numbers already"),
    (("Flex",), "a file of TensorFlow Lite's own operators: TensorFlow computes this one (select TF ops)"),
)


def needed_for(operator: Operator) -> str:
    """What would be needed for an operator without a rule."""
    found = next((need for starts, need in _NEEDED if operator.name.startswith(starts)), None)
    return found or f"a {'runtime that has, and a ' if operator.custom else ''}rule for {operator.name}"


class NoRule(Exception):
    """An operator that cannot be imported as it is.

    Args:
        why: the rest of a sentence that begins with the operator.
        needed: what would be needed.
    """

    def __init__(self, why: str, needed: str):
        super().__init__(why)
        self.why, self.needed = why, needed


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Enter a rule for operators of these names, as :class:`~edgeprune.tflite.graph.Operator` has them."""

    def enter(function: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter
