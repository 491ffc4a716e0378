"""Build a functional model anew, one layer call at a time, where a call may become several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tf_keras

# A call of the old model: the layer's name, and the how-manieth call of it.
CallKey = tuple[str, int]
# (layer, key, args, kwargs holding the new tensors) -> the new outputs, in the old structure.
Emit = Callable[[Any, CallKey, Any, Any], Any]


def walk(model: tf_keras.Model, emit: Emit, emit_input: Callable[[Any, Any], Any] | None = None) -> tf_keras.Model:
    """A new functional model with the inputs and outputs of ``model``.

    Args:
        model: flat functional tf_keras model.
        emit: makes the outputs of one call; it may call as many layers as it likes.
        emit_input: ``(input layer, new input tensor) -> tensor`` that the consumers see; None: the input itself.
    """
    import tensorflow as tf
    import tf_keras

    from edgeprune.models.graph import ordered_nodes

    tensors: dict[int, Any] = {}
    inputs: dict[int, Any] = {}
    calls: dict[str, int] = {}

    def new(value: Any) -> Any:
        return tensors.get(id(value), value)

    for node in ordered_nodes(model):
        if node.is_input:
            old = tf.nest.flatten(node.outputs)[0]
            fresh = tf_keras.Input(old.shape[1:], dtype=old.dtype, name=node.layer.name)
            inputs[id(old)] = fresh
            tensors[id(old)] = emit_input(node.layer, fresh) if emit_input else fresh
            continue
        number = calls.get(node.layer.name, 0)
        calls[node.layer.name] = number + 1
        args, kwargs = tf.nest.map_structure(new, (node.call_args, node.call_kwargs))
        outputs = emit(node.layer, (node.layer.name, number), args, kwargs)
        for old, made in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
            tensors[id(old)] = made
    ends = tf.nest.map_structure(lambda value: inputs[id(value)], model._nested_inputs)
    return tf_keras.Model(ends, tf.nest.map_structure(new, model._nested_outputs), name=model.name)
