"""How units pass through each layer: a table, keyed by layer class name, and another one for rules of the user's.

A rule takes a :class:`~edgeprune.prune.channels.call.Call`, binds the weights, and returns the axes of each output. A
new layer is a new entry, never an edit of the walk: see :func:`register`, and :func:`register_rule` for layers of one's
own. What has no entry freezes the units that reach it.

Keys are class names, looked up along the class's ancestors, because one name may stand for a class in several modules
(``tf_keras.layers``, ``tf_keras.applications``, tfmot).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgeprune.errors import UsageError
from edgeprune.models.types import Layer
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes

ChannelRule = Callable[[Call], "Axes | list[Axes]"]
AnyChannelRule = TypeVar("AnyChannelRule", bound=ChannelRule)

RULES: dict[str, ChannelRule] = {}  # of layers of tf_keras and edgeprune
OWN_RULES: dict[str, ChannelRule] = {}  # of layers from elsewhere


def register(*names: str) -> Callable[[AnyChannelRule], AnyChannelRule]:
    """Enter a rule for layer classes of tf_keras and edgeprune of these names."""

    def enter(rule: AnyChannelRule) -> AnyChannelRule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return enter


def register_rule(*names: str) -> Callable[[AnyChannelRule], AnyChannelRule]:
    """Declare how channels pass through layers of your own; a decorator. ``docs/pruning.md`` has an example.

    Without a rule, a layer that edgeprune does not know freezes the channels that reach it: it might compute anything.
    A rule is called once for each call of such a layer while a model is analysed. It takes a
    :class:`~edgeprune.prune.channels.call.Call`, says there which axes of the weights follow which channels, and
    returns the axes of the output: a tuple with one entry for each axis but the batch, an int64 array [size of the
    axis] of channel numbers, or None where nothing can be removed; a list of such tuples for several outputs.

    The rule holds in this process, from now on, for classes of exactly these names that neither tf_keras nor edgeprune
    defines, wherever they are defined, and for classes of tf_keras that edgeprune has no rule for. Subclasses have
    other names, and need a rule of their own. A name that is registered again gets the later rule, as when a notebook's
    cell runs twice.

    Args:
        names: of the layer classes, as ``type(layer).__name__`` gives them.

    Returns:
        The decorator, which returns the rule as it is.

    Raises:
        UsageError: no name, a name that is not a string (the decorator was used without parentheses, say), or a rule
            that cannot be called.
    """
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError(
            f"register_rule was given {', '.join(map(repr, names)) or 'nothing'}.",
            expected='the names of layer classes: @edgeprune.register_rule("MyLayer").',
        )

    def enter(rule: AnyChannelRule) -> AnyChannelRule:
        if not callable(rule):
            raise UsageError(f"The rule for {', '.join(names)} is {rule!r}.", expected="a function of a Call.")
        OWN_RULES.update(dict.fromkeys(names, rule))
        return rule

    return enter


def apply_rule(call: Call) -> list[Axes]:
    """The axes of each output of a call."""
    axes = (_shared if call.name in call.graph.sharing else find_rule(call.layer) or _unknown)(call)
    return axes if isinstance(axes, list) else [axes]


def find_rule(layer: Layer) -> ChannelRule | None:
    """The rule of a layer's class or of its nearest ancestor that has one.

    A class from elsewhere may compute anything, whatever its name or its ancestors are: only a rule of the user's, for
    its very name, speaks for it. Such a rule never takes the place of one that is here.
    """
    own = OWN_RULES.get(type(layer).__name__)
    if not _is_known(type(layer)):
        return own
    return next((RULES[cls.__name__] for cls in type(layer).__mro__ if cls.__name__ in RULES), own)


def _is_known(cls: type) -> bool:
    return cls.__module__.split(".")[0] in ("tf_keras", "edgeprune")


def _unknown(call: Call) -> list[Axes]:
    return opaque(call, f"no channel rule for {type(call.layer).__name__} (layer {call.name!r})")


def _shared(call: Call) -> list[Axes]:
    return opaque(call, f"{call.name!r} shares weights with {call.graph.sharing[call.name]!r}")


def opaque(call: Call, reason: str) -> list[Axes]:
    """Nothing that goes into the call can be removed, and nothing that comes out of it."""
    for axes in call.inputs:
        call.freeze(axes, reason)
    return [(None,) * len(shape) for shape in call.output_shapes]
