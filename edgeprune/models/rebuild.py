"""Build a functional model anew from its layer calls: the one way in which models are copied and changed.

What a copy keeps is decided here once: the names of model, layers and inputs, the structure of inputs and outputs,
types, fixed batch sizes, shared layers, the arguments of every call (``training=False`` among them) and what is
trainable. Two things are done elsewhere: :mod:`edgeprune.models.walk` follows calls into nested models and from one
Keras to the other, where layers and calls change their form; ``tf_keras.Model(inputs, outputs)`` over tensors of a
model makes another model of the same layers and weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgeprune.errors import ModelError
from edgeprune.models.graph import CallKey, View, final, flat
from edgeprune.models.types import Arguments, Config, Layer, Structure, Tensor, Value

if TYPE_CHECKING:
    import tf_keras

# layer of the old model -> layer of the new one
MakeLayer = Callable[[Layer], Layer]
# (layer of the old model, key of the call, args and kwargs with the new tensors) -> outputs, in the old structure
Emit = Callable[[Layer, CallKey, tuple[Structure, ...], Arguments], Structure]


def rebuild(
    model: tf_keras.Model,
    emit: Emit | None = None,
    *,
    emit_input: Callable[[Layer], Tensor] | None = None,
    replaced: Mapping[int, Tensor] | None = None,
    drop_idle: bool = False,
) -> tf_keras.Model:
    """A new functional model with the inputs, calls, outputs and names of ``model``; the weights are not set.

    A layer with the name and class of an old one is trainable where that is; others are left as ``emit`` made them.

    Args:
        model: functional tf_keras model; models in it are layers like others.
        emit: makes the outputs of one call. It may call as many layers as it likes, or none and return an argument.
            None: the same call of a copy of the layer (:func:`with_layers`).
        emit_input: input layer → what stands for it: a new input, or a tensor made from one. None: a copy.
        replaced: id of a tensor of ``model`` → the earlier tensor that takes its place. Calls that nothing asks for any
            more, and layers without calls, are left out.
        drop_idle: leave out losses and metrics that are layers, instead of refusing them: for a model that is only
            looked at.

    Returns:
        A ``tf_keras.Model`` that shares with ``model`` only what ``emit`` lets it share. It is not compiled.

    Raises:
        ModelError: the model has losses or metrics as layers, or a layer cannot be made anew.
    """
    import tensorflow as tf
    import tf_keras

    emit = emit or with_layers(copy_layer)
    emit_input = emit_input or (lambda layer: copy_layer(layer).output)
    view = View(model)
    if not drop_idle:
        refuse_idle(view)
    needed = view.needed(replaced)
    tensors: dict[int, Value] = {}

    def new_tensor(value: Value) -> Value:
        return tensors.get(id(final(value, replaced or {})), value)

    for key, node in view.calls.items():
        if id(node) not in needed:
            continue
        if node.is_input:
            outputs = emit_input(node.layer)
        else:
            outputs = emit(node.layer, key, *tf.nest.map_structure(new_tensor, (node.call_args, node.call_kwargs)))
        tensors |= zip(map(id, flat(node.outputs)), flat(outputs), strict=True)
    inputs = tf.nest.map_structure(lambda old: _source(new_tensor(old)), model._nested_inputs)
    rebuilt = tf_keras.Model(inputs, tf.nest.map_structure(new_tensor, model._nested_outputs), name=model.name)
    rebuilt._trainable = model._trainable  # the property would set all layers, too
    for layer, new in _namesakes(model, rebuilt):
        copy_trainable(layer, new)
    return rebuilt


def with_layers(make_layer: MakeLayer) -> Emit:
    """Every call as it was, of new layers: ``layer -> new layer``, asked once per layer, at its first call."""
    make = functools.cache(make_layer)
    return lambda layer, key, args, kwargs: make(layer)(*args, **kwargs)


def copy_model(model: tf_keras.Model, wrap: MakeLayer | None = None) -> tf_keras.Model:
    """A copy with the same weights, which shares none with ``model``; what is frozen of it is frozen.

    Args:
        wrap: (copy of a layer) → the layer that holds it in its place; its name may differ.

    Raises:
        ModelError: as :func:`rebuild`.
    """
    copies: dict[str, Layer] = {}

    def make(layer: Layer) -> Layer:
        copies[layer.name] = copy = copy_layer(layer)
        return wrap(copy) if wrap else copy

    copied = rebuild(model, with_layers(make))
    for layer in model.layers:
        if layer.name in copies:
            copy_trainable(layer, copies[layer.name])
            copies[layer.name].set_weights(layer.get_weights())
    return copied


def copy_weights(model: tf_keras.Model, copy: tf_keras.Model) -> None:
    """Give the layers of ``copy`` the weights of those of the same name in ``model``."""
    for layer, new in _namesakes(model, copy):
        new.set_weights(layer.get_weights())


def _namesakes(model: tf_keras.Model, copy: tf_keras.Model) -> list[tuple[Layer, Layer]]:
    new_layers = {layer.name: layer for layer in copy.layers}
    return [(layer, new_layers[layer.name]) for layer in model.layers if layer.name in new_layers]


def refuse_idle(view: View) -> None:
    """Refuse layers that the outputs do not depend on: ``add_loss`` and ``add_metric`` of a functional model."""
    needed = view.needed()
    idle = [node.layer.name for node in view.nodes if id(node) not in needed]
    if idle:
        raise ModelError(
            f"The model {view.model.name!r} computes losses or metrics inside (add_loss, add_metric), in the layers "
            f"{', '.join(idle)}.",
            expected="a model whose layers all lead to its outputs",
            fix="build it without them, and name loss and metric in compile() or in the recipe.",
        )


def _source(tensor: Tensor) -> Tensor:
    """The one input that a tensor is made from."""
    import tf_keras

    (source,) = tf_keras.utils.get_source_inputs(tensor)
    return source


def copy_layer(layer: Layer) -> Layer:
    """A new layer of the same config, without weights.

    Raises:
        ModelError: the layer has no config, or cannot be made from it.
    """
    return make_like(layer, config_of(layer))


def config_of(layer: Layer) -> Config:
    """What a layer says that it can be made from.

    Raises:
        ModelError: its get_config fails.
    """
    try:
        return layer.get_config()
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise _cannot_be_made(layer, error) from error


def make_like(layer: Layer, config: Config, name: str | None = None) -> Layer:
    """A new layer of the same class with this config, under another name if one is given.

    Raises:
        ModelError: the config names something that is not registered.
    """
    wanted = name or layer.name
    try:
        new = type(layer).from_config({**config, "name": wanted} if "name" in config else config)
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise _cannot_be_made(layer, error) from error
    if new.name != wanted:  # a get_config that leaves out what that of the base class returns
        new._name = wanted
        new._set_dtype_policy(layer.dtype_policy)
    return new


def _cannot_be_made(layer: Layer, error: Exception) -> ModelError:
    return ModelError(
        f"The layer {layer.name!r} ({type(layer).__name__}) cannot be made anew from its config: "
        f"{' '.join(str(error).split())[:300]}",
        expected="a layer whose from_config understands its get_config",
        fix="let get_config return super().get_config() and every argument of __init__, which takes **kwargs; register "
        "what it uses with tf_keras.utils.register_keras_serializable.",
    )


def copy_trainable(layer: Layer, new: Layer) -> None:
    """Freeze in a built copy of a layer what is frozen in the layer, parts of it included: its config need not say so.

    Keras orders weights by it, so it comes before ``set_weights``. A copy of another class is left as it was made.
    """
    if type(new) is not type(layer):
        return
    parts, new_parts = list(layer._flatten_layers()), list(new._flatten_layers())
    # A layer whose activation was split off has other parts: only the layer itself corresponds.
    pairs = zip(parts, new_parts, strict=True) if _kinds(parts) == _kinds(new_parts) else [(layer, new)]
    for old_part, new_part in pairs:
        new_part._trainable = old_part._trainable


def _kinds(parts: list[Layer]) -> list[type]:
    return [type(part) for part in parts]
