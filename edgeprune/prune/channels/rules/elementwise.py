"""Channel rules of TensorFlow operations that compute element by element."""

from __future__ import annotations

import numpy as np

from edgeprune.models.graph import is_symbolic
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes
from edgeprune.prune.channels.rules.axes import as_list, is_batch, without_batch
from edgeprune.prune.channels.rules.ops import argument, op, path_to, refuse
from edgeprune.prune.channels.rules.shape import broadcast, meet_constants


@op(
    "nn.relu", "nn.relu6", "nn.leaky_relu", "nn.elu", "nn.gelu", "nn.silu", "nn.swish", "nn.sigmoid", "math.sigmoid",
    "sigmoid", "math.tanh", "tanh", "nn.tanh", "nn.softplus", "math.softplus", "nn.selu", "math.exp", "exp", "math.abs",
    "abs", "math.sqrt", "sqrt", "math.rsqrt", "math.square", "square", "math.negative", "negative", "math.log",
    "__operators__.neg", "__operators__.abs", "cast", "identity", "clip_by_value", "nn.dropout", "stop_gradient",
    "math.erf", "math.sin", "math.cos", "math.tan", "math.sign", "math.floor", "math.ceil", "math.round", "math.log1p",
    "math.expm1", "math.reciprocal", "math.log_sigmoid", "nn.softsign", "math.logical_not", "zeros_like", "ones_like",
    "math.acos", "math.asin", "math.atan", "math.acosh", "math.asinh", "math.atanh", "math.sinh", "math.cosh",
    "math.erfinv", "math.is_nan", "math.is_inf", "math.is_finite",
)  # fmt: skip
def elementwise(call: Call) -> Axes:
    """One value in, one value out. Bounds and the like are numbers: they do not come with channels of their own."""
    if len(call.inputs) > 1:
        return refuse(call, "takes more than one tensor")
    if any(
        np.ndim(value) for value in (*call.node.call_args, *call.node.call_kwargs.values()) if not is_symbolic(value)
    ):
        return refuse(call, "has an argument that is not a number")
    return call.inputs[0]


@op(
    "math.add", "math.subtract", "math.multiply", "math.divide", "math.maximum", "math.minimum", "math.truediv", "add",
    "subtract", "multiply", "divide", "maximum", "minimum", "__operators__.add", "__operators__.sub",
    "__operators__.mul", "__operators__.truediv", "__operators__.div", "__operators__.radd", "__operators__.rsub",
    "__operators__.rmul", "__operators__.rtruediv", "math.pow", "pow", "__operators__.pow", "math.squared_difference",
    "math.floormod", "math.floordiv", "floor_div", "__operators__.mod", "__operators__.floordiv", "math.divide_no_nan",
    "math.equal", "math.not_equal", "math.greater", "math.less", "math.greater_equal", "math.less_equal", "equal",
    "not_equal", "greater", "less", "greater_equal", "less_equal", "__operators__.gt", "__operators__.ge",
    "__operators__.lt", "__operators__.le", "__operators__.eq", "__operators__.ne", "math.logical_and",
    "math.logical_or", "math.logical_xor", "math.atan2", "math.xdivy", "math.xlogy",
)  # fmt: skip
def binary(call: Call) -> Axes:
    """Two tensors, or a tensor and a constant; a constant with a value per channel is sliced along."""
    return _together(call, "x", "y")


@op("math.cumsum", "cumsum", "math.cumprod")
def cumulative(call: Call) -> Axes:
    """Each value along an axis depends on those before it; the others pass."""
    axes, axis = call.inputs[0], int(argument(call, 1, "axis", 0))
    if is_batch(axis, len(axes) + 1):
        return refuse(call, "accumulates over samples")
    position = without_batch(axis) % len(axes)
    call.freeze([axes[position]], f"{call.name!r} accumulates over these channels")
    return axes


@op("where")
def where(call: Call) -> Axes:
    """Whatever is chosen from, and what decides, loses the same channels."""
    if argument(call, 1, "x") is None:
        return refuse(call, "makes a list of positions")
    return _together(call, "condition", "x", "y")


def _together(call: Call, *names: str) -> Axes:
    """Tensors and constants under these names, with broadcasting."""
    axes, shape = broadcast(call, call.inputs, call.input_shapes)
    given = [(path_to(call, position, name), argument(call, position, name)) for position, name in enumerate(names)]
    return meet_constants(call, axes, shape, [(path, value) for path, value in given if not is_symbolic(value)])


@op("add_n", "math.add_n")
def add_n(call: Call) -> Axes:
    if len(call.inputs) != len(argument(call, 0, "inputs")):
        return refuse(call, "adds constants")
    return broadcast(call, call.inputs, call.input_shapes)[0]


@op("math.l2_normalize", "linalg.l2_normalize", "nn.l2_normalize")
def l2_normalize(call: Call) -> Axes:
    """The norm is a sum over channels, to which a removed channel adds nothing."""
    axes, given = call.inputs[0], as_list(argument(call, 1, "axis"))
    if None in given or 0 in given:
        return refuse(call, "normalizes over samples")
    for axis in given:
        position = without_batch(axis) % len(axes)
        call.mask(0, position, axes[position])
    return axes
