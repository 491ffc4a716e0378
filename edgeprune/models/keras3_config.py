"""One Keras 3 layer → the tf_keras layer that computes the same: class, configuration and weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.custom import find_layer_class
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.keras3_ops import ACTIVATIONS
from edgeprune.models.layer_config import Direction, construct, function_name, matching_weights, read_config
from edgeprune.models.types import Config, CustomObjects, Layer, Operation, Structure, Tensor

_log = logging.getLogger(__name__)
# Functions of the same name, or the one given, that compute the same in Keras 2. Not hard_sigmoid: its slope differs.
SAME_ACTIVATIONS = {
    **{name: name for name in ("linear", "relu", "sigmoid", "tanh", "softmax", "softplus", "softsign", "elu", "selu")},
    **{name: name for name in ("exponential", "gelu", "mish")},
    "silu": "swish",
    "swish": "swish",
}
_WITHOUT_EFFECT = frozenset(
    {
        *("seed", "flash_attention", "use_cudnn", "lora_rank", "lora_alpha", "quantization_config"),
        *("gptq_unpacked_column_size", "value_range", "autocast", "trainable"),
    }
)
# Layers whose activation is the last thing that they compute; in a recurrent layer it stands within every step.
_CONVOLUTIONS = ("Conv{}D", "Conv{}DTranspose", "DepthwiseConv{}D", "SeparableConv{}D")
_ACTIVATED_AT_THE_END = frozenset(
    {"Activation", "Dense", "EinsumDense", *(name.format(axes) for name in _CONVOLUTIONS for axes in (1, 2, 3))}
)


@dataclasses.dataclass(frozen=True)
class Made:
    """What stands in tf_keras for one layer of Keras 3.

    Attributes:
        layer: ``None`` for a layer Activation whose function tf_keras does not have.
        end: the name of what is applied to the layer's output, if anything is.
        apply: does it.
    """

    layer: Layer | None
    end: str | None = None
    apply: Callable[[Emitter, Tensor], Structure] | None = None


def to_keras2(custom_objects: CustomObjects) -> Direction:
    """The tables for translating from Keras 3 to tf_keras."""
    import keras
    import tf_keras

    return Direction(
        target="tf_keras",
        find=lambda name: find_layer_class(name, custom_objects),
        source_layers=keras.layers,
        spaces=(tf_keras.regularizers, tf_keras.constraints),
        renamed={"LeakyReLU": {"negative_slope": "alpha"}},
        without_effect=_WITHOUT_EFFECT,
        off={"rms_scaling": False, "data_format": "channels_last", "zero_output_for_mask": False},
        undeclared={"RNN": {"zero_output_for_mask"}, "Layer": {"activity_regularizer"}},
        activation=lambda name, layer: _activation(name, layer, custom_objects),
        unknown_class=unknown_class,
    )


def make_layer(layer: Operation, name: str, direction: Direction) -> Made:
    """The tf_keras layer for a Keras 3 layer, without weights.

    Raises:
        ModelError: the class, or something in its configuration, has no counterpart in tf_keras.
    """
    class_name = type(layer).__name__
    config = {**read_config(layer), "name": name, "dtype": _dtype(layer)}
    if class_name in _SPECIAL:
        config = _SPECIAL[class_name](layer, config)
    if class_name == "GroupedQueryAttention" and direction.find(class_name) is None:
        return Made(construct(direction, "MultiHeadAttention", type(layer), _with_all_heads(layer, config)))
    if class_name == "Discretization" and config["output_mode"] in _ENCODINGS:
        bins = construct(direction, class_name, type(layer), {**config, "output_mode": "int"})
        return Made(bins, config["output_mode"], _encoded(layer, config))
    activation = function_name(config.get("activation"))
    if activation not in ACTIVATIONS or class_name not in _ACTIVATED_AT_THE_END:
        return Made(construct(direction, class_name, type(layer), config))
    apply = ACTIVATIONS[activation]
    if class_name == "Activation":
        return Made(None, activation, apply)
    plain = construct(direction, class_name, type(layer), {**config, "activation": "linear"})
    return Made(plain, activation, apply)


def copy_weights(old: Operation, new: Layer) -> None:
    """Give a built tf_keras layer the weights of the Keras 3 layer that it stands for.

    Raises:
        ModelError: they do not correspond one to one.
    """
    if type(old).__name__ == "GroupedQueryAttention" and type(new).__name__ == "MultiHeadAttention":
        new.set_weights(_repeated_heads(old))
    # The statistics of Normalization are constants of the new layer.
    elif type(old).__name__ != "Normalization":
        new.set_weights(_with_lora_added(old, new, matching_weights(old, new)))


def _with_lora_added(old: Operation, new: Layer, values: list[np.ndarray]) -> list[np.ndarray]:
    """The values for a layer with its low-rank update, if it trains one, as a part of its matrix."""
    if not getattr(old, "lora_enabled", False):
        return values
    matrix = "embeddings" if hasattr(old, "embeddings") else "kernel"
    named = zip(new.weights, values, strict=True)
    effective = np.asarray(getattr(old, matrix))
    return [effective if weight.name.endswith(f"{matrix}:0") else value for weight, value in named]


def _dtype(layer: Operation) -> str:
    policy = layer.dtype_policy
    if getattr(policy, "quantization_mode", None) or not isinstance(policy.name, str):
        raise ModelError(
            f"The layer {layer.name!r} was quantized by Keras 3 ({policy.name}).",
            expected="a model in floating point",
            fix="pass the model as it was before model.quantize(); edgeprune quantizes by itself.",
        )
    return policy.name


def unknown_class(name: str, class_name: str, option: str = "") -> ModelError:
    """The error for a layer class that has no counterpart in tf_keras, or none with an option."""
    return ModelError(
        f"The layer {name!r} is a {class_name}{option}, which tf_keras does not have.",
        expected="layers of keras.layers that Keras 2 has too; layers of yours that only call layers and keras.ops on "
        "one argument; or a class for tf_keras beside yours",
        fix=f"write {class_name} for tf_keras as well: a subclass of tf_keras.layers.Layer with the same arguments and "
        f'weights, under @tf_keras.saving.register_keras_serializable(name="{class_name}"), in the Python file for '
        "--custom-objects FILE.py --trust-model (in Python: load_model(..., "
        f"custom_objects={{{class_name!r}: THE_TF_KERAS_CLASS}})).",
    )


def _activation(name: str, layer: str, custom_objects: CustomObjects) -> str | Callable[..., object]:
    if name in SAME_ACTIVATIONS:
        return SAME_ACTIVATIONS[name]
    base = name.rpartition(">")[2]
    function = next((found for key in (name, base) if (found := _registered(key, custom_objects))), None)
    if function is None:
        raise ModelError(
            f"The layer {layer!r} has the activation {name}, which edgeprune cannot translate to tf_keras there.",
            expected=f"one of: {', '.join(sorted(SAME_ACTIVATIONS))}; behind a convolution or a dense layer also one "
            f"of: {', '.join(sorted(ACTIVATIONS))}",
            fix=f"put a function {base} made of tf functions into a Python file, and add --custom-objects FILE.py "
            f"--trust-model (in Python: load_model(..., custom_objects={{{base!r}: THE_FUNCTION}})).",
        )
    return function


def _registered(name: str, custom_objects: CustomObjects) -> Callable[..., object] | None:
    import tf_keras

    found: Callable[..., object] | None = custom_objects.get(name) or tf_keras.saving.get_registered_object(name)
    return found


def _normalization(layer: Operation, config: Config) -> Config:
    """Adapted statistics become constants: tf_keras keeps a count with them, which Keras 3 does not have."""
    return {**config, **constant_statistics(layer)}


def constant_statistics(layer: Operation) -> dict[str, list[float]]:
    """Mean and variance of a Normalization layer of either Keras, as arguments for its constructor."""
    return {key: np.asarray(getattr(layer, key)).ravel().tolist() for key in ("mean", "variance")}


def _lambda(layer: Operation, config: Config) -> Config:
    """The function runs on TensorFlow tensors in both: Keras 3 runs on TensorFlow here."""
    return {
        "name": config["name"],
        "dtype": config["dtype"],
        "function": layer.function,
        "arguments": layer.arguments or {},
    }


def _discretization(layer: Operation, config: Config) -> Config:
    """Bounds that were adapted are constants, too."""
    return {**config, "bin_boundaries": list(layer.bin_boundaries), "num_bins": None}


# How bins are encoded → what makes one row of the rows of all features; None: there is a row for each.
_ENCODINGS = {"one_hot": None, "multi_hot": "math.reduce_max", "count": "math.reduce_sum"}


def _encoded(layer: Operation, config: Config) -> Callable[[Emitter, Tensor], Structure]:
    """Bins as vectors, by operations: tf_keras encodes one feature only, and counts with what TFLite lacks."""
    reduction, depth = _ENCODINGS[config["output_mode"]], len(layer.bin_boundaries) + 1

    def apply(emitter: Emitter, bins: Tensor) -> Structure:
        if reduction is None and len(bins.shape) > 1 and bins.shape[-1] == 1:
            bins = emitter.op("squeeze", bins, [-1], suffix="bins")
        bins = emitter.cast(bins, "int32")
        if reduction is None:
            return emitter.op("one_hot", bins, depth, dtype=config["dtype"])
        rows = emitter.op("one_hot", bins, depth, dtype=config["dtype"], suffix="rows")
        return emitter.op(reduction, rows, 1)

    return apply


def _with_all_heads(layer: Operation, config: Config) -> Config:
    """Grouped heads of keys and values as those of MultiHeadAttention: each stands there once for every query head."""
    if layer.use_gate or layer.sliding_window:
        raise unknown_class(config["name"], type(layer).__name__, " with a gate or a sliding window")
    _log.warning(
        "The layer %r becomes a MultiHeadAttention: its %d heads of keys and values are repeated for %d of queries.",
        *(layer.name, layer.num_key_value_heads, layer.num_query_heads),
    )
    own = ("head_dim", "num_query_heads", "num_key_value_heads", "use_gate", "sliding_window")
    kept = {key: value for key, value in config.items() if key not in own}
    return {**kept, "num_heads": layer.num_query_heads, "key_dim": layer.head_dim}


def _repeated_heads(layer: Operation) -> list[np.ndarray]:
    """The weights for a MultiHeadAttention: kernels [features, heads, sizes] and biases [heads, sizes]."""
    parts = ((layer._query_dense, 1), (layer._key_dense, layer.num_repeats), (layer._value_dense, layer.num_repeats))
    inner = [np.repeat(np.asarray(weight), times, axis=-2) for part, times in parts for weight in part.weights]
    return [*inner, *map(np.asarray, layer._output_dense.weights)]


_SPECIAL: dict[str, Callable[[Operation, Config], Config]] = {
    "Discretization": _discretization,
    "Normalization": _normalization,
    "Lambda": _lambda,
}
