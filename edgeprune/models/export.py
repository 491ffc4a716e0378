"""A tf_keras model → a Keras 3 ``.keras`` file that computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import ModelError, UsageError, VerificationError
from edgeprune.files import atomic_path
from edgeprune.models.export_ops import operations
from edgeprune.models.flatten import Keras2, flatten
from edgeprune.models.keras3_config import SAME_ACTIVATIONS, constant_statistics
from edgeprune.models.keras3_file import import_keras3
from edgeprune.models.layer_config import Direction, construct, matching_weights, read_config, refused_by
from edgeprune.models.types import CustomObjects, Operation, Structure
from edgeprune.models.verify import largest_difference, random_inputs, refuse_random, tolerance
from edgeprune.models.walk import LayerCall, walk

if TYPE_CHECKING:
    import keras
    import tf_keras

_ACTIVATIONS = {**{theirs: ours for ours, theirs in SAME_ACTIVATIONS.items()}, "silu": "silu", "swish": "silu"}
_WITHOUT_EFFECT = frozenset(
    {
        *("batch_input_shape", "dynamic", "implementation", "input_length", "robust_masking", "softmax_robust_masking"),
        *("query_shape", "key_shape", "value_shape"),  # notes of shapes that were seen
        "trainable",  # set at the end
    }
)
_OFF = {"time_major": False, "sparse": False, "groups": 1, "noise_shape": None}


def export_keras3(model: tf_keras.Model, path: str | Path) -> None:
    """Write a model as a Keras 3 ``.keras`` file, which ``keras.models.load_model`` reads without edgeprune.

    The file keeps names of layers and inputs, order of outputs, types, weights, regularizers and trainable flags. It is
    not compiled. It is read back, and its outputs on random inputs compared, before it takes its name.

    Args:
        model: a functional tf_keras model; models in it are opened (:func:`edgeprune.models.flatten.flatten`).
        path: ends in ``.keras``; the folder is made when it is missing, an existing file is replaced.

    Raises:
        UsageError: the name does not end in ``.keras``.
        ModelError: a layer or operation has no counterpart in Keras 3, named.
        VerificationError: what was written computes something else.
        OutputError: no space, no permission; nothing is left behind under the final name.
        MissingError: Keras 3 is not there, or does not run on TensorFlow.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise UsageError(
            f"Keras 3 models are saved as .keras files, not as {path.name}.", fix=f"name it {path.stem}.keras."
        )
    keras = import_keras3()
    flat = flatten(model)
    exported = _build(flat)
    with atomic_path(path) as temporary:
        exported.save(temporary)
        _check(flat, keras.models.load_model(temporary, compile=False, custom_objects=_application_layers()))


def _build(model: tf_keras.Model) -> keras.Model:
    import keras
    import tensorflow as tf

    direction = _to_keras3()
    made: dict[int, tuple[Operation, keras.Layer]] = {}

    def handle(call: LayerCall) -> Structure:
        layer = call.operation
        if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
            return _operation(layer, call)
        if id(layer) not in made:
            made[id(layer)] = (layer, _make_layer(layer, direction))
        with refused_by("Keras 3", layer.name, type(layer).__name__):
            return _call(made[id(layer)][1], call)

    inputs = [
        keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype.name, name=name)
        for tensor, name in zip(model.inputs, model.input_names, strict=True)
    ]
    outputs = walk(Keras2(), model, inputs, handle)
    exported = keras.Model(tf.nest.pack_sequence_as(model._nested_inputs, inputs), outputs, name=model.name)
    for layer, new in made.values():
        if type(layer).__name__ != "Normalization":
            for variable, value in zip(new.weights, matching_weights(layer, new), strict=True):
                variable.assign(value)
        new.trainable = layer.trainable
    return exported


def _call(layer: keras.Layer, call: LayerCall) -> Structure:
    args, kwargs = call.args, dict(call.kwargs)
    if hasattr(layer, "cell") and isinstance(args[0], list | tuple):
        # tf_keras puts the initial state of a recurrent layer behind its input.
        (inputs, *kwargs["initial_state"]), args = args[0], args[1:]
        args = (inputs, *args)
    if call.training is not None and layer._call_has_training_arg:
        kwargs["training"] = call.training
    return layer(*args, **kwargs)


def _make_layer(layer: Operation, direction: Direction) -> keras.Layer:
    class_name = type(layer).__name__
    config = {**read_config(layer), "dtype": layer._dtype_policy.name}
    if class_name == "BatchNormalization" and isinstance(config["axis"], list | tuple):
        (config["axis"],) = config["axis"]
    if class_name == "Normalization":
        config |= constant_statistics(layer)
    return construct(direction, class_name, type(layer), config)


def _to_keras3() -> Direction:
    import keras
    import tf_keras

    known = _application_layers()
    return Direction(
        target="Keras 3",
        find=lambda name: None if name == "Lambda" else known.get(name) or getattr(keras.layers, name, None),
        source_layers=tf_keras.layers,
        spaces=(keras.regularizers, keras.constraints),
        renamed={"LeakyReLU": {"alpha": "negative_slope"}},
        without_effect=_WITHOUT_EFFECT,
        off=_OFF,
        undeclared={},
        activation=_activation,
        unknown_class=_unknown_class,
    )


def _application_layers() -> CustomObjects:
    """The layer classes that keras.applications defines for itself."""
    from keras.src.applications.convnext import LayerScale, StochasticDepth
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    return {layer.__name__: layer for layer in (LayerScale, StochasticDepth, CustomScaleLayer)}


def _activation(name: str, layer: str) -> str:
    if name not in _ACTIVATIONS:
        raise ModelError(
            f"The layer {layer!r} has the activation {name}, which Keras 3 does not have in the same form.",
            expected=f"one of: {', '.join(sorted(_ACTIVATIONS))}",
            fix="build without --export-keras3, or build the model with another activation.",
        )
    return _ACTIVATIONS[name]


def _unknown_class(name: str, class_name: str) -> ModelError:
    return ModelError(
        f"The layer {name!r} is a {class_name}, which cannot be written for Keras 3.",
        expected="layers that both Kerases have",
        fix="build without --export-keras3, or build the model with other layers.",
    )


def _operation(layer: Operation, call: LayerCall) -> Structure:
    symbol = layer.symbol or layer.get_config()["function"]
    table = operations()
    if symbol not in table:
        raise ModelError(
            f"{layer.name!r}: there is no translation of the operation tf.{symbol} to keras.ops.",
            expected="layers, or operations among: " + ", ".join(sorted(table)),
            fix="build without --export-keras3, or write this step with layers.",
        )
    import tensorflow as tf

    with refused_by("Keras 3", layer.name, f"tf.{symbol}"):
        result = table[symbol](*call.args, **{key: value for key, value in call.kwargs.items() if key != "name"})
    tf.nest.flatten(result)[0]._keras_history.operation.name = layer.name
    return result


def _check(model: tf_keras.Model, exported: keras.Model) -> None:
    import tensorflow as tf

    inputs = [tf.constant(value) for value in random_inputs(model)]
    expected = model(tf.nest.pack_sequence_as(model._nested_inputs, inputs), training=False)
    actual = exported(tf.nest.pack_sequence_as(model._nested_inputs, inputs), training=False)
    difference, allowed = (
        largest_difference(tf.nest.flatten(expected), tf.nest.flatten(actual)),
        tolerance(model.layers),
    )
    if not difference <= allowed:
        refuse_random(model, inputs, VerificationError)
        raise VerificationError(
            f"The Keras 3 file of {model.name!r} gives other outputs: they differ by {difference:.1e} of the largest.",
            expected=f"at most {allowed:.0e}",
            fix="this is an error in edgeprune: please report the model.",
        )
