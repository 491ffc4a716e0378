"""Build a functional model anew from its layer calls, with some layers, arguments or tensors changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeprune.errors import ModelError
from edgeprune.models.graph import flat, ordered_nodes

MakeLayer = Callable[[Any], Any]
ChangeArguments = Callable[[Any, int, Any, Any], tuple[Any, Any]]


def rebuild(
    model: Any,
    make_layer: MakeLayer,
    change_arguments: ChangeArguments | None = None,
    name: str | None = None,
    replaced: Mapping[int, Any] | None = None,
) -> Any:
    """A new functional model with the same inputs, calls, outputs and names; the weights are not set.

    Args:
        model: flat functional tf_keras model.
        make_layer: ``layer -> new layer``, called once per layer, shared ones included.
        change_arguments: ``(layer, number of its call, args, kwargs) -> (args, kwargs)``, the arguments holding the
            new tensors.
        replaced: id of a tensor between layers of ``model`` → the earlier tensor that takes its place. Calls that
            nothing asks for any more, and layers without calls, are left out.

    Returns:
        A ``tf_keras.Model`` that shares nothing with ``model``.

    Raises:
        ModelError: the model has losses or metrics as layers, or a layer cannot be made anew.
    """
    import tensorflow as tf
    import tf_keras

    made: dict[int, Any] = {}
    calls: dict[int, int] = {}
    tensors: dict[int, Any] = {}

    def new_tensor(value: Any) -> Any:
        return tensors.get(id(_final(value, replaced or {})), value)

    refuse_idle(model)
    needed = needed_calls(model, replaced or {})
    for node in ordered_nodes(model):
        if id(node) not in needed:
            continue
        layer = node.layer
        if id(layer) not in made:
            made[id(layer)] = make_layer(layer)
        number = calls.get(id(layer), 0)
        calls[id(layer)] = number + 1
        if node.is_input:
            outputs = made[id(layer)].output
        else:
            args, kwargs = tf.nest.map_structure(new_tensor, (node.call_args, node.call_kwargs))
            if change_arguments:
                args, kwargs = change_arguments(layer, number, args, kwargs)
            outputs = made[id(layer)](*args, **kwargs)
        for old, new in zip(flat(node.outputs), flat(outputs), strict=True):
            tensors[id(old)] = new
    inputs = tf.nest.map_structure(new_tensor, model._nested_inputs)
    outputs = tf.nest.map_structure(new_tensor, model._nested_outputs)
    rebuilt = tf_keras.Model(inputs, outputs, name=name or model.name)
    rebuilt.trainable = model.trainable
    # Setting the model's flag sets it for all layers: theirs are their own.
    for layer in model.layers:
        if id(layer) in made:
            copy_trainable(layer, made[id(layer)])
    return rebuilt


def refuse_idle(model: Any) -> None:
    """Refuse layers that the outputs do not depend on: ``add_loss`` and ``add_metric`` of a functional model."""
    needed = needed_calls(model, {})
    idle = [node.layer.name for node in ordered_nodes(model) if id(node) not in needed]
    if idle:
        raise ModelError(
            f"The model {model.name!r} computes losses or metrics inside (add_loss, add_metric), in the layers "
            f"{', '.join(idle)}.",
            expected="a model whose layers all lead to its outputs",
            fix="build it without them, and name loss and metric in compile() or in the recipe.",
        )


def needed_calls(model: Any, replaced: Mapping[int, Any]) -> set[int]:
    """Ids of the nodes that the outputs depend on, with tensors replaced as in :func:`rebuild`; inputs always."""
    nodes = ordered_nodes(model)
    maker = {id(tensor): node for node in nodes for tensor in flat(node.outputs)}
    needed = {id(node) for node in nodes if node.is_input}
    waiting = [*model.outputs]
    while waiting:
        node = maker[id(_final(waiting.pop(), replaced))]
        if id(node) not in needed:
            needed.add(id(node))
            waiting += node.keras_inputs
    return needed


def _final(tensor: Any, replaced: Mapping[int, Any]) -> Any:
    while id(tensor) in replaced:
        tensor = replaced[id(tensor)]
    return tensor


def copy_layer(layer: Any) -> Any:
    """A new layer of the same config, without weights.

    Raises:
        ModelError: the layer does not tell its config, or cannot be made from it.
    """
    return make_like(layer, config_of(layer))


def config_of(layer: Any) -> dict[str, Any]:
    """What a layer says that it can be made from.

    Raises:
        ModelError: it says nothing, or less than all.
    """
    try:
        return layer.get_config()
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise _cannot_be_made(layer, error) from error


def make_like(layer: Any, config: dict[str, Any], name: str | None = None) -> Any:
    """A new layer of the same class with this config, under another name if one is given.

    Raises:
        ModelError: the config names something that is not registered.
    """
    wanted = name or layer.name
    try:
        new = type(layer).from_config({**config, "name": wanted} if "name" in config else config)
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise _cannot_be_made(layer, error) from error
    if new.name != wanted:  # a config without what get_config of the base class says
        new._name = wanted
        new._set_dtype_policy(layer.dtype_policy)
    return new


def _cannot_be_made(layer: Any, error: Exception) -> ModelError:
    return ModelError(
        f"The layer {layer.name!r} ({type(layer).__name__}) cannot be made anew from its config: "
        f"{' '.join(str(error).split())[:300]}",
        expected="a layer whose from_config understands its get_config",
        fix="let get_config return super().get_config() and every argument of __init__, which takes **kwargs; register "
        "what it uses with tf_keras.utils.register_keras_serializable.",
    )


def copy_trainable(layer: Any, new: Any) -> None:
    """Freeze what is frozen of a layer, parts of it included, in its built copy; a config need not tell.

    Keras orders weights by it, so it comes before ``set_weights``.
    """
    for old_part, new_part in zip(layer._flatten_layers(), new._flatten_layers(), strict=True):
        new_part._trainable = old_part._trainable
