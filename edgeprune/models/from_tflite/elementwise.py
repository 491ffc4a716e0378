"""Operators that compute element by element, with broadcasting, and the activations fused into others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeprune.models.from_tflite.call import Call, Value
from edgeprune.models.from_tflite.convolutions import image
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.models.graph import is_symbolic
from edgeprune.models.types import Tensor


def _relu(call: Call, tensor: Tensor) -> Tensor:
    return call.emit.layer("ReLU", tensor)


def _relu6(call: Call, tensor: Tensor) -> Tensor:
    return call.emit.layer("ReLU", tensor, max_value=6.0)


def _clipped(low: float, high: float) -> Callable[[Call, Tensor], Tensor]:
    """``maximum(minimum(x, high), low)``, which the converter makes one operator of."""

    def clip(call: Call, tensor: Tensor) -> Tensor:
        return call.emit.op("maximum", call.emit.op("minimum", tensor, high, suffix="min"), low)

    return clip


def _activation(name: str) -> Callable[[Call, Tensor], Tensor]:
    def activate(call: Call, tensor: Tensor) -> Tensor:
        return call.emit.layer("Activation", tensor, activation=name)

    return activate


def _op(symbol: str) -> Callable[[Call, Tensor], Tensor]:
    def compute(call: Call, tensor: Tensor) -> Tensor:
        return call.emit.op(symbol, tensor)

    return compute


def _hard_swish(call: Call, tensor: Tensor) -> Tensor:
    """In the form that the converter makes one operator of."""
    gate = call.emit.layer("ReLU", call.emit.op("math.add", tensor, 3.0, suffix="shift"), "gate", max_value=6.0)
    return call.emit.op("math.multiply", call.emit.op("math.multiply", tensor, gate, suffix="gated"), 1 / 6)


FUSED: Mapping[str, Callable[[Call, Tensor], Tensor]] = {
    "NONE": lambda call, tensor: tensor,
    "RELU": _relu,
    "RELU6": _relu6,
    "RELU_N1_TO_1": _clipped(-1.0, 1.0),
    "TANH": _activation("tanh"),
}
_UNARY: Mapping[str, Callable[[Call, Tensor], Tensor]] = {
    "RELU": _relu,
    "RELU6": _relu6,
    "RELU_N1_TO_1": _clipped(-1.0, 1.0),
    "RELU_0_TO_1": _clipped(0.0, 1.0),
    "LOGISTIC": _activation("sigmoid"),
    "TANH": _activation("tanh"),
    "ELU": _activation("elu"),
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": lambda call, tensor: call.emit.layer("LeakyReLU", tensor, alpha=float(call.option("alpha", 0.0))),
    "GELU": lambda call, tensor: call.emit.op("nn.gelu", tensor, approximate=bool(call.option("approximate", False))),
    "ABS": _op("math.abs"),
    "CEIL": _op("math.ceil"),
    "COS": _op("math.cos"),
    "EXP": _op("math.exp"),
    "FLOOR": _op("math.floor"),
    "LOG": _op("math.log"),
    "LOGICAL_NOT": _op("math.logical_not"),
    "NEG": _op("math.negative"),
    "ROUND": _op("math.round"),
    "RSQRT": _op("math.rsqrt"),
    "SIGN": _op("math.sign"),
    "SIN": _op("math.sin"),
    "SQRT": _op("math.sqrt"),
    "SQUARE": _op("math.square"),
    "ZEROS_LIKE": _op("zeros_like"),
    "COMPLEX_ABS": _op("math.abs"),
    "REAL": _op("math.real"),
    "IMAG": _op("math.imag"),
}


@rule(*_UNARY)
def unary(call: Call) -> Value:
    value = call.value(0)
    if value.constant is not None:
        return call.made(_UNARY[call.operator.name](call, call.symbolic(value)), whole=True)
    assert value.tensor is not None
    return Value(value.shape, _UNARY[call.operator.name](call, value.tensor))


# Operator → the layer for two tensors, where there is one, and the operation.
_BINARY: Mapping[str, tuple[str | None, str]] = {
    "ADD": ("Add", "math.add"),
    "SUB": ("Subtract", "math.subtract"),
    "MUL": ("Multiply", "math.multiply"),
    "DIV": (None, "math.divide"),
    "MAXIMUM": ("Maximum", "maximum"),
    "MINIMUM": ("Minimum", "minimum"),
    "POW": (None, "pow"),
    "SQUARED_DIFFERENCE": (None, "math.squared_difference"),
    "FLOOR_DIV": (None, "math.floordiv"),
    "FLOOR_MOD": (None, "math.floormod"),
    "ATAN2": (None, "math.atan2"),
    "EQUAL": (None, "equal"),
    "NOT_EQUAL": (None, "not_equal"),
    "GREATER": (None, "greater"),
    "GREATER_EQUAL": (None, "greater_equal"),
    "LESS": (None, "less"),
    "LESS_EQUAL": (None, "less_equal"),
    "LOGICAL_AND": (None, "math.logical_and"),
    "LOGICAL_OR": (None, "math.logical_or"),
    "BITWISE_XOR": (None, "bitwise.bitwise_xor"),
    "RIGHT_SHIFT": (None, "bitwise.right_shift"),
}


@rule(*_BINARY)
def binary(call: Call) -> Value:
    (left, right), whole = call.aligned([call.value(0), call.value(1)])
    layer, symbol = _BINARY[call.operator.name]
    both = is_symbolic(left) and is_symbolic(right)
    if layer and both and left is not right and left.dtype == right.dtype:
        made = call.emit.layer(layer, [left, right])
    else:
        made = call.emit.op(symbol, _plain(left), _plain(right))
    return call.made(call.activated(made) if call.operator.name in ("ADD", "SUB", "MUL", "DIV") else made, whole)


def _plain(value: Any) -> Any:
    """A constant with one element as a number: it says nothing about channels."""
    return value.reshape(()).tolist() if isinstance(value, np.ndarray) and value.size == 1 else value


@rule("ADD_N")
def add_n(call: Call) -> Value:
    tensors, whole = call.aligned([call.value(position) for position in range(len(call.inputs))])
    return call.made(call.emit.op("add_n", tensors), whole)


@rule("SELECT", "SELECT_V2")
def select(call: Call) -> Value:
    values = [call.value(position) for position in range(3)]
    if call.operator.name == "SELECT" and len(values[0].shape) < len(values[1].shape):
        values[0] = call.reshaped(values[0], (*values[0].shape, *(1,) * (len(values[1].shape) - len(values[0].shape))))
    tensors, whole = call.aligned(values)
    return call.made(call.emit.op("where", *map(_plain, tensors)), whole)


@rule("PRELU")
def prelu(call: Call) -> Value:
    """A PReLU layer, whose slopes are weights; axes with one slope are shared."""
    value, slopes = call.value(0), call.constant(1, "slope")
    rank = len(value.shape)
    slopes = slopes.reshape((*(1,) * (rank - slopes.ndim), *slopes.shape))
    if not value.has_batch or slopes.shape[0] != 1 or rank < 2:
        raise NoRule(f"has slopes of shape {list(slopes.shape)} for {list(value.shape)}", "the same for each sample")
    shared = [axis for axis in range(1, rank) if slopes.shape[axis] == 1]
    return Value(value.shape, call.weighted("PReLU", call.symbolic(value), [slopes[0]], shared_axes=shared or None))


@rule("SOFTMAX", "LOG_SOFTMAX")
def softmax(call: Call) -> Value:
    (tensor,), whole = call.along([call.value(0)], [-1])
    beta = float(call.option("beta", 1.0) if call.operator.name == "SOFTMAX" else 1.0)
    if beta != 1:
        tensor = call.emit.op("math.multiply", tensor, beta, suffix="beta")
    if call.operator.name == "LOG_SOFTMAX":
        return call.made(call.emit.op("nn.log_softmax", tensor), whole)
    return call.made(call.emit.layer("Activation", tensor, activation="softmax"), whole)


@rule("L2_NORMALIZATION")
def l2_normalization(call: Call) -> Value:
    (tensor,), whole = call.along([call.value(0)], [-1])
    return call.made(call.activated(call.emit.op("math.l2_normalize", tensor, -1)), whole)


@rule("LOCAL_RESPONSE_NORMALIZATION")
def local_response_normalization(call: Call) -> Tensor:
    options: dict[str, Any] = {name: float(call.option(name, 0.0)) for name in ("bias", "alpha", "beta")}
    symbol = "nn.local_response_normalization"
    return call.emit.op(symbol, image(call), depth_radius=int(call.option("radius", 0)), **options)
