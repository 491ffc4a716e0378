"""How units pass through each layer: one table, keyed by layer class name.

A rule takes a :class:`~edgeprune.prune.channels.call.Call`, binds the weights, and returns the axes of each output. A
new layer is a new entry, never an edit of the walk: see :func:`register`. What has no entry freezes the units that
reach it.

Keys are class names, looked up along the class's ancestors, because one name may stand for a class in several modules
(``tf_keras.layers``, ``tf_keras.applications``, tfmot).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes

Rule = Callable[[Call], "Axes | list[Axes]"]
AnyRule = TypeVar("AnyRule", bound=Rule)

RULES: dict[str, Rule] = {}


def register(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Enter a rule for layer classes of these names."""

    def enter(rule: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return enter


def apply_rule(call: Call) -> list[Axes]:
    """The axes of each output of a call."""
    found = (_shared if call.name in call.graph.sharing else find_rule(call.layer) or _unknown)(call)
    return found if isinstance(found, list) else [found]


def find_rule(layer: Any) -> Rule | None:
    """The rule of a layer's class or of its nearest ancestor that has one.

    A class from elsewhere may compute anything, whatever its name or its ancestors are: only a rule from elsewhere, for
    its very name, speaks for it.
    """
    own = RULES.get(type(layer).__name__)
    if not _is_known(type(layer)):
        return own if own is not None and not _is_known(own) else None
    return next((RULES[cls.__name__] for cls in type(layer).__mro__ if cls.__name__ in RULES), None)


def _is_known(thing: Any) -> bool:
    return thing.__module__.split(".")[0] in ("tf_keras", "edgeprune")


def _unknown(call: Call) -> list[Axes]:
    return opaque(call, f"no channel rule for {type(call.layer).__name__} (layer {call.name!r})")


def _shared(call: Call) -> list[Axes]:
    return opaque(call, f"{call.name!r} shares weights with {call.graph.sharing[call.name]!r}")


def opaque(call: Call, reason: str) -> list[Axes]:
    """Nothing that goes into the call can be removed, and nothing that comes out of it."""
    for axes in call.inputs:
        call.freeze(axes, reason)
    return [(None,) * len(shape) for shape in call.output_shapes]
