"""Models within models, opened: one flat functional model out of nested ones, in Keras 2 and Keras 3.

:func:`walk` goes through the layer calls of a functional model and of the models in it, as if they were one. What
differs between the two Kerases is a :class:`Dialect`. Translating from Keras 3 is a walk, and so is flattening Keras 2.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from edgeprune.errors import ModelError
from edgeprune.models.formats import subclassed
from edgeprune.models.graph import flat, ordered_nodes
from edgeprune.models.rebuild import config_of, make_like
from edgeprune.models.verify import largest_difference, random_inputs, refuse_random, tolerance

if TYPE_CHECKING:
    import tf_keras


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
            argument = _argument(args, kwargs)
            inner = dialect.graph(layer, argument)
            nested = _Around((*around.path, layer.name), around.frozen or not layer.trainable, training)
            found = walk(dialect, inner, _in_order(dialect, inner, argument), handle, nested)
        else:
            found = handle(LayerCall(layer, args, kwargs, training, around.path, around.frozen, old_outputs))
        tensors |= zip(map(id, old_outputs), tf.nest.flatten(found), strict=True)
    return tf.nest.map_structure(standing_for, outputs)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a layer is called with: ``base(x)`` or ``base(inputs=x)``."""
    return args[0] if args else next(iter(kwargs.values()))


def repeats_a_model(dialect: Dialect, layer: Any) -> bool:
    """Whether a layer is a model in a wrapper that calls it for every step of a sequence."""
    return dialect.repeated(layer) is not None


def walk_steps(dialect: Dialect, call: LayerCall, handle: Handle, names: Names) -> Any:
    """Open a model that is called for every step of a sequence: all steps of all samples are samples to it.

    Args:
        call: of the wrapper, with tensors of tf_keras.

    Returns:
        What stands for the outputs of the call: reshapes around what ``handle`` made of the layers in the model.
    """
    import tensorflow as tf

    from edgeprune.models.keras3_emit import Emitter

    emitter = Emitter(names, names.of(call.operation))
    graph, around = _inside(dialect, call)
    sequences = flat(_argument(call.args, call.kwargs))
    samples = [emitter.op("reshape", x, [-1, *x.shape[2:]], suffix="samples") for x in sequences]
    outputs = walk(dialect, graph, _in_order(dialect, graph, samples), handle, around)
    length = sequences[0].shape[1]
    if length is None:
        length = emitter.getitem(emitter.op("shape", sequences[0], suffix="shape"), 1)
    return tf.nest.map_structure(
        lambda y: emitter.op("reshape", y, [-1, length, *y.shape[1:]], suffix="steps"), outputs
    )


def _inside(dialect: Dialect, call: LayerCall) -> tuple[Any, _Around]:
    """The graph of the model in a wrapper, and what is around it."""
    import tensorflow as tf

    sequences = flat(_argument(call.args, call.kwargs))
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


def _in_order(dialect: Dialect, graph: Any, argument: Any) -> list[Any]:
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
                inner, around = _inside(dialect, call)
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


class Keras2:
    """The dialect of tf_keras."""

    def __init__(self) -> None:
        self._traced: dict[int, Any] = {}

    def is_model(self, layer: Any) -> bool:
        import tf_keras

        return isinstance(layer, tf_keras.Model)

    def repeated(self, layer: Any) -> Any:
        import tf_keras

        wraps = isinstance(layer, tf_keras.layers.TimeDistributed) and self.is_model(layer.layer)
        return layer.layer if wraps else None

    def graph(self, model: Any, args: Any) -> Any:
        if getattr(model, "_is_graph_network", False):
            return model
        if id(model) not in self._traced:
            self._traced[id(model)] = trace(model, args)
        return self._traced[id(model)]

    def nodes(self, graph: Any) -> Iterable[tuple[Any, Any, Any, list[Any]]]:
        for node in ordered_nodes(graph):
            if not node.is_input:
                yield node.layer, node.call_args, node.call_kwargs, flat(node.outputs)

    def structure(self, graph: Any) -> tuple[list[Any], Any]:
        return graph.inputs, graph._nested_outputs

    def input_names(self, graph: Any) -> list[str]:
        return graph.input_names

    def training(self, layer: Any, given: Any) -> bool | None:
        return given


def trace(model: tf_keras.Model, specs: Any) -> tf_keras.Model:
    """A functional model of the same layer objects, out of a subclassed model that only calls layers and operations.

    Args:
        specs: shapes and types of the inputs, with the batch, in the structure that the model is called with.

    Raises:
        ModelError: its code does something else: weights outside layers, Python decisions about values.
    """
    import tensorflow as tf
    import tf_keras

    inputs = tf.nest.map_structure(lambda spec: tf_keras.Input(spec.shape[1:], dtype=spec.dtype), specs)
    # The user's code may fail in any way on tensors without values; whichever it is, the answer is the same.
    try:
        graph = tf_keras.Model(inputs, model.call(inputs), name=model.name)
    except Exception as error:
        raise subclassed(f"The model {model.name!r}", type(model).__name__) from error
    graph._trainable = model._trainable
    if {id(weight) for weight in model.weights} - {id(weight) for weight in graph.weights}:
        raise subclassed(f"The model {model.name!r}", type(model).__name__)
    return graph


def flatten(model: tf_keras.Model) -> tf_keras.Model:
    """The same functional model without models in it.

    Layers keep their names where those are unique (see :class:`Names`), their weights, and whether they are trained: a
    frozen base stays frozen. Layers of a model that was called with ``training=False`` are called with it.

    Args:
        model: a functional tf_keras model, trained or not, compiled or not.

    Returns:
        ``model`` itself if no layer of it is a model; else a new model that shares nothing with it.

    Raises:
        ModelError: a model in it is Python code that cannot be followed.
    """
    import tensorflow as tf
    import tf_keras

    dialect = Keras2()
    if not any(dialect.is_model(layer) or repeats_a_model(dialect, layer) for layer in model.layers):
        return model
    names = Names(dialect, model)
    made: dict[int, tuple[Any, Any, bool]] = {}

    def handle(call: LayerCall) -> Any:
        layer = call.operation
        if repeats_a_model(dialect, layer):
            return walk_steps(dialect, call, handle, names)
        if id(layer) not in made:
            new = make_like(layer, config_of(layer), names.of(layer))
            made[id(layer)] = (layer, new, call.frozen)
        return call_layer(made[id(layer)][1], call)

    new_inputs = [copy_input(tensor, name) for tensor, name in zip(model.inputs, model.input_names, strict=True)]
    outputs = walk(dialect, model, new_inputs, handle)
    inputs = tf.nest.pack_sequence_as(model._nested_inputs, new_inputs)
    opened = tf_keras.Model(inputs, outputs, name=model.name)
    opened.trainable = model.trainable
    for layer, new, frozen in made.values():
        new.set_weights(layer.get_weights())
        for old_part, new_part in zip(layer._flatten_layers(), new._flatten_layers(), strict=True):
            new_part._trainable = old_part._trainable and not frozen
    check_same(model, opened, "the models in it are opened")
    compile_like(opened, model)
    return opened


def call_layer(layer: Any, call: LayerCall) -> Any:
    """Call a tf_keras layer as ``call`` says."""
    if call.training is not None and layer._call_spec.expects_training_arg:
        return layer(*call.args, training=call.training, **call.kwargs)
    return layer(*call.args, **call.kwargs)


def copy_input(tensor: Any, name: str) -> Any:
    """A new input of the same shape and type."""
    import tf_keras

    return tf_keras.Input(batch_size=tensor.shape[0], shape=tensor.shape[1:], dtype=tensor.dtype, name=name)


def check_same(model: tf_keras.Model, new: tf_keras.Model, once: str) -> None:
    """Raise a ModelError unless both compute the same on random inputs; ``once`` says what was done to get ``new``."""
    import tensorflow as tf

    inputs = tf.nest.pack_sequence_as(new._nested_inputs, [tf.constant(x) for x in random_inputs(new)])
    expected, found = model(inputs, training=False), new(inputs, training=False)
    difference, allowed = largest_difference(tf.nest.flatten(expected), tf.nest.flatten(found)), tolerance(new.layers)
    if not difference <= allowed:
        refuse_random(new, inputs, ModelError)
        raise ModelError(
            f"The model {model.name!r} computes something else once {once}: its outputs differ by {difference:.1e} of "
            "the largest.",
            expected=f"at most {allowed:.0e}",
            fix="build it as a functional model, out of layers only; and please report it.",
        )


def compile_like(new: tf_keras.Model, model: tf_keras.Model) -> None:
    """Compile ``new`` with the loss and metrics of ``model``, and a fresh optimizer like its own, if it has them."""
    if not getattr(model, "_is_compiled", False):
        return
    arguments = model._get_compile_args(user_metrics=True)
    renamed = dict(zip(model.output_names, new.output_names, strict=True))
    for key in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        arguments[key] = rename_outputs(arguments.get(key), renamed)
    optimizer = arguments["optimizer"]
    arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())
    new.compile(**arguments)


def rename_outputs(by_output: Any, renamed: dict[str, str]) -> Any:
    """Losses or metrics keyed by output, under the new names of the outputs."""
    if isinstance(by_output, dict) and "class_name" not in by_output:
        return {renamed.get(name, name): value for name, value in by_output.items()}
    return by_output
