"""A model as it will be in the flatbuffer: batch normalization folded, compound layers taken apart.

Training for int8 must round where the int8 file rounds. The converter folds batch normalization into the convolution
before it and fuses some activations; here the same is done first, so that what is trained is what is shipped, wherever
the batch normalization stands (Jacob et al. 2017, arXiv:1712.05877, section 3.2; Krishnamoorthi, arXiv:1806.08342).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.graph import CallKey, View, activation_name
from edgeprune.models.layer_facts import along
from edgeprune.models.pooling import with_means
from edgeprune.models.rebuild import copy_layer, copy_trainable, rebuild
from edgeprune.models.types import Layer, Tensor
from edgeprune.quantize.rules import FUSED_FUNCTIONS, kernel_rule

if TYPE_CHECKING:
    import tf_keras


def prepare(model: tf_keras.Model) -> tf_keras.Model:
    """A model with the same outputs, made of layers that each become one TFLite operator where that is possible.

    - Batch normalization is folded into a convolution or dense layer that feeds it alone, and becomes a 1x1 depthwise
      convolution (in 4-D tensors) or a product and a sum elsewhere. ``Rescaling`` and ``Normalization`` likewise.
    - ``SeparableConv2D`` becomes a depthwise and a 1x1 convolution.
    - Activations in a layer that TFLite does not fuse become layers of their own.
    - ``Add`` and ``Multiply`` of more than two become chains.
    - Average pooling over a whole map becomes a mean (:mod:`edgeprune.models.pooling`).

    What is frozen stays frozen: a layer with a kernel trains if it did in ``model``, whatever is folded into it, so
    that frozen statistics of a batch normalization do not freeze the convolution that takes them in. What had no
    trainable weights, such as the constants of ``Rescaling``, gets none.

    Args:
        model: flat functional tf_keras model.

    Returns:
        A new model in inference form; it shares nothing with ``model``.
    """
    model = with_means(model)
    if any(type(layer).__name__ == "SeparableConv2D" for layer in model.layers):
        model = rebuild(model, _Makers({}).split)
    return rebuild(model, _Makers(_foldable(model)).emit)


def _foldable(model: tf_keras.Model) -> dict[str, Layer]:
    """Name of a layer with a kernel → the batch normalization that is folded into it."""
    view = View(model)
    folded = {}
    for node in view.nodes:
        layer, output = node.layer, node.outputs
        if kernel_rule(layer) is None or not _is_linear(layer) or len(view.uses(layer)) > 1 or isinstance(output, list):
            continue
        after = view.readers(output)
        if view.is_end(output) or len(after) != 1 or not _is_batch_norm(after[0].layer):
            continue
        if len(view.uses(after[0].layer)) == 1 and _axis(after[0].layer) == len(output.shape) - 1:
            folded[layer.name] = after[0].layer
    return folded


class _Makers:
    """The calls of the prepared model. ``folded``: name of a layer → the batch normalization that it takes in."""

    def __init__(self, folded: dict[str, Layer]):
        self._folded = folded
        self._absorbed = {layer.name for layer in folded.values()}
        self._made: dict[str, _Filled] = {}

    def emit(self, layer: Layer, key: CallKey, args: Any, kwargs: Any) -> Any:
        if layer.name in self._absorbed:
            return args[0]
        rule = _RULES.get(type(layer).__name__)
        if rule is not None and (outputs := rule(self, layer, key, args)) is not None:
            return outputs
        return self.copy(layer)(*args, **kwargs)

    def split(self, layer: Layer, key: CallKey, args: Any, kwargs: Any) -> Any:
        """Only compound convolutions, so that batch normalization can be folded into their parts afterwards."""
        if type(layer).__name__ == "SeparableConv2D":
            return self.separable(layer, key, args)
        return self.copy(layer)(*args, **kwargs)

    def copy(self, layer: Layer) -> _Filled:
        """The one copy of a layer, weights and batch normalization included, made on its first call."""
        return self.once(layer.name, lambda: copy_layer(layer), layer.get_weights(), layer)

    def once(
        self,
        name: str,
        make: Callable[[], Layer],
        weights: list[np.ndarray] | None = None,
        original: Layer | None = None,
    ) -> _Filled:
        """A layer by name; its weights, and what is frozen of the original, are set as soon as it is built."""
        if name not in self._made:
            self._made[name] = _Filled(make(), weights or [], original)
        return self._made[name]

    def with_kernel(self, layer: Layer, key: CallKey, args: Any) -> Any:
        """A layer with a kernel: batch normalization folded in, an activation that is not fused split off."""
        config = layer.get_config()
        norm = self._folded.get(layer.name)
        weights = layer.get_weights()
        if norm is not None:
            config["use_bias"] = True
            weights = fold(weights, layer, *affine(norm))
        after = None if activation_name(layer) in ("linear", *FUSED_FUNCTIONS) else layer.activation
        if after is not None:
            config["activation"] = "linear"
        made = self.once(layer.name, lambda: type(layer).from_config(config), weights)
        return self._activated(made(*args), after, key)

    def separable(self, layer: Layer, key: CallKey, args: Any) -> Any:
        """Depthwise and pointwise convolution; the latter keeps the name and the batch normalization behind."""
        import tf_keras

        depthwise, pointwise, *bias = layer.get_weights()
        names = ("strides", "padding", "dilation_rate", "depth_multiplier", "data_format", "trainable")
        shared = {name: getattr(layer, name) for name in names}
        first = self.once(
            f"{layer.name}_depthwise",
            lambda: tf_keras.layers.DepthwiseConv2D(
                layer.kernel_size, use_bias=False, name=f"{layer.name}_depthwise", **shared
            ),
            [depthwise],
        )
        second = self.once(
            layer.name,
            lambda: tf_keras.layers.Conv2D(
                layer.filters, 1, use_bias=layer.use_bias, name=layer.name, trainable=layer.trainable
            ),
            [pointwise, *bias],
        )
        return self._activated(second(first(*args)), None if _is_linear(layer) else layer.activation, key)

    def affine(self, layer: Layer, key: CallKey, args: Any) -> Any:
        """``x * scale + shift`` of what could not be folded."""
        import tensorflow as tf
        import tf_keras

        x = args[0]
        channels = x.shape[-1]
        axis, rank = _axis(layer), len(x.shape)
        if axis is not None and axis % rank != rank - 1:
            return None
        scale, shift = (np.broadcast_to(part, [channels]).astype("float32") for part in affine(layer))
        if rank == 4:
            trains = bool(layer.trainable_weights)
            make = lambda: tf_keras.layers.DepthwiseConv2D(1, name=layer.name, trainable=trains)  # noqa: E731
            return self.once(layer.name, make, [scale.reshape(1, 1, channels, 1), shift])(x)
        scaled = tf.math.multiply(x, scale.tolist(), name=_call_name(f"{layer.name}_scale", key))
        return tf.math.add(scaled, shift.tolist(), name=_call_name(f"{layer.name}_shift", key))

    def chain(self, layer: Layer, key: CallKey, args: Any) -> Any:
        """Three and more inputs, two at a time."""
        if len(args[0]) < 3:
            return None
        total, *others = args[0]
        for number, other in enumerate(others, 1):
            name = layer.name if number == len(others) else f"{layer.name}_{number}"
            total = self.once(name, lambda name=name: type(layer)(name=name))([total, other])  # type: ignore[call-arg, misc]
        return total

    def _activated(self, tensor: Tensor, activation: Any, key: CallKey) -> Tensor:
        import tf_keras

        if activation is None:
            return tensor
        name = f"{key[0]}_activation"
        return self.once(name, lambda: tf_keras.layers.Activation(activation, name=name))(tensor)


class _Filled:
    """A layer that gets its weights, and the flags of the original, when its first call has built it."""

    def __init__(self, layer: Layer, weights: list[np.ndarray], original: Layer | None):
        self._layer, self._weights, self._original = layer, weights, original
        self._called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self._layer(*args, **kwargs)
        if not self._called and self._original is not None:
            copy_trainable(self._original, self._layer)  # first: Keras orders weights by it
        if not self._called and self._weights:
            self._layer.set_weights(self._weights)
        self._called = True
        return outputs


def fold(weights: list[np.ndarray], layer: Layer, scale: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
    """Kernel and bias of a layer that does what the layer and ``y * scale + shift`` behind it do."""
    rule = kernel_rule(layer)
    assert rule is not None
    kernel, *bias = weights
    scaled = kernel * along(scale, rule.channel_axes, kernel.shape)
    offset = bias[0] * scale if bias else 0.0
    return [scaled.astype(kernel.dtype), (shift + offset).astype(kernel.dtype)]


def affine(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of a layer that computes ``x * scale + shift`` in inference, per channel or single numbers."""
    kind = type(layer).__name__
    if kind == "Rescaling":
        return np.asarray(layer.scale, "float64"), np.asarray(layer.offset, "float64")
    if kind == "Normalization":
        mean, deviation = np.ravel(layer.mean), np.maximum(np.sqrt(np.ravel(layer.variance)), 1e-7)
        return 1 / deviation, -mean / deviation
    mean, variance = (np.asarray(part, "float64") for part in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma, "float64")
    return scale, -mean * scale + (np.asarray(layer.beta, "float64") if layer.center else 0.0)


def _axis(layer: Layer) -> int | None:
    axis = getattr(layer, "axis", None)
    return axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis if isinstance(axis, int) else None


def _is_batch_norm(layer: Layer) -> bool:
    return type(layer).__name__ in ("BatchNormalization", "SyncBatchNormalization")


def _is_linear(layer: Layer) -> bool:
    return activation_name(layer) == "linear"


def _call_name(name: str, key: CallKey) -> str:
    return f"{name}_{key[1]}" if key[1] else name


_RULES: dict[str, Callable[[_Makers, Layer, CallKey, Any], Any]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense"), _Makers.with_kernel),
    **dict.fromkeys(("BatchNormalization", "SyncBatchNormalization", "Rescaling", "Normalization"), _Makers.affine),
    "Add": _Makers.chain,
    "Multiply": _Makers.chain,
}
