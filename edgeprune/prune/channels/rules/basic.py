"""How units pass through each layer: one table, keyed by layer class name.

A rule takes a :class:`~edgeprune.prune.channels.graph.Call`, binds the weights, and returns the axes of each output. A
new layer is a new entry, never an edit of the walk: see :func:`register`. What has no entry freezes the units that
reach it.

Keys are class names, looked up along the class's ancestors, because one name may stand for a class in several modules
(``tf_keras.layers``, ``tf_keras.applications``, tfmot).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from edgeprune.prune.channels.graph import Axes, Call
from edgeprune.prune.channels.units import Vector

Rule = Callable[[Call], "Axes | list[Axes]"]
AnyRule = TypeVar("AnyRule", bound=Rule)

RULES: dict[str, Rule] = {}


def register(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Enter a rule for layer classes of these names."""

    def enter(rule: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return enter


def apply_rule(call: Call) -> list[Axes]:
    """The axes of each output of a call."""
    _load_tables()
    found = (_shared if call.name in call.graph.sharing else find_rule(call.layer) or _unknown)(call)
    return found if isinstance(found, list) else [found]


def find_rule(layer: Any) -> Rule | None:
    """The rule of a layer's class or of its nearest ancestor that has one.

    A class from elsewhere may compute anything, whatever its name or its ancestors are: only a rule from elsewhere, for
    its very name, speaks for it.
    """
    own = RULES.get(type(layer).__name__)
    if not _is_known(type(layer)):
        return own if own is not None and not _is_known(own) else None
    return next((RULES[cls.__name__] for cls in type(layer).__mro__ if cls.__name__ in RULES), None)


def _is_known(thing: Any) -> bool:
    return thing.__module__.split(".")[0] in ("tf_keras", "edgeprune")


def _load_tables() -> None:
    """The other tables enter themselves when they are imported."""
    from edgeprune.prune.channels.rules import attention as rules_attention  # noqa: F401


def _unknown(call: Call) -> list[Axes]:
    return opaque(call, f"no channel rule for {type(call.layer).__name__} (layer {call.name!r})")


def _shared(call: Call) -> list[Axes]:
    return opaque(call, f"{call.name!r} shares weights with {call.graph.sharing[call.name]!r}")


def opaque(call: Call, reason: str) -> list[Axes]:
    """Nothing that goes into the call can be removed, and nothing that comes out of it."""
    for axes in call.inputs:
        call.freeze(axes, reason)
    return [(None,) * len(shape) for shape in call.output_shapes]


def channel_axis(layer: Any) -> int:
    """The channel axis among the axes without batch."""
    return 0 if getattr(layer, "data_format", None) == "channels_first" else -1


def without_batch(axis: int) -> int:
    """An axis as Keras counts it, among the axes without the batch; one that is counted from the end stays."""
    return axis - 1 if axis > 0 else axis


def as_list(axis: Any) -> list[Any]:
    """One axis, or several."""
    return list(axis) if isinstance(axis, list | tuple) else [axis]


def lengths(axes: Axes, shape: tuple[int | None, ...]) -> list[Vector | int]:
    """What to count along each axis: the vector, or the fixed length; an axis of unknown size counts once."""
    return [size or 1 if vector is None else vector for vector, size in zip(axes, shape, strict=True)]


def length(call: Call, axis: int) -> Vector | int:
    """What to count along an axis of the first input."""
    return lengths(call.inputs[0], call.input_shapes[0])[axis]


def is_batch(axis: int, rank: int) -> bool:
    """Whether an axis as Keras counts it is that of the samples; ``rank`` is without it."""
    return axis % (rank + 1) == 0


def replace_axis(axes: Axes, axis: int, vector: Vector | None) -> Axes:
    """``axes`` with another vector along one axis."""
    changed = list(axes)
    changed[axis] = vector
    return tuple(changed)


def freeze_others(call: Call, axes: Axes, axis: int, why: str) -> Vector | None:
    """Freeze what varies along any axis but ``axis`` (a convolution mixes positions); returns the vector along it."""
    call.freeze(replace_axis(axes, axis, None), f"{why} (layer {call.name!r})")
    return axes[axis]


def like_output(call: Call, axis: int, vector: Vector | None) -> Axes:
    """The output's axes when only one of them is followed."""
    return replace_axis((None,) * len(call.output_shapes[0]), axis, vector)


def product(shape: Sequence[int | None]) -> float:
    """Elements of a shape; an axis of unknown size counts once."""
    return float(math.prod(size or 1 for size in shape))


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
    noise = getattr(call.layer, "noise_shape", None)
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
