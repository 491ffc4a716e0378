"""One walk over the layer calls of a functional model and of the models in it, as if they were one.

What differs between the two Kerases is a :class:`Dialect`. Flattening is a walk, and so are the translations from and
to Keras 3.
To copy or change a flat model of tf_keras is not one, but :mod:`edgeprune.models.rebuild`: there, every layer and call
has a counterpart of the same name, which opened models and other Kerases do not give.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from edgeprune.errors import ModelError
from edgeprune.models.graph import flat


class Dialect(Protocol):
    """How one version of Keras keeps its graphs."""

    def is_model(self, layer: Any) -> bool: ...

    def repeated(self, layer: Any) -> Any:
        """The model in a TimeDistributed wrapper; None for any other layer."""

    def graph(self, model: Any, args: Any) -> Any:
        """The functional model behind a model that is called with ``args``."""

    def nodes(self, graph: Any) -> Iterable[tuple[Any, Any, Any, list[Any]]]:
        """``(layer or operation, args, kwargs, outputs)`` of every call but the inputs', in order."""

    def structure(self, graph: Any) -> tuple[list[Any], Any]:
        """The flat inputs, and the outputs in their structure."""

    def input_names(self, graph: Any) -> list[str]:
        """The names of the inputs, in the same order."""

    def training(self, layer: Any, given: Any) -> bool | None:
        """The argument ``training`` of a call, as far as the author of the model gave one."""


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer or operation.

    Attributes:
        args, kwargs: of the call, with the tensors that the walk has made; ``training`` is not among them.
        training: what the call, or the call of a model around it, was given; ``None`` if nothing.
        path: names of the models around it.
        frozen: a model around it is not trainable.
        outputs: its output tensors in the graph that is walked.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    training: bool | None
    path: tuple[str, ...]
    frozen: bool
    outputs: list[Any]


Handle = Callable[[LayerCall], Any]


@dataclasses.dataclass(frozen=True)
class _Around:
    path: tuple[str, ...] = ()
    frozen: bool = False
    training: bool | None = None


def walk(dialect: Dialect, graph: Any, inputs: list[Any], handle: Handle, around: _Around | None = None) -> Any:
    """Call ``handle`` for every layer call, nested models opened, each after those that it takes its inputs from.

    Args:
        inputs: what stands for the inputs of ``graph``; its kind is up to ``handle``.
        handle: returns what stands for the outputs of the call.

    Returns:
        What stands for the outputs of ``graph``, in their structure.
    """
    import tensorflow as tf

    around = around or _Around()
    reference, outputs = dialect.structure(graph)
    tensors = dict(zip(map(id, reference), inputs, strict=True))

    def standing_for(value: Any) -> Any:
        return tensors.get(id(value), value)

    for layer, args, kwargs, old_outputs in dialect.nodes(graph):
        args, kwargs = tf.nest.map_structure(standing_for, (args, dict(kwargs)))
        given = dialect.training(layer, kwargs.pop("training", None))
        training = around.training if given is None else given
        if dialect.is_model(layer):
            argument = argument_of(args, kwargs)
            inner = dialect.graph(layer, argument)
            nested = _Around((*around.path, layer.name), around.frozen or not layer.trainable, training)
            found = walk(dialect, inner, in_order(dialect, inner, argument), handle, nested)
        else:
            found = handle(LayerCall(layer, args, kwargs, training, around.path, around.frozen, old_outputs))
        tensors |= zip(map(id, old_outputs), tf.nest.flatten(found), strict=True)
    return tf.nest.map_structure(standing_for, outputs)


def argument_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a layer is called with: ``base(x)`` or ``base(inputs=x)``."""
    return args[0] if args else next(iter(kwargs.values()))


def repeats_a_model(dialect: Dialect, layer: Any) -> bool:
    """Whether a layer is a model in a wrapper that calls it for every step of a sequence."""
    return dialect.repeated(layer) is not None


def inside(dialect: Dialect, call: LayerCall) -> tuple[Any, _Around]:
    """The graph of the model in a wrapper, and what is around it."""
    import tensorflow as tf

    sequences = flat(argument_of(call.args, call.kwargs))
    shapes = [tuple(x.shape)[2:] for x in sequences]
    if None in itertools.chain(*shapes):
        raise ModelError(
            f"The wrapper {call.operation.name!r} calls a model on steps whose size is not fixed: {shapes[0]}.",
            expected="steps of a fixed size, in a sequence of any length",
            fix="build the model with every dimension but the length given.",
        )
    specs = [tf.TensorSpec((None, *shape), x.dtype) for shape, x in zip(shapes, sequences, strict=True)]
    graph = dialect.graph(dialect.repeated(call.operation), specs[0] if len(specs) == 1 else specs)
    frozen = call.frozen or not call.operation.trainable
    return graph, _Around((*call.path, call.operation.name), frozen, call.training)


def in_order(dialect: Dialect, graph: Any, argument: Any) -> list[Any]:
    """The tensors that a nested model is called with, in the order of its inputs."""
    import tensorflow as tf

    flat = tf.nest.flatten(argument)
    expected = len(dialect.structure(graph)[0])
    if len(flat) != expected:
        raise ModelError(
            f"The nested model {graph.name!r} is called with {len(flat)} tensors.",
            expected=f"its {expected} inputs",
            fix="call it with exactly its inputs.",
        )
    return flat


class Names:
    """Unique names for the layers of the flat model.

    A name stays where no other layer has it. Else the layers of the outermost model keep it, and layers of nested
    models get the names of the models around them as a prefix.
    """

    def __init__(self, dialect: Dialect, graph: Any):
        found: dict[int, tuple[str, tuple[str, ...]]] = {}

        def note(call: LayerCall) -> Any:
            found.setdefault(id(call.operation), (call.operation.name, call.path))
            if repeats_a_model(dialect, call.operation):
                inner, around = inside(dialect, call)
                walk(dialect, inner, dialect.structure(inner)[0], note, around)
            return call.outputs

        inputs = dialect.structure(graph)[0]
        walk(dialect, graph, inputs, note)
        self._taken = dict.fromkeys(dialect.input_names(graph), 1)
        counts = Counter([name for name, _ in found.values()] + list(self._taken))
        outermost_first = sorted(found.items(), key=lambda item: len(item[1][1]))
        self._of = {
            key: self.unique(name if counts[name] == 1 or not path else "_".join((*path, name)))
            for key, (name, path) in outermost_first
        }

    def of(self, operation: Any) -> str:
        """The name of a layer or operation."""
        return self._of[id(operation)]

    def unique(self, name: str) -> str:
        """``name``, or with the first free number behind it."""
        number = self._taken.get(name, 0)
        self._taken[name] = number + 1
        return self.unique(f"{name}_{number}") if number else name
