"""The table of rules: what each operator of a .tflite becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from edgeprune.models.from_tflite.call import Call

# A rule returns one result per output of its operator: see :meth:`edgeprune.models.from_tflite.call.Call.run`.
Rule = Callable[["Call"], Any]
AnyRule = TypeVar("AnyRule", bound=Rule)

RULES: dict[str, Rule] = {}


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
