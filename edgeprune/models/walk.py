"""One walk over the layer calls of a functional model and of the models in it, as if they were one.

What differs between the two Kerases is a :class:`Dialect`. Flattening is a walk, and so are the translations from and
to Keras 3. Copying or changing a flat model of tf_keras is no walk but :mod:`edgeprune.models.rebuild`, which relies on
every layer and call having a counterpart of the same name; opened models and other Kerases have none.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from edgeprune.errors import ModelError
from edgeprune.models.graph import flat
from edgeprune.models.naming import scope_name
from edgeprune.models.types import AnyModel, Arguments, Operation, Structure, Value

# One call in a graph: (layer or operation, args, kwargs, output tensors).
GraphCall = tuple[Operation, tuple[Structure, ...], Mapping[str, Structure], list[Value]]


class Dialect(Protocol):
    """How one version of Keras keeps its graphs."""

    def is_model(self, layer: Operation) -> bool: ...

    def repeated(self, layer: Operation) -> AnyModel | None:
        """The model in a TimeDistributed wrapper; None for any other layer."""

    def graph(self, model: AnyModel, args: Structure) -> AnyModel:
        """The functional model behind a model that is called with ``args``."""

    def nodes(self, graph: AnyModel) -> Iterable[GraphCall]:
        """Every call but those of input layers, each after those that it takes its inputs from."""

    def structure(self, graph: AnyModel) -> tuple[list[Value], Structure]:
        """The flat inputs, and the outputs in their structure."""

    def input_names(self, graph: AnyModel) -> list[str]:
        """The names of the inputs, in the same order."""

    def training(self, layer: Operation, given: bool | None) -> bool | None:
        """The argument ``training`` of a call, as far as the author of the model gave one."""


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer or operation.

    Attributes:
        operation: the layer, or an operation of Keras 3.
        args, kwargs: of the call, with the tensors that the walk has made; ``training`` is not among them.
        training: what the call, or the call of a model around it, was given; ``None`` if nothing.
        path: names of the models around it.
        frozen: a model around it is not trainable.
        outputs: its output tensors in the graph that is walked.
    """

    operation: Operation
    args: tuple[Structure, ...]
    kwargs: Arguments
    training: bool | None
    path: tuple[str, ...]
    frozen: bool
    outputs: list[Value]


# A call -> what stands for its outputs.
Handle = Callable[[LayerCall], Structure]


@dataclasses.dataclass(frozen=True)
class _Around:
    """What the models around a call say about it; attributes as of :class:`LayerCall`."""

    path: tuple[str, ...] = ()
    frozen: bool = False
    training: bool | None = None


def walk(
    dialect: Dialect, graph: AnyModel, inputs: list[Value], handle: Handle, around: _Around | None = None
) -> Structure:
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

    def standing_for(value: Value) -> Value:
        return tensors.get(id(value), value)

    for layer, args, kwargs, old_outputs in dialect.nodes(graph):
        args, kwargs = tf.nest.map_structure(standing_for, (args, dict(kwargs)))
        given = dialect.training(layer, kwargs.pop("training", None))
        training = around.training if given is None else given
        if dialect.is_model(layer):
            argument = argument_of(args, kwargs)
            inner = dialect.graph(layer, argument)
            nested = _Around((*around.path, layer.name), around.frozen or not layer.trainable, training)
            result = walk(dialect, inner, in_order(dialect, inner, argument), handle, nested)
        else:
            result = handle(LayerCall(layer, args, kwargs, training, around.path, around.frozen, old_outputs))
        tensors |= zip(map(id, old_outputs), tf.nest.flatten(result), strict=True)
    return tf.nest.map_structure(standing_for, outputs)


def argument_of(args: tuple[Structure, ...], kwargs: Arguments) -> Structure:
    """What a layer is called with: ``base(x)`` or ``base(inputs=x)``."""
    return args[0] if args else next(iter(kwargs.values()))


def repeats_a_model(dialect: Dialect, layer: Operation) -> bool:
    """Whether a layer is a model in a wrapper that calls it for every step of a sequence."""
    return dialect.repeated(layer) is not None


def inside(dialect: Dialect, call: LayerCall) -> tuple[AnyModel, _Around]:
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


def in_order(dialect: Dialect, graph: AnyModel, argument: Structure) -> list[Value]:
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


class UniqueNames:
    """Hands out each name once.

    Args:
        taken: names that nothing gets.
    """

    def __init__(self, taken: Iterable[str] = ()):
        self._taken = dict.fromkeys(taken, 1)

    def unique(self, name: str) -> str:
        """``name``, or with the first free number behind it."""
        number = self._taken.get(name, 0)
        self._taken[name] = number + 1
        return self.unique(f"{name}_{number}") if number else name


class Names(UniqueNames):
    """Unique names for the layers of the flat model.

    A name stays where no other layer has it. Else the layers of the outermost model keep it, and layers of nested
    models get the names of the models around them as a prefix. What tf_keras takes in no name of a layer becomes "_".

    Attributes:
        changed: name in the model → name that tf_keras takes, of the layers that had to be renamed.
    """

    def __init__(self, dialect: Dialect, graph: AnyModel):
        own: dict[int, tuple[str, tuple[str, ...]]] = {}

        def note(call: LayerCall) -> Structure:
            own.setdefault(id(call.operation), (call.operation.name, call.path))
            if repeats_a_model(dialect, call.operation):
                inner, around = inside(dialect, call)
                walk(dialect, inner, dialect.structure(inner)[0], note, around)
            return call.outputs

        inputs = dialect.structure(graph)[0]
        walk(dialect, graph, inputs, note)
        self.changed = {name: scope_name(name) for name, _ in own.values() if name != scope_name(name)}
        own = {key: (self.changed.get(name, name), tuple(map(scope_name, path))) for key, (name, path) in own.items()}
        super().__init__(dialect.input_names(graph))
        counts = Counter([name for name, _ in own.values()] + list(self._taken))
        outermost_first = sorted(own.items(), key=lambda item: len(item[1][1]))
        self._of = {
            key: self.unique(name if counts[name] == 1 or not path else "_".join((*path, name)))
            for key, (name, path) in outermost_first
        }

    def of(self, operation: Operation) -> str:
        """The name of a layer or operation."""
        return self._of[id(operation)]
