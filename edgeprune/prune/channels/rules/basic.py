"""Channel rules of layers with kernels, of normalization, and of activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgeprune.models.noise import noise_shape_of
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes
from edgeprune.prune.channels.rules.axes import (
    as_list,
    channel_axis,
    freeze_others,
    length,
    lengths,
    like_output,
    product,
    replace_axis,
    without_batch,
)
from edgeprune.prune.channels.rules.registry import register
from edgeprune.prune.channels.units import Vector

# Activations that work element by element, by the names of their functions (tf_keras.activations, tf.nn).
ELEMENTWISE = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish", "tanh", "sigmoid",
    "log_sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "softplus", "softsign", "exponential", "exp", "abs",
    "square", "sqrt", "sin", "cos",
)  # fmt: skip
# Layers that work element by element.
UNCHANGED = (
    "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization", "StochasticDepth", "Identity",
    "ChannelMask",
)  # fmt: skip


def check_activation(call: Call, activation: Any, axes: Axes) -> None:
    """Freeze what an activation function may mix: the last axis for a softmax, all of them for an unknown function."""
    function = activation if hasattr(activation, "__name__") else type(activation)
    name = function.__name__
    # A name says nothing about what a function from elsewhere computes.
    is_known = (function.__module__ or "").split(".")[0] in ("tf_keras", "keras", "tensorflow", "edgeprune")
    if is_known and name in ("softmax", "log_softmax"):
        call.freeze(axes[-1:], f"softmax normalises over these channels (layer {call.name!r})")
    elif not is_known or name not in (*ELEMENTWISE, *UNCHANGED):
        call.freeze(axes, f"no channel rule for the activation {name!r} (layer {call.name!r})")


@register("Conv1D", "Conv2D", "Conv3D")
def convolution(call: Call) -> Axes:
    layer, axis = call.layer, channel_axis(call.layer)
    vector = freeze_others(call, call.inputs[0], axis, "a convolution mixes these positions")
    if layer.groups > 1:
        out = _grouped(call, vector)
        check_activation(call, layer.activation, (out,))
        return like_output(call, axis, out)
    out = call.produce(layer.filters)
    check_activation(call, layer.activation, (out,))
    call.bind(layer.kernel, {-2: (vector, "consumed"), -1: (out, "produced")})
    call.bind(layer.bias, {0: (out, "produced")})
    call.size("filters", out)
    call.count_macs(_positions(call, axis) * math.prod(layer.kernel_size), length(call, axis), out)
    return like_output(call, axis, out)


def _positions(call: Call, axis: int) -> float:
    return product(replace_axis(call.output_shapes[0], axis, 1))  # type: ignore[arg-type]


def _grouped(call: Call, vector: Vector | None) -> Vector:
    """A grouped convolution stays one only if every group keeps the same number of channels on each side.

    Either whole groups go, input and output together, or the same positions within every group. The first keeps the
    width of the groups and is taken where there are more groups than channels in one.
    """
    layer = call.layer
    groups, width, out_width = layer.groups, layer.kernel.shape[-2], layer.filters // layer.groups
    why = f"grouped convolution {call.name!r} of channels that stay"
    axis = channel_axis(layer)
    spatial = _positions(call, axis) * math.prod(layer.kernel_size)
    if vector is not None and groups >= width:
        by_group = vector.reshape(groups, width)
        for position in range(1, width):
            call.unite(by_group[:, 0], by_group[:, position], why)
        whole = by_group[:, 0]
        out = np.repeat(whole, out_width)
        call.bind(layer.kernel, {-1: (out, "followed")})
        call.bind(layer.bias, {0: (out, "followed")})
        call.size("groups", whole)
        call.size("filters", out)
        call.count_macs(spatial * width, out)
        return out
    if vector is not None:
        by_group = vector.reshape(groups, width)
        for group in range(1, groups):
            call.unite(by_group[0], by_group[group], why)
        vector = by_group[0]
    positions = call.produce(out_width)
    out = np.tile(positions, groups)
    call.bind(layer.kernel, {-2: (vector, "consumed"), -1: (out, "produced")})
    call.bind(layer.bias, {0: (out, "produced")})
    call.size("filters", out)
    call.count_macs(spatial, width if vector is None else vector, out)
    return out


@register("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "Convolution2DTranspose")
def transposed_convolution(call: Call) -> Axes:
    layer, axis = call.layer, channel_axis(call.layer)
    vector = freeze_others(call, call.inputs[0], axis, "a convolution mixes these positions")
    out = call.produce(layer.filters)
    check_activation(call, layer.activation, (out,))
    call.bind(layer.kernel, {-2: (out, "produced"), -1: (vector, "consumed")})
    call.bind(layer.bias, {0: (out, "produced")})
    call.size("filters", out)
    positions = product(replace_axis(call.input_shapes[0], axis, 1))  # type: ignore[arg-type]
    call.count_macs(positions * math.prod(layer.kernel_size), length(call, axis), out)
    return like_output(call, axis, out)


@register("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_convolution(call: Call) -> Axes:
    layer, axis = call.layer, channel_axis(call.layer)
    vector = freeze_others(call, call.inputs[0], axis, "a convolution mixes these positions")
    out = None if vector is None else np.repeat(vector, layer.depth_multiplier)
    check_activation(call, layer.activation, (out,))
    call.bind(layer.depthwise_kernel, {-2: (vector, "followed")})
    call.bind(layer.bias, {0: (out, "followed")})
    channels = call.output_shapes[0][axis] if out is None else out
    call.count_macs(_positions(call, axis) * math.prod(layer.kernel_size), channels)
    return like_output(call, axis, out)


@register("SeparableConv1D", "SeparableConv2D")
def separable_convolution(call: Call) -> Axes:
    layer, axis = call.layer, channel_axis(call.layer)
    vector = freeze_others(call, call.inputs[0], axis, "a convolution mixes these positions")
    middle = None if vector is None else np.repeat(vector, layer.depth_multiplier)
    out = call.produce(layer.filters)
    check_activation(call, layer.activation, (out,))
    call.bind(layer.depthwise_kernel, {-2: (vector, "followed")})
    call.bind(layer.pointwise_kernel, {-2: (middle, "consumed"), -1: (out, "produced")})
    call.bind(layer.bias, {0: (out, "produced")})
    call.size("filters", out)
    width = int(layer.pointwise_kernel.shape[-2]) if middle is None else middle
    call.count_macs(_positions(call, axis) * math.prod(layer.kernel_size), width)
    call.count_macs(_positions(call, axis), width, out)
    return like_output(call, axis, out)


@register("Dense")
def dense(call: Call) -> Axes:
    """Sums over the last axis; whatever varies along the others passes through."""
    layer, axes = call.layer, call.inputs[0]
    out = call.produce(layer.units)
    check_activation(call, layer.activation, (*axes[:-1], out))
    call.bind(layer.kernel, {0: (axes[-1], "consumed"), 1: (out, "produced")})
    call.bind(layer.bias, {0: (out, "produced")})
    call.size("units", out)
    call.count_macs(1.0, *lengths(axes, call.input_shapes[0]), out)
    return (*axes[:-1], out)


@register("Embedding")
def embedding(call: Call) -> Axes:
    out = call.produce(call.layer.output_dim)
    call.bind(call.layer.embeddings, {1: (out, "produced")})
    call.size("output_dim", out)
    return (*call.inputs[0], out)


@register("BatchNormalization", "SyncBatchNormalization")
def batch_normalization(call: Call) -> Axes:
    layer, axes = call.layer, call.inputs[0]
    axis = _single_axis(call)
    vector = freeze_others(call, axes, axis, "batch normalization averages over these positions")
    for variable in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        call.bind(variable, {0: (vector, "followed")})
    return axes


def _single_axis(call: Call) -> int:
    return without_batch(as_list(call.layer.axis)[0])


@register("LayerNormalization")
def layer_normalization(call: Call) -> Axes:
    """Removing a channel would change mean and variance for the others; other axes pass through."""
    layer, axes = call.layer, call.inputs[0]
    for axis in map(without_batch, as_list(layer.axis)):
        call.freeze([axes[axis]], f"{type(layer).__name__} {call.name!r} mixes all channels")
    return axes


@register("GroupNormalization")
def group_normalization(call: Call) -> Axes:
    """Each group is normalized by itself, so whole groups can go."""
    layer, axes, axis = call.layer, call.inputs[0], _single_axis(call)
    call.freeze(replace_axis(axes, axis, None), f"GroupNormalization {call.name!r} averages over these positions")
    vector = axes[axis]
    if vector is None:
        return axes
    groups = layer.groups if layer.groups != -1 else len(vector)
    if groups == 1:
        call.freeze([vector], f"GroupNormalization {call.name!r} with one group mixes all channels")
    by_group = vector.reshape(groups, -1)
    for position in range(1, by_group.shape[1]):
        call.unite(by_group[:, 0], by_group[:, position], f"GroupNormalization {call.name!r} of channels that stay")
    call.bind(layer.gamma, {0: (vector, "followed")})
    call.bind(layer.beta, {0: (vector, "followed")})
    if layer.get_config()["groups"] != -1:
        call.size("groups", by_group[:, 0])
    return axes


@register("UnitNormalization")
def unit_normalization(call: Call) -> Axes:
    """The norm is a sum over channels, to which a removed channel adds nothing."""
    axes = call.inputs[0]
    for position in map(without_batch, as_list(call.layer.axis)):
        # Counted from the end, it stays right behind the time axis of a wrapper.
        call.mask(0, position % len(axes) - len(axes), axes[position])
    return axes


@register("Normalization")
def normalization(call: Call) -> Axes:
    call.freeze(call.inputs[0], f"Normalization {call.name!r} holds statistics for each of them")
    return call.inputs[0]


@register("PReLU")
def prelu(call: Call) -> Axes:
    axes, alpha = call.inputs[0], call.layer.alpha
    call.bind(alpha, {i: (v, "followed") for i, v in enumerate(axes) if alpha.shape[i] != 1})
    return axes


@register("Softmax")
def softmax(call: Call) -> Axes:
    axes = call.inputs[0]
    given = map(without_batch, as_list(call.layer.axis))
    call.freeze([axes[axis] for axis in given], f"softmax normalises over these channels ({call.name!r})")
    return axes


@register("Activation")
def activation(call: Call) -> Axes:
    check_activation(call, call.layer.activation, call.inputs[0])
    return call.inputs[0]


@register(*UNCHANGED)
def unchanged(call: Call) -> Axes:
    """One value in, one value out, by position. A noise shape that names a number of channels must keep it."""
    noise = noise_shape_of(call.layer, 1 + len(call.inputs[0]))
    if noise:
        sized = tuple(
            None if size in (None, 1) else vector for size, vector in zip(noise[1:], call.inputs[0], strict=True)
        )
        call.freeze(sized, f"the noise shape of Dropout {call.name!r} names their number")
    return call.inputs[0]


@register("Masking")
def masking(call: Call) -> Axes:
    """Skips the steps at which every channel has one value."""
    call.freeze(call.inputs[0], f"Masking {call.name!r} looks at all of them")
    return call.inputs[0]


@register("Rescaling")
def rescaling(call: Call) -> Axes:
    values = (np.asarray(call.layer.scale), np.asarray(call.layer.offset))
    if any(value.size > 1 for value in values):
        call.freeze([call.inputs[0][-1]], f"Rescaling {call.name!r} has a constant for each channel")
    return call.inputs[0]


@register("LayerScale")
def layer_scale(call: Call) -> Axes:
    """ConvNeXt's learned factor per channel."""
    vector = call.inputs[0][-1]
    call.bind(call.layer.gamma, {0: (vector, "followed")})
    call.size("projection_dim", vector)
    return call.inputs[0]
