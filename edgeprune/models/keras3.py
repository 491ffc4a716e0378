"""A Keras 3 model, in a file or in memory → a functional tf_keras model that computes the same.

The walk of :mod:`edgeprune.models.flatten` goes through the Keras 3 graph; every layer is made anew in tf_keras
(:mod:`edgeprune.models.keras3_config`), every operation of ``keras.ops`` by a table
(:mod:`edgeprune.models.keras3_ops`). Then both models run on random inputs and must agree.

Layers that change training images only (RandomFlip and its like) are left out, with a warning: they do nothing in
inference, most of them have no counterpart in Keras 2, and augmentation belongs to the data.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgeprune.errors import ModelError
from edgeprune.models import keras3_decompose, keras3_einsum, keras3_shape_ops  # noqa: F401 - enter their rules
from edgeprune.models.compiled import output_names
from edgeprune.models.custom import find_layer_class
from edgeprune.models.flatten import call_layer, copy_input, walk_steps
from edgeprune.models.formats import subclassed
from edgeprune.models.graph import flat, is_symbolic
from edgeprune.models.keras3_check import Results, check
from edgeprune.models.keras3_config import Made, copy_weights, make_layer, to_keras2, unknown_class
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.keras3_file import import_keras3, is_keras3
from edgeprune.models.keras3_ops import translate_operation
from edgeprune.models.naming import scope_name
from edgeprune.models.types import (
    AnyModel,
    Arguments,
    CustomObjects,
    Operation,
    Structure,
    Value,
)
from edgeprune.models.walk import Dialect, GraphCall, LayerCall, Names, repeats_a_model, walk

if TYPE_CHECKING:
    import keras
    import tf_keras

_log = logging.getLogger(__name__)


def translate(
    model: keras.Model, custom_objects: CustomObjects | None = None
) -> tuple[tf_keras.Model, list[tuple[str, ...]]]:
    """Translate a Keras 3 model into a flat functional tf_keras model, and check that it computes the same.

    Args:
        model: functional, Sequential, or a subclass whose code only calls layers and operations.
        custom_objects: tf_keras classes for layer classes of these names that tf_keras does not have.

    Returns:
        A new model, not compiled, with the names of layers and inputs, order of outputs, types, weights and trainable
        flags of ``model``; see :class:`edgeprune.models.walk.Names` for layers of nested models. And the names of the
        outputs of ``model``, see :func:`edgeprune.models.compiled.output_names`.

    Raises:
        ModelError: something in it has no counterpart in tf_keras, named; or the outputs differ, see
            :func:`edgeprune.models.keras3_check.check`.
    """
    import tensorflow as tf
    import tf_keras

    import_keras3()
    dialect = Keras3(custom_objects or {})
    graph = dialect.graph(model, None)
    translator = _Translator(dialect, Names(dialect, graph), custom_objects or {})
    names = dialect.input_names(graph)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in graph.inputs]
    inputs = [copy_input(spec, name) for spec, name in zip(specs, names, strict=True)]
    outputs = walk(dialect, graph, inputs, translator)
    flat_inputs = tf.nest.pack_sequence_as(graph._inputs_struct, inputs)
    translated = tf_keras.Model(flat_inputs, outputs, name=scope_name(model.name))
    translator.finish()
    if translator.names.changed:
        renamed = ", ".join(f"{old!r} is now {new!r}" for old, new in translator.names.changed.items())
        _log.warning("Layers are renamed, because tf_keras does not take their names: %s.", renamed)
    if translator.left_out:
        _log.warning("Left out, because they only change training images: %s.", ", ".join(translator.left_out))
    check(model, graph, dialect, translated, translator.results)
    return translated, output_names(graph)


class Keras3:
    """The dialect of Keras 3, for :func:`edgeprune.models.walk.walk`."""

    def __init__(self, custom_objects: CustomObjects | None = None) -> None:
        self._graphs: dict[int, keras.Model] = {}
        self._custom_objects = custom_objects or {}

    def is_model(self, layer: Operation) -> bool:
        return is_keras3(layer) or self._is_made_of_layers(layer)

    def _is_made_of_layers(self, layer: Operation) -> bool:
        """Whether a layer is of a class of the user's without a tf_keras class, and all its weights are of layers."""
        import keras

        if not isinstance(layer, keras.layers.Layer) or type(layer).__module__.split(".")[0] == "keras":
            return False
        inner = {id(weight) for part in layer._layers for weight in part.weights}
        return inner >= {id(weight) for weight in layer.weights} and not find_layer_class(
            type(layer).__name__, self._custom_objects
        )

    def repeated(self, layer: Operation) -> AnyModel | None:
        import keras

        wraps = isinstance(layer, keras.layers.TimeDistributed) and self.is_model(layer.layer)
        return layer.layer if wraps else None

    def graph(self, model: AnyModel, args: Structure) -> AnyModel:
        from keras.src.models.functional import Functional

        if isinstance(model, Functional):
            return model
        if isinstance(getattr(model, "_functional", None), Functional):  # Sequential
            return model._functional
        if id(model) not in self._graphs:
            self._graphs[id(model)] = _trace(model, args) if is_keras3(model) else _trace_layer(model, args)
        return self._graphs[id(model)]

    def nodes(self, graph: AnyModel) -> Iterable[GraphCall]:
        last_first: list[GraphCall] = []
        needed = {id(tensor) for tensor in graph.outputs}
        # Operations that only compute masks that Keras passes on by itself are left out: tf_keras makes its own masks.
        for depth in sorted(graph._nodes_by_depth):
            for node in reversed(graph._nodes_by_depth[depth]):
                if node.is_input or not any(id(tensor) in needed for tensor in node.outputs):
                    continue
                args, kwargs = _without_own_masks(node)
                needed |= {id(tensor) for tensor in flat((args, kwargs))}
                last_first.append((node.operation, args, kwargs, list(node.outputs)))
        return last_first[::-1]

    def structure(self, graph: AnyModel) -> tuple[list[Value], Structure]:
        return graph.inputs, graph._outputs_struct

    def input_names(self, graph: AnyModel) -> list[str]:
        return [tensor._keras_history.operation.name for tensor in graph.inputs]

    def training(self, layer: Operation, given: bool | None) -> bool | None:
        """Keras 3 records the default of the layer's own signature as if it had been given."""
        parameter = inspect.signature(layer.call).parameters.get("training")
        return None if parameter is not None and parameter.default is given else given


def _without_own_masks(node: keras.Node) -> tuple[tuple[Structure, ...], Arguments]:
    """The arguments of a call, without the masks that Keras itself passed on and without those that are None."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    own = [tensor._keras_mask for tensor in node.arguments.keras_tensors if hasattr(tensor, "_keras_mask")]
    kept = {
        key: value
        for key, value in kwargs.items()
        if not (key == "mask" or key.endswith("_mask"))
        or not all(mask is None or any(_same_tensor(mask, other) for other in own) for mask in flat(value))
    }
    return args, {key: value for key, value in kept.items() if value is not None}


def _same_tensor(one: Value, other: Value) -> bool:
    """Whether two tensors are computed in the same way: a file holds Keras's own masks a second time, as operations."""
    import keras

    if one is other:
        return True
    if not (hasattr(one, "_keras_history") and hasattr(other, "_keras_history")):
        return type(one) is type(other) and repr(one) == repr(other)  # constants
    made = [tensor._keras_history for tensor in (one, other)]
    if isinstance(made[0].operation, keras.layers.Layer) or _settings(*made[0]) != _settings(*made[1]):
        return False
    nodes = [history.operation._inbound_nodes[history.node_index] for history in made]
    arguments = [flat((node.arguments.args, node.arguments.kwargs)) for node in nodes]
    return len(arguments[0]) == len(arguments[1]) and all(map(_same_tensor, *arguments))


def _settings(operation: Operation, node_index: int, tensor_index: int) -> tuple[type, int, dict[str, object]]:
    public = {key: value for key, value in vars(operation).items() if not key.startswith("_") and key != "name"}
    return type(operation), tensor_index, public


def _trace(model: keras.Model, args: Structure) -> keras.Model:
    """A functional Keras 3 model of the same layers, out of a subclassed one, by calling it on symbolic inputs."""
    import keras
    import tensorflow as tf

    if args is None:
        args = _input_specs(model)
    inputs = tf.nest.map_structure(
        lambda spec: keras.Input(batch_shape=tuple(spec.shape), dtype=tf.as_dtype(spec.dtype).name), args
    )
    # The user's code may fail in any way on tensors without values; whichever it is, the answer is the same.
    try:
        graph = keras.Model(inputs, model.call(inputs), name=model.name)
    except Exception as error:
        raise subclassed(f"The model {model.name!r}", type(model).__name__) from error
    if {id(weight) for weight in model.weights} - {id(weight) for weight in graph.weights}:
        raise subclassed(f"The model {model.name!r}", type(model).__name__)
    return graph


def _trace_layer(layer: keras.layers.Layer, args: Structure) -> keras.Model:
    """What a layer of the user's calls, as a functional model."""
    import keras
    import tensorflow as tf

    inputs = tf.nest.map_structure(
        lambda value: keras.Input(batch_shape=tuple(value.shape), dtype=tf.as_dtype(value.dtype).name), args
    )
    # The user's code may fail in any way on tensors without values; whichever it is, the answer is the same.
    try:
        return keras.Model(inputs, layer.call(inputs), name=layer.name)
    except Exception as error:
        raise unknown_class(layer.name, type(layer).__name__) from error


def _input_specs(model: keras.Model) -> Structure:
    import tensorflow as tf

    shapes = model._build_shapes_dict
    if not shapes and model.built:
        raise subclassed(f"The model {model.name!r}", type(model).__name__)
    if not shapes or len(shapes) != 1:
        raise ModelError(
            f"The model {model.name!r} ({type(model).__name__}) does not know the shape of its input.",
            expected="a model that was called or built",
            fix="call it once on a sample, or begin it with keras.Input(shape); and save it as .keras, because an .h5 "
            "does not keep the shape.",
        )
    shape = next(iter(shapes.values()))
    if isinstance(shape, list | tuple) and all(size is None or isinstance(size, int) for size in shape):
        return tf.TensorSpec([None, *shape[1:]], "float32")
    if isinstance(shape, dict):
        return {key: tf.TensorSpec([None, *part[1:]], "float32") for key, part in shape.items()}
    return [tf.TensorSpec([None, *part[1:]], "float32") for part in shape]


class _Translator:
    """Handles the calls of the walk, and records the tf_keras layers and tensors that it makes for them, in order."""

    def __init__(self, dialect: Dialect, names: Names, custom_objects: CustomObjects):
        self.dialect, self.names, self.direction = dialect, names, to_keras2(custom_objects)
        self.made: dict[int, tuple[Operation, Made, bool]] = {}
        self.results: Results = []
        self.left_out: list[str] = []

    def __call__(self, call: LayerCall) -> Structure:
        result = self._made(call)
        arguments = [value for value in flat((call.args, call.kwargs)) if is_symbolic(value)]
        self.results.append((self.names.of(call.operation), arguments, result))
        return result

    def _made(self, call: LayerCall) -> Structure:
        """What stands for the outputs of the call."""
        import keras

        if repeats_a_model(self.dialect, call.operation):
            return walk_steps(self.dialect, call, self._made, self.names)
        return self._layer(call) if isinstance(call.operation, keras.layers.Layer) else self._operation(call)

    def _operation(self, call: LayerCall) -> Structure:
        return translate_operation(Emitter(self.names, self.names.of(call.operation)), call)

    def _layer(self, call: LayerCall) -> Structure:
        layer, name = call.operation, self.names.of(call.operation)
        if _only_augments(layer):
            self.left_out.append(name)
            return call.args[0]
        is_new = id(layer) not in self.made
        if is_new:
            held = _normalized(layer)
            self.made[id(layer)] = (held, make_layer(held, name, self.direction), call.frozen)
        made = self.made[id(layer)][1]
        result = call.args[0] if made.layer is None else call_layer(made.layer, call)
        if made.apply:
            own_name = name if made.layer is None and is_new else self.names.unique(f"{name}_{made.end}")
            result = made.apply(Emitter(self.names, own_name), result)
        return result

    def finish(self) -> None:
        """Copy weights and trainable flags."""
        for layer, made, frozen in self.made.values():
            if made.layer is not None:
                copy_weights(layer, made.layer)
                made.layer.trainable = layer.trainable and not frozen


def _normalized(layer: Operation) -> Operation:
    """The layer itself, or the one in a SpectralNormalization, whose kernel is normalized while it is trained."""
    if type(layer).__name__ != "SpectralNormalization":
        return layer
    _log.warning("The layer %r keeps its normalized weights; further training does not normalize them.", layer.name)
    return _normalized(layer.layer)


def _only_augments(layer: Operation) -> bool:
    """Whether a layer changes images in training only. RandomCrop crops in inference, too: in the middle."""
    from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
        BaseImagePreprocessingLayer,
    )

    name = type(layer).__name__
    augments = name.startswith("Random") or name in ("AugMix", "CutMix", "MixUp", "RandAugment")
    return isinstance(layer, BaseImagePreprocessingLayer) and augments and name != "RandomCrop"
