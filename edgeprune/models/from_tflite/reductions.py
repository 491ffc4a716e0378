"""Pooling, sums and the like over axes, the largest of several, and Fourier transforms."""

from __future__ import annotations

from typing import Any

from edgeprune.models.from_tflite.call import Call, Value
from edgeprune.models.from_tflite.convolutions import image, padding_of, rows_and_columns
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.models.types import Tensor


@rule("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool(call: Call) -> Value:
    kind = "MaxPooling2D" if call.operator.name == "MAX_POOL_2D" else "AveragePooling2D"
    return Value.of_tensor(call.activated(_pooled(call, image(call), kind)))


def _pooled(call: Call, tensor: Tensor, kind: str) -> Tensor:
    size = rows_and_columns(call, "filter_{}", ("height", "width"))
    strides = rows_and_columns(call, "stride_{}")
    return call.emit.layer(kind, tensor, pool_size=size, strides=strides, padding=padding_of(call))


@rule("L2_POOL_2D")
def l2_pool(call: Call) -> Value:
    """The root of the mean of the squares."""
    squares = call.emit.op("math.square", image(call), suffix="square")
    made = call.emit.op("math.sqrt", _pooled(call, squares, "AveragePooling2D"))
    return Value.of_tensor(call.activated(made))


# Operator → the operation, and the layer for a mean over the positions of an image.
_REDUCTIONS = {
    "MEAN": "math.reduce_mean",
    "SUM": "math.reduce_sum",
    "REDUCE_MAX": "math.reduce_max",
    "REDUCE_MIN": "math.reduce_min",
    "REDUCE_PROD": "math.reduce_prod",
    "REDUCE_ANY": "math.reduce_any",
    "REDUCE_ALL": "math.reduce_all",
}
_GLOBAL = {"MEAN": "GlobalAveragePooling2D", "REDUCE_MAX": "GlobalMaxPooling2D"}


@rule(*_REDUCTIONS)
def reduce(call: Call) -> Value:
    value, name = call.value(0), call.operator.name
    rank, keep = len(value.shape), bool(call.option("keep_dims", False))
    axes = sorted({axis % max(rank, 1) for axis in call.integers(1, "axes")})
    if not axes:
        return value
    if value.has_batch and rank == 4 and axes == [1, 2] and name in _GLOBAL:
        return Value.of_tensor(call.emit.layer(_GLOBAL[name], call.symbolic(value), keepdims=keep))
    (tensor,), whole = call.along([value], axes)
    made = call.emit.op(_REDUCTIONS[name], tensor, [axis + whole for axis in axes], keepdims=keep)
    return call.made(made, whole)


@rule("ARG_MAX", "ARG_MIN")
def arg_max(call: Call) -> Value:
    value = call.value(0)
    (axis,) = call.integers(1, "axis")
    axis %= len(value.shape)
    (tensor,), whole = call.along([value], [axis])
    symbol = "math.argmax" if call.operator.name == "ARG_MAX" else "math.argmin"
    return call.made(call.emit.op(symbol, tensor, axis=axis + whole, output_type=call.output().dtype), whole)


@rule("CUMSUM")
def cumsum(call: Call) -> Value:
    value = call.value(0)
    (axis,) = call.integers(1, "axis")
    axis %= len(value.shape)
    (tensor,), whole = call.along([value], [axis])
    options: dict[str, Any] = {
        "exclusive": bool(call.option("exclusive", False)),
        "reverse": bool(call.option("reverse", False)),
    }
    return call.made(call.emit.op("math.cumsum", tensor, axis=axis + whole, **options), whole)


@rule("TOPK_V2")
def top_k(call: Call) -> list[Value]:
    value = call.value(0)
    (count,) = call.integers(1, "number")
    if not 0 < count <= value.shape[-1]:
        raise NoRule(f"picks {count} of {value.shape[-1]}", "at most as many as there are")
    (tensor,), whole = call.along([value], [-1])
    values, indices = call.emit.op("math.top_k", tensor, k=count)
    return [call.made(values, whole), call.made(indices, whole)]


@rule("RFFT2D")
def rfft2d(call: Call) -> Value:
    """The Fourier transform over the last two axes, of real values; its result is complex."""
    sizes = call.integers(1, "sizes")
    (tensor,), whole = call.along([call.value(0)], [-1, -2])
    return call.made(call.emit.op("signal.rfft2d", tensor, sizes), whole)
