"""Layers that are wrapped for training, by tfmot (tensorflow-model-optimization) or Keras → plain layers.

A pruned layer gets its weights with the mask applied, a clustered one its shared weights, as
``tfmot.sparsity.keras.strip_pruning`` and ``strip_clustering`` make them, wherever the layer stands. A layer in
quantization-aware training gives two: with the rounding that it has learned, of kernels and of activations (by
operations), or in float. What is rounded is compared with tfmot's; what is not is the same without the operations.
A layer in Keras' SpectralNormalization gets its weights as they are: they are normalized in training only.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.finite import not_finite
from edgeprune.models.graph import activation_name
from edgeprune.models.rebuild import config_of, copy_trainable, make_like
from edgeprune.models.types import ConfigValue, CustomObjects, Layer, Structure, Tensor, Value

if TYPE_CHECKING:
    import tf_keras

_PRUNED = {"PruneLowMagnitude"}
_CLUSTERED = {"ClusterWeights", "ClusterWeightsRNN", "ClusterWeightsMHA"}
_QUANTIZED = {"QuantizeWrapper", "QuantizeWrapperV2"}
_ROUNDED = {*_QUANTIZED, "QuantizeLayer"}
_OF_KERAS = {"SpectralNormalization"}
_WRAPPERS = {*_PRUNED, *_CLUSTERED, *_QUANTIZED, "QuantizeAnnotate", *_OF_KERAS}
_ALL = _WRAPPERS | _ROUNDED
# Makes an operation: (symbol, arguments) -> outputs.
MakeOperation = Callable[..., Structure]


@contextlib.contextmanager
def wrapper_classes(config: ConfigValue) -> Iterator[None]:
    """While a configuration that names tfmot's classes is read, they are known; tfmot is imported for those only."""
    if not any(f'"{name}"' in json.dumps(config) for name in _ALL - _OF_KERAS):
        yield
        return
    import tensorflow_model_optimization as tfmot
    import tf_keras

    with tfmot.quantization.keras.quantize_scope(), tf_keras.saving.custom_object_scope(_sparsity_classes()):
        yield


def built_when_called(config: ConfigValue) -> ConfigValue:
    """A configuration whose layers that only round are built by their first call.

    These do not note that they have been built: built as the file says, and then called, they would have their
    variables twice.
    """
    if isinstance(config, list):
        return [built_when_called(item) for item in config]
    if not isinstance(config, dict):
        return config
    dropped = "build_config" if config.get("class_name") == "QuantizeLayer" else None
    return {key: built_when_called(value) for key, value in config.items() if key != dropped}


def _sparsity_classes() -> CustomObjects:
    from tensorflow_model_optimization.python.core.clustering.keras import cluster_wrapper
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule, pruning_wrapper

    found = {name: getattr(cluster_wrapper, name) for name in _CLUSTERED}
    found |= {name: getattr(pruning_wrapper, name) for name in _PRUNED}
    return found | {name: getattr(pruning_schedule, name) for name in ("ConstantSparsity", "PolynomialDecay")}


def wrapper_kinds(model: tf_keras.Model) -> list[str]:
    """The kinds of wrappers in a model, models in it included."""
    parts = [layer for layer in model._flatten_layers() if _is_for_training(layer)]
    kinds = {
        "pruning": _PRUNED,
        "clustering": _CLUSTERED,
        "quantization": _ROUNDED,
        "annotation for quantization": {"QuantizeAnnotate"},
        "spectral normalization": _OF_KERAS,
    }
    return [kind for kind, names in kinds.items() if any(type(part).__name__ in names for part in parts)]


def has_rounding(model: tf_keras.Model) -> bool:
    """Whether layers of a model round their kernels or activations."""
    return any(_is_for_training(part) and type(part).__name__ in _ROUNDED for part in model._flatten_layers())


def _is_for_training(layer: Layer) -> bool:
    name, package = type(layer).__name__, type(layer).__module__.partition(".")[0]
    return name in _ALL and package == ("tf_keras" if name in _OF_KERAS else "tensorflow_model_optimization")


def is_rounder(layer: Layer) -> bool:
    """Whether a layer does nothing but round what passes."""
    return type(layer).__name__ == "QuantizeLayer" and _is_for_training(layer)


def rounds_outputs(layer: Layer) -> bool:
    """Whether a layer may round what it gives."""
    return type(layer).__name__ in _ROUNDED and _is_for_training(layer)


def is_wrapped(layer: Layer) -> bool:
    """Whether a layer is, or holds, a wrapper."""
    return any(_is_for_training(part) for part in layer._flatten_layers())


def plain_name(layer: Layer) -> str:
    """The name that a layer had before tfmot wrapped it; a wrapper of Keras is a layer of the user's with a name."""
    while _is_for_training(layer) and type(layer).__name__ in _WRAPPERS - _OF_KERAS:
        layer = layer.layer
    return layer.name


def plain_layer(layer: Layer, name: str, *, rounds: bool) -> Layer:
    """The layer without wrappers, not built; with ``rounds``, without the activation that is rounded before it."""
    inner = layer
    while _is_for_training(inner) and type(inner).__name__ in _WRAPPERS:
        inner = inner.layer
    config = _plain_config(config_of(inner))
    if rounds and _splits(layer):
        config["activation"] = "linear"
    return make_like(inner, config, name)


def _plain_config(config: ConfigValue) -> ConfigValue:
    """A configuration with what is wrapped in the place of the wrappers."""
    if isinstance(config, list | tuple):
        return [_plain_config(item) for item in config]
    if not isinstance(config, dict):
        return config
    class_name = config.get("class_name")
    if class_name in _WRAPPERS:
        return _plain_config(config["config"]["layer"])
    if class_name == "QuantizeAwareActivation":
        return _plain_config(config["config"]["activation"])
    if class_name == "NoOpActivation":
        return "linear"
    return {key: _plain_config(value) for key, value in config.items()}


def fill_plain(layer: Layer, new: Layer, *, rounds: bool) -> None:
    """Give a built plain layer the weights of the one that it stands for; what is frozen stays so.

    Raises:
        ValueError: they do not correspond.
    """
    inner, outer = layer, layer
    while _is_for_training(inner) and type(inner).__name__ in _WRAPPERS:
        inner, outer = inner.layer, inner
    new.trainable = layer.trainable
    if inner is not layer or not is_wrapped(layer):
        copy_trainable(inner, new)
    if outer is not inner:
        new.set_weights(_weights(outer, new, rounds=rounds))
    elif is_wrapped(layer):  # TimeDistributed around a wrapper
        fill_plain(layer.layer, new.layer, rounds=rounds)
    else:
        new.set_weights(layer.get_weights())


def _weights(wrapper: Layer, new: Layer, *, rounds: bool) -> list[np.ndarray]:
    kind = type(wrapper).__name__
    if kind in _PRUNED:
        masks = {id(weight): mask for weight, mask, _ in wrapper.pruning_vars}
        return [
            weight.numpy() * (masks[id(weight)].numpy() if id(weight) in masks else 1)
            for weight in wrapper.layer.weights
        ]
    if kind in _CLUSTERED:
        return _clustered(wrapper)
    if kind in _QUANTIZED:
        return _quantized(wrapper, new, rounds=rounds)
    return wrapper.layer.get_weights()


def _clustered(wrapper: Layer) -> list[np.ndarray]:
    """The weights of a clustered layer, those that are shared in their place."""
    if wrapper.preserve_sparsity:  # built before the weights were loaded: the zeros are those of the last step
        for name, original in wrapper.original_clusterable_weights.items():
            shared = wrapper.clustering_algorithms[name].get_clustered_weight(wrapper.pulling_indices[name], original)
            wrapper.sparsity_masks[name] = np.asarray(shared != 0, "float32")
            wrapper.zero_idx[name] = np.argmin(np.abs(wrapper.cluster_centroids[name]), axis=-1)
    wrapper.update_clustered_weights_associations()
    weights = [np.asarray(weight) for weight in wrapper.layer.weights]
    for place, name in sorted(wrapper.position_original_weights.items()):
        weights.insert(place, np.asarray(wrapper.get_weight_from_layer(name)))
    return weights


def _quantized(wrapper: Layer, new: Layer, *, rounds: bool) -> list[np.ndarray]:
    """The weights of a layer in quantization-aware training, by name; with ``rounds``, kernels on their grid."""
    found = {_leaf(weight): np.asarray(weight) for weight in wrapper.layer.weights}
    for weight, quantizer, variables in wrapper._weight_vars:
        _require_finite(variables)
        value = quantizer(weight, False, weights=variables) if rounds else weight
        found[_leaf(weight)] = np.asarray(value)
    missing = [weight.name for weight in new.weights if _leaf(weight) not in found]
    if missing:
        raise ValueError(f"the layer {wrapper.name} has no weights {', '.join(missing)}")
    return [found[_leaf(weight)] for weight in new.weights]


def _leaf(weight: Any) -> str:
    return weight.name.split("/")[-1].split(":")[0]


def _splits(layer: Layer) -> bool:
    """Whether a quantized layer rounds what goes into its activation."""
    if type(layer).__name__ not in _QUANTIZED or not _is_for_training(layer):
        return False
    return any(part._should_pre_quantize() for part in layer._quantize_activations)


def rounded_outputs(layer: Layer, outputs: Tensor, operation: MakeOperation, apply: Callable[..., Tensor]) -> Tensor:
    """What a quantized layer gives: its activation and its outputs rounded by the ranges that it has learned.

    Args:
        outputs: of the plain layer.
        operation: makes an operation of TensorFlow.
        apply: makes a layer ``Activation`` by the name of its function.
    """
    if is_rounder(layer):
        return _rounded(outputs, layer.quantizer, layer.quantizer_vars, operation) if layer.quantizer else outputs
    for part in layer._quantize_activations:
        if part._should_pre_quantize():
            outputs = _rounded(outputs, part.quantizer, part._pre_activation_vars, operation)
            outputs = apply(outputs, activation_name(part))
        if part._should_post_quantize():
            outputs = _rounded(outputs, part.quantizer, part._post_activation_vars, operation)
    if layer._output_quantizers:
        outputs = _rounded(outputs, layer._output_quantizers[0], layer._output_quantizer_vars, operation)
    return outputs


def _rounded(tensor: Tensor, quantizer: Any, variables: dict[str, Value], operation: MakeOperation) -> Tensor:
    if not variables:  # NoQuantizer
        return tensor
    _require_finite(variables)
    low, high = (float(np.asarray(variables[name])) for name in ("min_var", "max_var"))
    return operation(
        "quantization.fake_quant_with_min_max_vars",
        *(tensor, low, high),
        num_bits=quantizer.num_bits,
        narrow_range=quantizer.narrow_range,
    )


def _require_finite(variables: dict[str, Value]) -> None:
    for variable in variables.values():
        if not np.isfinite(np.asarray(variable)).all():
            raise not_finite(f"The range {variable.name!r}, learned in training for int8, is NaN or infinite.")
