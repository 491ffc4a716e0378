"""Models within models, opened: one flat functional model out of nested ones."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edgeprune.models.compiled import compile_like
from edgeprune.models.formats import subclassed
from edgeprune.models.graph import flat, ordered_nodes, symbol_of
from edgeprune.models.keras3_einsum import einsum
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.types import AnyModel, Layer, Operation, Structure, Tensor, Value
from edgeprune.models.verify import check_same
from edgeprune.models.walk import (
    Dialect,
    GraphCall,
    Handle,
    LayerCall,
    Names,
    argument_of,
    in_order,
    inside,
    repeats_a_model,
    walk,
)
from edgeprune.models.wrappers import (
    fill_plain,
    has_rounding,
    is_rounder,
    is_wrapped,
    plain_layer,
    plain_name,
    rounded_outputs,
    rounds_outputs,
    wrapper_kinds,
)

if TYPE_CHECKING:
    import tf_keras

_log = logging.getLogger(__name__)


def walk_steps(dialect: Dialect, call: LayerCall, handle: Handle, names: Names) -> Structure:
    """Open a model that is called for every step of a sequence: every step of every sample becomes a sample of it.

    Args:
        call: of the wrapper, with tensors of tf_keras.

    Returns:
        What stands for the outputs of the call: reshapes around what ``handle`` made of the layers in the model.
    """
    import tensorflow as tf

    emitter = Emitter(names, names.of(call.operation))
    graph, around = inside(dialect, call)
    sequences = flat(argument_of(call.args, call.kwargs))
    samples = [emitter.op("reshape", x, [-1, *x.shape[2:]], suffix="samples") for x in sequences]
    outputs = walk(dialect, graph, in_order(dialect, graph, samples), handle, around)
    length = sequences[0].shape[1]
    if length is None:
        length = emitter.getitem(emitter.op("shape", sequences[0], suffix="shape"), 1)
    return tf.nest.map_structure(
        lambda y: emitter.op("reshape", y, [-1, length, *y.shape[1:]], suffix="steps"), outputs
    )


class Keras2:
    """The dialect of tf_keras."""

    def __init__(self) -> None:
        self._traced: dict[int, tf_keras.Model] = {}

    def is_model(self, layer: Operation) -> bool:
        import tf_keras

        return isinstance(layer, tf_keras.Model)

    def repeated(self, layer: Operation) -> AnyModel | None:
        import tf_keras

        wraps = isinstance(layer, tf_keras.layers.TimeDistributed) and self.is_model(layer.layer)
        return layer.layer if wraps else None

    def graph(self, model: AnyModel, args: Structure) -> AnyModel:
        if getattr(model, "_is_graph_network", False):
            return model
        if id(model) not in self._traced:
            self._traced[id(model)] = trace(model, args)
        return self._traced[id(model)]

    def nodes(self, graph: AnyModel) -> Iterable[GraphCall]:
        for node in ordered_nodes(graph):
            if not node.is_input:
                yield node.layer, node.call_args, node.call_kwargs, flat(node.outputs)

    def structure(self, graph: AnyModel) -> tuple[list[Value], Structure]:
        return graph.inputs, graph._nested_outputs

    def input_names(self, graph: AnyModel) -> list[str]:
        return graph.input_names

    def training(self, layer: Operation, given: bool | None) -> bool | None:
        return given


def trace(model: tf_keras.Model, specs: Structure) -> tf_keras.Model:
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
    """The same functional model without models in it, without wrappers of training, and with what files keep.

    Layers keep their names where those are unique (see :class:`Names`), their weights, and whether they are trained: a
    frozen base stays frozen. Layers of a model that was called with ``training=False`` are called with it. A wrapped
    layer gets the name that it had before (:mod:`edgeprune.models.wrappers`).

    Args:
        model: a functional tf_keras model, trained or not, compiled or not.

    Returns:
        ``model`` itself if no layer of it is a model, wrapped or an einsum; else a new model that shares nothing with
        it.

    Raises:
        ModelError: a model in it is Python code that cannot be followed.
    """
    dialect, wrapped = Keras2(), wrapper_kinds(model)

    def stays(layer: Layer) -> bool:
        return not (dialect.is_model(layer) or repeats_a_model(dialect, layer) or symbol_of(layer) == "einsum")

    if not wrapped and all(map(stays, model.layers)):
        return model
    opened = _opened(model, rounds=False)
    if has_rounding(model):
        check_same(model, _opened(model, rounds=True), "the layers are taken out of their wrappers")
    else:
        check_same(model, opened, "the models in it are opened" + (", wrappers too" if wrapped else ""))
    compile_like(opened, model)
    if wrapped:
        _log.warning("The model holds wrappers of %s: stripped%s.", " and ".join(wrapped), _left_out(wrapped))
    return opened


def with_rounding(model: tf_keras.Model, output_names: Sequence[str]) -> tf_keras.Model | None:
    """A model that tfmot trained for int8, flat, with its rounding made by operations; None for any other.

    Args:
        output_names: those of the model without rounding, which it gets, too.
    """
    import tensorflow as tf
    import tf_keras
    from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

    if not has_rounding(model):
        return None
    rounded = _opened(model, rounds=True)
    outputs = [
        tensor if own == name else TFOpLambda(tf.identity, name=name)(tensor)
        for tensor, own, name in zip(rounded.outputs, rounded.output_names, output_names, strict=True)
    ]
    return tf_keras.Model(rounded.inputs, outputs, name=model.name)


def _left_out(wrapped: list[str]) -> str:
    kept = [_KEPT[kind] for kind in wrapped if kind in _KEPT]
    return f", {' and '.join(kept)}" if kept else ""


_KEPT = {
    "pruning": "its weights are as the masks leave them",
    "clustering": "its weights are as they are shared",
    "quantization": "its layers are float again, without the rounding that they were trained with",
    "spectral normalization": "its weights are as they were last normalized, and further training does not do it again",
}


def _opened(model: tf_keras.Model, *, rounds: bool) -> tf_keras.Model:
    """The flat model without wrappers, not compiled; with ``rounds``, what tfmot rounds is rounded by operations."""
    import tensorflow as tf
    import tf_keras

    dialect = Keras2()
    names = Names(dialect, model)
    made: dict[int, tuple[Operation, Layer, bool]] = {}

    def handle(call: LayerCall) -> Structure:
        layer = call.operation
        if repeats_a_model(dialect, layer):
            return walk_steps(dialect, call, handle, names)
        if symbol_of(layer) == "einsum":  # tf_keras writes such a call into files without its tensors
            equation, *operands = call.args
            return einsum(Emitter(names, names.of(layer)), layer, equation, operands)
        if is_rounder(layer):
            return rounded(call, argument_of(call.args, call.kwargs))
        if id(layer) not in made:
            renamed = not rounds and is_wrapped(layer) and plain_name(layer) != layer.name
            name = names.unique(plain_name(layer)) if renamed else names.of(layer)
            made[id(layer)] = (layer, plain_layer(layer, name, rounds=rounds), call.frozen)
        return rounded(call, call_layer(made[id(layer)][1], call))

    def rounded(call: LayerCall, outputs: Structure) -> Structure:
        if not rounds or not rounds_outputs(call.operation):
            return outputs
        emitter = Emitter(names, names.of(call.operation))
        operation = functools.partial(emitter.op, suffix="range")
        return rounded_outputs(
            *(call.operation, outputs, operation),
            lambda x, function: emitter.layer("Activation", x, suffix=function, activation=function),
        )

    new_inputs = [copy_input(tensor, name) for tensor, name in zip(model.inputs, model.input_names, strict=True)]
    outputs = walk(dialect, model, new_inputs, handle)
    inputs = tf.nest.pack_sequence_as(model._nested_inputs, new_inputs)
    opened = tf_keras.Model(inputs, outputs, name=model.name)
    opened.trainable = model.trainable
    for layer, new, frozen in made.values():
        fill_plain(layer, new, rounds=rounds)
        if frozen:
            new.trainable = False
    return opened


def call_layer(layer: Layer, call: LayerCall) -> Structure:
    """Call a tf_keras layer as ``call`` says."""
    if call.training is not None and layer._call_spec.expects_training_arg:
        return layer(*call.args, training=call.training, **call.kwargs)
    return layer(*call.args, **call.kwargs)


def copy_input(tensor: Tensor, name: str) -> Tensor:
    """A new input of the same shape and type."""
    import tf_keras

    return tf_keras.Input(batch_size=tensor.shape[0], shape=tensor.shape[1:], dtype=tensor.dtype, name=name)
