"""Layers as products of a matrix: what a layer reads, row by row, and the weights that it is multiplied by.

A convolution is the product of its patches with its kernel, a dense layer that of its inputs; what is refitted, zeroed
or rounded by moments (:mod:`edgeprune.reconstruction.moments`) is such a matrix. A layer that is not in the table, such
as a subclass, stays as it is.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.types import Layer, Node, Variable

if TYPE_CHECKING:
    import tensorflow as tf

Index = np.ndarray | None  # numbers of positions, int [rows]; None: all of them
Values = dict[int, Any]  # id of a tensor of the model → its value for one batch


def _first_input(node: Node, values: Values) -> tf.Tensor:
    return values[id(node.keras_inputs[0])]


def _same(channels: np.ndarray) -> np.ndarray:
    return channels


def _none(channels: np.ndarray) -> np.ndarray:
    """Of a product inside of a layer, whose columns do not follow the layer's output channels."""
    return channels[:0]


@dataclasses.dataclass(frozen=True)
class Product:
    """One weight of a layer, as the matrix that the rows of an input are multiplied by.

    Attributes:
        weight: the variable.
        bias: what is added to the product, per output; None: nothing is.
        rows: from the input of a call, and the numbers of the positions to look at (of all samples; None: all), to
            float32 [parts, rows, terms]: what is multiplied. A layer with groups has a part per group, a depthwise
            layer one per input channel; all others one.
        outputs: from the output of the layer without its activation, and the same numbers, to [parts, rows, columns].
        order: transposition of the weight that brings the parts first, then the terms, the columns last.
        parts: number of parts.
        columns: number of columns in a part.
        inner: what the product makes stays inside of the layer.
        read: from a call of the layer, and the values of what it reads, to what is multiplied.
        kept_columns: from the output channels of the layer that are kept, int, to the columns that are.
    """

    weight: Variable
    bias: Variable | None
    rows: Callable[[tf.Tensor, Index], tf.Tensor]
    outputs: Callable[[tf.Tensor, Index], tf.Tensor]
    order: tuple[int, ...]
    parts: int
    columns: int
    inner: bool = False
    read: Callable[[Node, Values], tf.Tensor] = _first_input
    kept_columns: Callable[[np.ndarray], np.ndarray] = _same

    def given(self, x: tf.Tensor, index: Index) -> np.ndarray:
        """The product of what is read, with the bias: float32 [parts, rows, columns]."""
        made = self.rows(x, index).numpy() @ self.matrix.astype(np.float32)
        return made if self.bias is None else made + self.bias.numpy().reshape(self.parts, 1, self.columns)

    @property
    def matrix(self) -> np.ndarray:
        """float64 [parts, terms, columns]."""
        return self.to_matrix(self.weight.numpy())

    def to_matrix(self, weight: np.ndarray) -> np.ndarray:
        """A value of the weight's shape as float64 [parts, terms, columns]."""
        turned = weight.astype(np.float64).transpose(self.order)
        if self._parts_in_columns:
            return np.moveaxis(turned.reshape(-1, self.parts, self.columns), 1, 0)
        return turned.reshape(self.parts, -1, self.columns)

    def to_weight(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`to_matrix`: [parts, terms, columns] in the weight's shape."""
        shape = [self.weight.shape[axis] for axis in self.order]
        if self._parts_in_columns:
            matrix = np.moveaxis(matrix, 0, 1)
        return matrix.reshape(shape).transpose(np.argsort(self.order))

    def assign(self, matrix: np.ndarray) -> None:
        """Set the weight."""
        self.weight.assign(self.to_weight(matrix).astype(self.weight.dtype.as_numpy_dtype))

    @property
    def _parts_in_columns(self) -> bool:
        """Groups split the output channels of a kernel, which are its last axis."""
        return self.parts > 1 and self.order == tuple(range(len(self.order)))


def product_of(layer: Layer) -> Product | None:
    """The product whose output is that of the layer, but for its activation; None where it is not in the table."""
    make = _TABLE.get(type(layer).__name__)
    return make(layer) if make and layer.built else None


def products_of(layer: Layer) -> tuple[Product, ...]:
    """The products in a layer, in the order in which each is the input of those behind it."""
    if own := product_of(layer):
        return (own,)
    make = _INNER.get(type(layer).__name__)
    return make(layer) if make and layer.built else ()


def _positions(x: tf.Tensor, index: Index) -> tf.Tensor:
    """[rows, channels] of [..., channels]."""
    import tensorflow as tf

    flat = tf.reshape(x, [-1, x.shape[-1]])
    return flat if index is None else tf.gather(flat, index)


def _flat(x: tf.Tensor, index: Index) -> tf.Tensor:
    return _positions(x, index)[None]


def _dense(layer: Layer) -> Product:
    return Product(layer.kernel, layer.bias, _flat, _flat, (0, 1), 1, layer.units)


def _einsum(layer: Layer) -> Product | None:
    """Of equations that sum over letters of both sides, and add the others of the kernel: ``abc,cde->abde``."""
    if "." in layer.equation:
        return None
    left, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    # In the order of the input, whose last axis is that of its channels.
    summed = [letter for letter in inputs if letter in kernel and letter not in output]
    new = [letter for letter in kernel if letter in output]
    if any(letter in inputs for letter in new) or len(summed) + len(new) < len(kernel) or not new:
        return None
    stay = [letter for letter in inputs if letter not in summed]
    columns = int(np.prod([layer.kernel.shape[kernel.index(letter)] for letter in new]))
    if layer.bias is not None and int(np.prod(layer.bias.shape)) != columns:
        return None

    def matrix_of(value: tf.Tensor, letters: str, last: list[str], index: Index) -> tf.Tensor:
        import tensorflow as tf

        turned = tf.transpose(value, [letters.index(letter) for letter in (*stay, *last)])
        return _flat(tf.reshape(turned, [-1, int(np.prod(turned.shape[len(stay) :]))]), index)

    def kept_columns(kept: np.ndarray) -> np.ndarray:
        sizes = [layer.kernel.shape[kernel.index(letter)] for letter in new]
        return np.arange(columns).reshape(sizes).take(kept, new.index(output[-1])).reshape(-1)

    return Product(
        layer.kernel,
        layer.bias,
        lambda x, index: matrix_of(x, inputs, summed, index),
        lambda y, index: matrix_of(y, output, new, index),
        tuple(kernel.index(letter) for letter in (*summed, *new)),
        1,
        columns,
        kept_columns=kept_columns if output[-1] in new else _same,
    )


def _recurrent(layer: Layer) -> tuple[Product, ...]:
    """The input kernel, whose columns are those of all gates; a bias of two rows has those of the recurrent kernel,
    too, and stays."""
    cell = layer.cell
    units, gates = cell.units, cell.kernel.shape[1] // cell.units
    bias = cell.bias if cell.use_bias and len(cell.bias.shape) == 1 else None

    def kept_columns(kept: np.ndarray) -> np.ndarray:
        return (np.arange(gates)[:, None] * units + kept).reshape(-1)

    order, columns = (0, 1), units * gates
    return (Product(cell.kernel, bias, _flat, _flat, order, 1, columns, inner=True, kept_columns=kept_columns),)


def _attention(layer: Layer) -> tuple[Product, ...]:
    """The projections of query, key and value, and then the one of what attention gives."""

    def of(
        projection: Layer,
        read: Callable[[Node, Values], tf.Tensor],
        kept_columns: Callable[[np.ndarray], np.ndarray] = _none,
    ) -> Product | None:
        product = _einsum(projection)
        return product and dataclasses.replace(product, inner=True, read=read, kept_columns=kept_columns)

    def input_of(name: str) -> Callable[[Node, Values], tf.Tensor]:
        return lambda node, values: values[id(_attended(node)[name])]

    def attended(node: Node, values: Values) -> tf.Tensor:
        query, key, value = (
            project(values[id(_attended(node)[name])])
            for name, project in (
                ("query", layer._query_dense), ("key", layer._key_dense), ("value", layer._value_dense)
            )
        )  # fmt: skip
        mask = _argument(node, "attention_mask", 3)
        mask = values.get(id(mask), mask)
        causal = bool(_argument(node, "use_causal_mask", 6))
        mask = layer._compute_attention_mask(
            *(values[id(_attended(node)[name])] for name in ("query", "value")),
            key=values[id(_attended(node)["key"])],
            attention_mask=mask,
            use_causal_mask=causal,
        )
        return layer._compute_attention(query, key, value, mask, training=False)[0]

    found = (
        of(layer._query_dense, input_of("query")),
        of(layer._key_dense, input_of("key")),
        of(layer._value_dense, input_of("value")),
        of(layer._output_dense, attended, _same),
    )
    return tuple(product for product in found if product is not None)


def _argument(node: Node, name: str, place: int) -> Any:
    given = node.call_args
    return given[place] if len(given) > place else node.call_kwargs.get(name)


def _attended(node: Node) -> dict[str, Any]:
    """The tensors that a call of attention reads; keys are values where none are given."""
    query, value, key = (_argument(node, name, place) for place, name in enumerate(("query", "value", "key")))
    return {"query": query, "value": value, "key": value if key is None else key}


def _convolution(layer: Layer) -> Product:
    rank, groups = layer.rank, layer.groups

    def rows(x: tf.Tensor, index: Index) -> tf.Tensor:
        import tensorflow as tf

        taps = _taps(layer, x, index)
        count, channels = taps.shape[1], taps.shape[2]
        split = tf.reshape(taps, [-1, count, groups, channels // groups])
        return tf.reshape(tf.transpose(split, [2, 0, 1, 3]), [groups, -1, count * (channels // groups)])

    def outputs(y: tf.Tensor, index: Index) -> tf.Tensor:
        import tensorflow as tf

        return tf.transpose(tf.reshape(_positions(y, index), [-1, groups, y.shape[-1] // groups]), [1, 0, 2])

    return Product(layer.kernel, layer.bias, rows, outputs, tuple(range(rank + 2)), groups, layer.filters // groups)


def _depthwise(layer: Layer) -> Product:
    rank = len(layer.kernel_size)
    channels, multiplier = layer.depthwise_kernel.shape[-2:]

    def rows(x: tf.Tensor, index: Index) -> tf.Tensor:
        import tensorflow as tf

        return tf.transpose(_taps(layer, x, index), [2, 0, 1])

    def outputs(y: tf.Tensor, index: Index) -> tf.Tensor:
        import tensorflow as tf

        return tf.transpose(tf.reshape(_positions(y, index), [-1, channels, multiplier]), [1, 0, 2])

    order = (rank, *range(rank), rank + 1)
    return Product(layer.depthwise_kernel, layer.bias, rows, outputs, order, channels, multiplier)


def _separable(layer: Layer) -> Product:
    """The pointwise kernel; what it reads is what the depthwise one gives."""
    rank = layer.rank

    def rows(x: tf.Tensor, index: Index) -> tf.Tensor:
        import tensorflow as tf

        taps = _taps(layer, x, index)
        kernel = tf.reshape(layer.depthwise_kernel, [taps.shape[1], taps.shape[2], -1])
        return tf.reshape(tf.einsum("rtc,tcm->rcm", taps, kernel), [1, -1, taps.shape[2] * kernel.shape[-1]])

    return Product(layer.pointwise_kernel, layer.bias, rows, _flat, tuple(range(rank + 2)), 1, layer.filters)


def _transposed(layer: Layer) -> Product:
    """Of a transposed convolution: an ordinary one over the input with zeros between its values."""
    rank = layer.rank

    def rows(x: tf.Tensor, index: Index) -> tf.Tensor:
        import tensorflow as tf

        taps = _transposed_taps(layer, x, index)
        return tf.reshape(taps, [1, -1, taps.shape[1] * taps.shape[2]])

    order = (*range(rank), rank + 1, rank)
    return Product(layer.kernel, layer.bias, rows, _flat, order, 1, layer.filters)


def _taps(layer: Layer, x: tf.Tensor, index: Index) -> tf.Tensor:
    """What each place of a kernel meets: [positions of all samples, places of the kernel, channels]."""
    import tensorflow as tf

    size, strides, dilation, padding = layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding
    pads = []
    for length, taps, stride, apart in zip(x.shape[1:-1], size, strides, dilation, strict=True):
        reach = (taps - 1) * apart
        if padding == "causal":
            pads.append((reach, 0))
        elif padding == "same":
            more = max((-(-length // stride) - 1) * stride + reach + 1 - length, 0)
            pads.append((more // 2, more - more // 2))
        else:
            pads.append((0, 0))
    padded = tf.pad(x, [(0, 0), *pads, (0, 0)])
    counts = [
        (length - (taps - 1) * apart - 1) // stride + 1
        for length, taps, stride, apart in zip(padded.shape[1:-1], size, strides, dilation, strict=True)
    ]
    places = itertools.product(*(range(taps) for taps in size))
    firsts = [[at * apart for at, apart in zip(place, dilation, strict=True)] for place in places]
    return _met(padded, firsts, strides, counts, index)


def _met(
    padded: tf.Tensor, firsts: Sequence[Sequence[int]], strides: Sequence[int], counts: Sequence[int], index: Index
) -> tf.Tensor:
    """What is met at each position, only at those that are asked for: a large input has far more than are needed.

    Args:
        padded: [samples, ..., channels].
        firsts: for each place of a kernel, where the first position of a sample meets it.
        strides: between positions, along each axis.
        counts: of positions, along each axis.
        index: numbers of positions of all samples; None: all.

    Returns:
        [positions, places, channels].
    """
    import tensorflow as tf

    shape = tuple(padded.shape[:-1])
    positions = (shape[0], *counts)
    sample, *at = np.unravel_index(np.arange(np.prod(positions)) if index is None else index, positions)
    corners = [sample, *(axis * stride for axis, stride in zip(at, strides, strict=True))]
    apart = np.array([int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))])
    rows = (apart @ np.stack(corners))[:, None] + np.asarray(firsts) @ apart[1:]
    return tf.gather(tf.reshape(padded, [-1, padded.shape[-1]]), rows)


def _transposed_taps(layer: Layer, x: tf.Tensor, index: Index) -> tf.Tensor:
    """Which input values each output of a transposed convolution adds up, by the place of the kernel that it uses."""
    import tensorflow as tf

    lengths = layer.compute_output_shape(x.shape)[1:-1]
    rank = layer.rank
    spread = x
    for axis in range(rank):
        stride = layer.strides[axis]
        if stride > 1:  # zeros between the values
            between = [[0, 0]] * (rank + 3)
            between[axis + 2] = [0, stride - 1]
            spread = tf.pad(tf.expand_dims(spread, axis + 2), between)
            merged = [*spread.shape[: axis + 1], spread.shape[axis + 1] * stride, *spread.shape[axis + 3 :]]
            spread = tf.reshape(spread, [-1, *merged[1:]])
    pads, starts = [], []
    for axis, length in enumerate(lengths):
        taps, apart, stride = layer.kernel_size[axis], layer.dilation_rate[axis], layer.strides[axis]
        reach = (taps - 1) * apart
        # The output of a transposed convolution is the gradient of an ordinary one's input, which was padded so much.
        before = 0
        if layer.padding == "same":
            before = max((x.shape[axis + 1] - 1) * stride + reach + 1 - length, 0) // 2
        pads.append((reach, max(length + before + reach - spread.shape[axis + 1], 0)))
        starts.append((before + reach, apart))
    padded = tf.pad(spread, [(0, 0), *pads, (0, 0)])
    places = itertools.product(*(range(taps) for taps in layer.kernel_size))
    firsts = [[first - at * apart for at, (first, apart) in zip(place, starts, strict=True)] for place in places]
    return _met(padded, firsts, [1] * rank, lengths, index)


_TABLE: dict[str, Callable[[Layer], Product | None]] = {
    "Dense": _dense,
    "EinsumDense": _einsum,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "Conv1DTranspose": _transposed,
    "Conv2DTranspose": _transposed,
    "Conv3DTranspose": _transposed,
}
# Layers with products inside, which are refitted, and neither zeroed nor rounded by their moments.
_INNER: dict[str, Callable[[Layer], tuple[Product, ...]]] = {
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "MultiHeadAttention": _attention,
    "SimpleRNN": _recurrent,
}
