"""Multiply-accumulates of layers: one table of rules.

Counted, as is the field's convention, are the products of the linear operations (convolutions, matrix products) for a
batch of one; a multiply-accumulate is one multiplication with its addition, so twice as many floating point operations.
Biases, normalization, activations, pooling, padding, resizing and elementwise arithmetic count nothing: they are
folded away or small. Zeros in the weights count like any number: a MAC saved is one that the kernel does not execute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from edgeprune.models.graph import is_graph, symbol_of
from edgeprune.models.shapes import CallShapes, Shape, calls
from edgeprune.models.types import Layer, Variable

# (layer, shapes of one of its calls) -> multiply-accumulates of the call; None where they are not known.
MacsRule = Callable[[Layer, CallShapes], int | None]


class UnknownShape(Exception):
    """A dimension that the count needs is not fixed in the model."""


def layer_macs(layer: Layer, call: CallShapes) -> int | None:
    """Multiply-accumulates of one call of ``layer`` on one sample; ``None`` where no rule knows.

    The rule is that of the layer's class, or of the nearest base class that has one, so a subclass of ``Conv2D`` counts
    as a convolution. A tf_keras layer without a rule and without a weight matrix counts nothing.

    Raises:
        UnknownShape: a dimension of the call is not fixed.
    """
    if is_graph(layer):
        return _total(layer_macs(part, its_call) for _, part, its_call in calls(layer, call.inputs))
    for base in type(layer).__mro__:
        if base.__name__ in MAC_RULES:
            return MAC_RULES[base.__name__](layer, call)
    plain = type(layer).__module__.split(".")[0] == "tf_keras" and all(len(w.shape) < 2 for w in layer.weights)
    return 0 if plain else None


def _size(shape: Shape) -> int:
    if None in shape:
        raise UnknownShape(shape)
    return math.prod(shape)  # type: ignore[arg-type]


def _weights(*variables: Variable) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _nothing(layer: Layer, call: CallShapes) -> int:
    return 0


def _unknown(layer: Layer, call: CallShapes) -> None:
    return None


def _conv(layer: Layer, call: CallShapes) -> int:
    """Every output position takes the whole kernel once; with groups, the kernel holds the inputs of one group."""
    return _size(call.output) // layer.filters * _weights(layer.kernel)


def _conv_transpose(layer: Layer, call: CallShapes) -> int:
    """Every input position spreads over the whole kernel once; what 'same' padding crops away is computed too."""
    return _size(call.inputs[0]) * layer.filters * math.prod(layer.kernel_size)


def _depthwise(layer: Layer, call: CallShapes) -> int:
    """Every output value takes the kernel of its channel once."""
    return _size(call.output) * math.prod(layer.kernel_size)


def _separable(layer: Layer, call: CallShapes) -> int:
    return _size(call.output) // layer.filters * _weights(layer.depthwise_kernel, layer.pointwise_kernel)


def _locally_connected(layer: Layer, call: CallShapes) -> int:
    axis = 0 if layer.data_format == "channels_first" else -1
    channels = call.inputs[0][axis]
    return _size(call.output) * math.prod(layer.kernel_size) * _size((channels,))


def _dense(layer: Layer, call: CallShapes) -> int:
    return _size(call.inputs[0]) * layer.units


def _einsum_dense(layer: Layer, call: CallShapes) -> int:
    """Every input value meets each kernel index that the input does not have; ``ab,bc->ac``: c."""
    data, kernel = layer.equation.split("->")[0].split(",")
    sizes = zip(kernel.replace("...", ""), layer.kernel.shape, strict=True)
    return _size(call.inputs[0]) * math.prod(size for index, size in sizes if index not in data)


def _rnn(layer: Layer, call: CallShapes) -> int | None:
    """Per step, every weight of the input and recurrent kernels once; the gates' elementwise products are left out."""
    cells = getattr(layer.cell, "cells", [layer.cell])
    if layer.time_major or not all(hasattr(cell, "recurrent_kernel") for cell in cells):
        return None
    steps = _size(call.inputs[0][:1])
    return steps * sum(_weights(cell.kernel, cell.recurrent_kernel) for cell in cells)


def _conv_rnn(layer: Layer, call: CallShapes) -> int:
    """Per step and position of the state, both kernels once."""
    state = call.output[1:] if layer.return_sequences else call.output
    steps = _size(call.inputs[0][:1])
    return steps * (_size(state) // layer.filters) * _weights(layer.cell.kernel, layer.cell.recurrent_kernel)


def _bidirectional(layer: Layer, call: CallShapes) -> int | None:
    return _total(layer_macs(direction, call) for direction in (layer.forward_layer, layer.backward_layer))


def _time_distributed(layer: Layer, call: CallShapes) -> int | None:
    steps = _size(call.inputs[0][:1])
    once = layer_macs(layer.layer, CallShapes(tuple(shape[1:] for shape in call.inputs), call.output[1:]))
    return None if once is None else steps * once


def _wrapper(layer: Layer, call: CallShapes) -> int | None:
    return layer_macs(layer.layer, call)


def _multi_head_attention(layer: Layer, call: CallShapes) -> int:
    """Projections of query, key, value and output; scores and weighted sums per head over the attended axes."""
    config = layer.get_config()
    heads, key_dim = config["num_heads"], config["key_dim"]
    value_dim = config["value_dim"] or key_dim
    query, *others = call.inputs
    value = others[0] if others else call.named["value"]
    key = others[1] if len(others) > 1 else call.named.get("key", value)
    rank = len(query) + 1
    axes = config["attention_axes"] or range(1, rank - 1)
    attended = [axis % rank - 1 for axis in ([axes] if isinstance(axes, int) else axes)]
    targets = _size(query[:-1])
    sources = _size(tuple(value[axis] for axis in attended))
    projections = (_size(query) + _size(key)) * heads * key_dim + _size(value) * heads * value_dim
    attention = heads * targets * sources * (key_dim + value_dim)
    return projections + attention + _size(call.output) * heads * value_dim


def _attention(layer: Layer, call: CallShapes) -> int:
    """Scores of every query with every key, and the weighted sum of the values (Attention, AdditiveAttention)."""
    query, value, *rest = call.inputs
    key = rest[0] if rest else value
    return _size(query[:-1]) * (_size(key) + _size((key[0], value[-1])))


def _dot(layer: Layer, call: CallShapes) -> int:
    axis = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    first = call.inputs[0]
    return _size(call.output) * _size((first[axis % (len(first) + 1) - 1],))


def _operation(layer: Layer, call: CallShapes) -> int | None:
    """A TensorFlow function called on Keras tensors; elementwise ones count nothing."""
    symbol = symbol_of(layer).split(".")[-1]
    return _OPERATIONS.get(symbol, _unknown if "conv" in symbol else _nothing)(layer, call)


def _einsum(layer: Layer, call: CallShapes) -> int | None:
    """Each combination of the indices once, the batch's aside."""
    operands = call.equation.replace(" ", "").split("->")[0].split(",") if call.equation else []
    if len(operands) != len(call.inputs) or len(operands) < 2 or any("." in operand for operand in operands):
        return None
    sizes: dict[str, int | None] = {}
    for operand, shape in zip(operands, call.inputs, strict=True):
        sizes.update(zip(operand[1:], shape, strict=True))
    return _size(tuple(sizes.values()))


def _matmul(layer: Layer, call: CallShapes) -> int | None:
    """Every output value takes one row; its length follows from the shapes, transposed or not."""
    if not call.inputs:
        return None
    first = call.inputs[0]
    if len(first) == 1:
        return _size(call.output) * _size(first)
    rows = call.output[-2]
    return _size(call.output) * _size(first[-2:]) // _size((rows,)) if rows in first[-2:] else None


def _total(parts: Iterable[int | None]) -> int | None:
    """The sum, unknown when one part is."""
    total = 0
    for part in parts:
        if part is None:
            return None
        total += part
    return total


_OPERATIONS: dict[str, MacsRule] = {
    "einsum": _einsum,
    "matmul": _matmul,
    "tensordot": _unknown,
    "matvec": _unknown,
}

# By the name of the layer's class, so that reading the table does not import TensorFlow.
MAC_RULES: dict[str, MacsRule] = {
    "Conv": _conv,
    "DepthwiseConv": _depthwise,
    "SeparableConv": _separable,
    "Conv1DTranspose": _conv_transpose,
    "Conv2DTranspose": _conv_transpose,
    "Conv3DTranspose": _conv_transpose,
    "LocallyConnected1D": _locally_connected,
    "LocallyConnected2D": _locally_connected,
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "RNN": _rnn,
    "ConvLSTM": _conv_rnn,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "Wrapper": _wrapper,
    "MultiHeadAttention": _multi_head_attention,
    "BaseDenseAttention": _attention,
    "Dot": _dot,
    "TFOpLambda": _operation,
    "Lambda": _unknown,
    # Tables and elementwise layers whose weights have two or more dimensions.
    "Embedding": _nothing,
    "PReLU": _nothing,
    "Normalization": _nothing,
    "BatchNormalizationBase": _nothing,
    "LayerNormalization": _nothing,
}
