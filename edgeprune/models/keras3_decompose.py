"""Operations of ``keras.ops`` that neither tf_keras nor TensorFlow has as one: written as other operations.

Each is traced in Keras 3, and what it is made of is translated by the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import is_symbolic
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.keras3_ops import ACTIVATIONS, operation_rule, translate_operation, unsupported
from edgeprune.models.types import Arguments, Operation, Structure, Tensor, Value
from edgeprune.models.walk import LayerCall

if TYPE_CHECKING:
    import keras

# (operation, its arguments by name) -> its outputs, computed by other functions of keras.ops.
Decomposition = Callable[[Operation, Arguments], Structure]


def _decomposed(*names: str) -> Callable[[Decomposition], Decomposition]:
    """Enter a decomposition of the operations of these classes."""

    def enter(decomposition: Decomposition) -> Decomposition:
        @operation_rule(*names)
        def rule(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
            return expand(emitter, lambda given: decomposition(operation, given), arguments)

        return decomposition

    return enter


def expand(emitter: Emitter, function: Callable[[Structure], Structure], arguments: Structure) -> Structure:
    """What a function of keras.ops makes of tensors of tf_keras.

    Args:
        emitter: the last operation gets its name, the others begin with it.
        function: called once, on tensors of Keras 3 in the places of the tensors in ``arguments``.
        arguments: tensors of tf_keras and constants.
    """
    import keras
    import tensorflow as tf

    flat = tf.nest.flatten(arguments)
    tensors = [value for value in flat if is_symbolic(value)]
    places = {id(x): keras.KerasTensor(tuple(x.shape), x.dtype.name) for x in tensors}
    outputs = function(tf.nest.pack_sequence_as(arguments, [places.get(id(value), value) for value in flat]))
    graph = keras.Function([places[id(x)] for x in tensors], outputs)
    last = {id(tensor._keras_history.operation) for tensor in graph.outputs}

    def translated(operation: Operation) -> Callable[..., Structure]:
        suffix = "" if id(operation) in last else operation.name
        made = operation._inbound_nodes[-1].outputs
        return lambda *args, **kwargs: translate_operation(
            emitter.inner(suffix), LayerCall(operation, args, kwargs, None, (), False, made)
        )

    return graph._run_through_graph(tensors, operation_fn=translated)


def _activation(name: str) -> Callable[[Emitter, Tensor], Structure]:
    def apply(emitter: Emitter, tensor: Tensor) -> Structure:
        from keras import ops

        return expand(emitter, getattr(ops, name), tensor)

    return apply


# Activations of layers that Keras 3 has as operations, with their default arguments.
ACTIVATIONS.update(
    (name, _activation(name))
    for name in (
        *("celu", "glu", "squareplus", "tanh_shrink", "soft_shrink", "hard_shrink", "sparse_plus", "sparse_sigmoid"),
        "sparsemax",
    )
)


def _where(condition: Value, x: Value, y: Value) -> keras.KerasTensor:
    from keras import ops

    return ops.where(condition, x, y)


@_decomposed("Celu")
def _celu(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    x, alpha = given["x"], operation.alpha
    return ops.maximum(x, 0.0) + alpha * ops.expm1(ops.minimum(x, 0.0) / alpha)


@_decomposed("Glu")
def _glu(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    value, gate = ops.split(given["x"], 2, axis=operation.axis)
    return value * ops.sigmoid(gate)


@_decomposed("Squareplus")
def _squareplus(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    return (given["x"] + ops.sqrt(ops.square(given["x"]) + float(operation.b))) / 2.0


@_decomposed("TanhShrink")
def _tanh_shrink(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    return given["x"] - ops.tanh(given["x"])


@_decomposed("SoftShrink")
def _soft_shrink(operation: Operation, given: Arguments) -> Structure:
    x, threshold = given["x"], float(operation.threshold)
    return _where(x > threshold, x - threshold, _where(x < -threshold, x + threshold, 0.0))


@_decomposed("HardShrink")
def _hard_shrink(operation: Operation, given: Arguments) -> Structure:
    return _where(abs(given["x"]) > float(operation.threshold), given["x"], 0.0)


@_decomposed("Threshold")
def _threshold(operation: Operation, given: Arguments) -> Structure:
    return _where(given["x"] > float(operation.threshold), given["x"], float(operation.default_value))


@_decomposed("SparsePlus")
def _sparse_plus(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    x = given["x"]
    return _where(x <= -1.0, 0.0, _where(x < 1.0, ops.square(x + 1.0) * 0.25, x))


@_decomposed("SparseSigmoid")
def _sparse_sigmoid(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    return ops.clip(0.5 * (given["x"] + 1.0), 0.0, 1.0)


@_decomposed("Sparsemax")
def _sparsemax(operation: Operation, given: Arguments) -> Structure:
    """As Keras computes it: the threshold sums cumulative sums, where Martins and Astudillo (2016) sum the values."""
    from keras import ops

    x = ops.moveaxis(given["x"], operation.axis, -1)
    size = _size(operation, x, -1)
    largest_first = ops.top_k(x, size)[0]
    sums = ops.cumsum(largest_first, axis=-1)
    inside = largest_first - (sums - 1.0) / np.arange(1, size + 1, dtype="float32") > 0.0
    count = ops.sum(ops.cast(inside, x.dtype), axis=-1, keepdims=True)
    threshold = (ops.sum(ops.where(inside, sums, 0.0), axis=-1, keepdims=True) - 1.0) / count
    return ops.moveaxis(ops.maximum(x - threshold, 0.0), -1, operation.axis)


# The classes whose result is one line of other functions: class → (keras.ops, tensor) → tensor.
_UNARY: dict[str, Callable[[Value, Value], Value]] = {
    "Fabs": lambda K, x: K.absolute(x),
    "Log2": lambda K, x: K.log(x) * (1 / math.log(2)),
    "Log10": lambda K, x: K.log(x) * (1 / math.log(10)),
    "Exp2": lambda K, x: K.exp(x * math.log(2)),
    "Cbrt": lambda K, x: K.sign(x) * K.power(K.absolute(x), 1 / 3),
    "Deg2rad": lambda K, x: x * (math.pi / 180),
    "Rad2deg": lambda K, x: x * (180 / math.pi),
    "Trunc": lambda K, x: K.where(x < 0.0, K.ceil(x), K.floor(x)),
    "Sinc": lambda K, x: K.where(K.equal(x, 0.0), 1.0, K.divide_no_nan(K.sin(x * math.pi), x * math.pi)),
    "Erfc": lambda K, x: 1.0 - K.erf(x),
    "Fliplr": lambda K, x: K.flip(x, axis=1),
    "Flipud": lambda K, x: K.flip(x, axis=0),
    "EmptyLike": lambda K, x: K.zeros_like(x),
    "Hstack": lambda K, xs: K.concatenate(xs, axis=1),
    "Vstack": lambda K, xs: K.concatenate(xs, axis=0),
}


@_decomposed(*_UNARY)
def _unary(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    return _UNARY[type(operation).__name__](ops, next(iter(given.values())))


_BINARY: dict[str, Callable[[Value, Value, Value], Value]] = {
    "Hypot": lambda K, x, y: K.sqrt(K.square(x) + K.square(y)),
    "Logaddexp": lambda K, x, y: K.maximum(x, y) + K.log1p(K.exp(-K.absolute(x - y))),
    "Logaddexp2": lambda K, x, y: K.maximum(x, y) + K.log1p(K.exp2(-K.absolute(x - y))) * (1 / math.log(2)),
    "Heaviside": lambda K, x, y: K.where(x < 0.0, 0.0, K.where(x > 0.0, 1.0, y)),
}


@_decomposed(*_BINARY)
def _binary(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    return _BINARY[type(operation).__name__](ops, *given.values())


@_decomposed("FullLike")
def _full_like(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    zeros = ops.zeros_like(given["x"])
    return (zeros if operation.dtype is None else ops.cast(zeros, operation.dtype)) + given["fill_value"]


@_decomposed("Select")
def _select(operation: Operation, given: Arguments) -> Structure:
    chosen = given.get("default", 0)
    for condition, choice in reversed(list(zip(given["condlist"], given["choicelist"], strict=True))):
        chosen = _where(condition, choice, chosen)
    return chosen


@_decomposed("SaturateCast")
def _saturate_cast(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    if "int" not in operation.dtype:
        raise unsupported(operation, f"SaturateCast to {operation.dtype}")
    limits = np.iinfo(operation.dtype)
    return ops.cast(ops.clip(given["x"], float(limits.min), float(limits.max)), operation.dtype)


@_decomposed("Ptp")
def _ptp(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    settings = {"axis": operation.axis, "keepdims": operation.keepdims}
    return ops.max(given["x"], **settings) - ops.min(given["x"], **settings)


@_decomposed("Moments")
def _moments(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    settings = {"axis": operation.axes, "keepdims": operation.keepdims}
    return ops.mean(given["x"], **settings), ops.var(given["x"], **settings)


@_decomposed("CountNonzero")
def _count_nonzero(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    return ops.sum(ops.cast(ops.not_equal(given["x"], 0.0), "int32"), axis=operation.axis)


@operation_rule("Normalize")
def _normalize(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    epsilon = 1e-7 if operation.epsilon is None else operation.epsilon
    if operation.order == 2:
        return emitter.op("math.l2_normalize", arguments["x"], axis=operation.axis, epsilon=epsilon**2)

    def by_norm(x: keras.KerasTensor) -> Structure:
        from keras import ops

        return x / ops.maximum(ops.norm(x, operation.order, axis=operation.axis, keepdims=True), epsilon)

    return expand(emitter, by_norm, arguments["x"])


@_decomposed("Norm")
def _norm(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    x, axes, order = given["x"], operation.axis, operation.ord
    settings = {"axis": axes, "keepdims": operation.keepdims}
    of_vectors = axes is not None and len(axes) == 1
    if order in (None, "fro") or (of_vectors and order == 2):
        return ops.sqrt(ops.sum(ops.square(x), **settings))
    if of_vectors and order == 1:
        return ops.sum(ops.absolute(x), **settings)
    if of_vectors and order in (np.inf, -np.inf):
        return (ops.max if order > 0 else ops.min)(ops.absolute(x), **settings)
    raise unsupported(operation, f"Norm of order {order} over the axes {axes}")


@_decomposed("Diff")
def _diff(operation: Operation, given: Arguments) -> Structure:
    x = given["a"]
    axis = operation.axis % len(x.shape)
    before = (slice(None),) * axis
    for _ in range(operation.n):
        x = x[(*before, slice(1, None))] - x[(*before, slice(None, -1))]
    return x


@_decomposed("Tril", "Triu")
def _triangle(operation: Operation, given: Arguments) -> Structure:
    x = given["x"]
    sizes = [_size(operation, x, axis) for axis in (-2, -1)]
    kept = getattr(np, type(operation).__name__.lower())(np.ones(sizes, bool), operation.k)
    return _where(kept, x, 0.0)


@_decomposed("Dot")
def _dot(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    x1, x2 = given["x1"], given["x2"]
    if len(x1.shape) < 1 or len(x2.shape) < 2:
        raise unsupported(operation, "Dot with a vector or a number")
    return ops.tensordot(x1, x2, axes=[[-1], [len(x2.shape) - 2]])


@_decomposed("Append")
def _append(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    if operation.axis is None:
        raise unsupported(operation, "Append without an axis")
    return ops.concatenate([given["x1"], given["x2"]], axis=operation.axis)


@_decomposed("Dstack")
def _dstack(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    if len(given["xs"][0].shape) < 3:
        raise unsupported(operation, "Dstack of tensors of two axes")
    return ops.concatenate(given["xs"], axis=2)


@_decomposed("Hsplit", "Vsplit", "Dsplit")
def _split_along(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    axis = {"H": 1, "V": 0, "D": 2}[type(operation).__name__[0]]
    return ops.split(given["x"], operation.indices_or_sections, axis=axis)


@_decomposed("ArraySplit")
def _array_split(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    parts, axis = operation.indices_or_sections, operation.axis
    if isinstance(parts, int):
        lengths = [len(part) for part in np.array_split(np.arange(_size(operation, given["x"], axis)), parts)]
        parts = np.cumsum(lengths)[:-1].tolist()
    return ops.split(given["x"], parts, axis=axis)


@_decomposed("Rot90")
def _rot90(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    x, (one, other) = given["x" if "x" in given else "array"], operation.axes
    for _ in range(operation.k % 4):
        x = ops.flip(ops.swapaxes(x, one, other), axis=one)
    return x


@_decomposed("Sort", "Argsort")
def _sort(operation: Operation, given: Arguments) -> Structure:
    """The smallest are the largest of the negated values."""
    from keras import ops

    if operation.axis is None:
        raise unsupported(operation, f"{type(operation).__name__} without an axis")
    x = ops.moveaxis(given["x"], operation.axis, -1)
    values, places = ops.top_k(-x, _size(operation, x, -1))
    return ops.moveaxis(-values if type(operation).__name__ == "Sort" else places, -1, operation.axis)


@_decomposed("Slice")
def _slice(operation: Operation, given: Arguments) -> Structure:
    starts = given["start_indices"]
    if any(hasattr(start, "_keras_history") for start in [starts, *np.atleast_1d(np.asarray(starts, object))]):
        raise unsupported(operation, "Slice that starts at a computed position")
    starts = [int(start) for start in starts]
    return given["inputs"][
        tuple(slice(start, start + size) for start, size in zip(starts, operation.shape, strict=True))
    ]


@_decomposed("MultiHot")
def _multi_hot(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    x = given["inputs"]
    if operation.sparse:
        raise unsupported(operation, "MultiHot with sparse=True")
    hot = ops.one_hot(x, operation.num_classes, axis=operation.axis, dtype=operation.dtype)
    return ops.max(hot, axis=1 if len(x.shape) > 1 else 0)


@_decomposed("DotProductAttention")
def _attention(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    query, key, value = (given[name] for name in ("query", "key", "value"))
    if operation.attn_logits_soft_cap is not None or query.shape[2] != key.shape[2]:
        raise unsupported(operation, "DotProductAttention with a soft cap or groups of heads")
    scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
    logits = ops.einsum("btnh,bsnh->bnts", query, key) * scale
    if given.get("bias") is not None:
        logits = logits + given["bias"]
    if given.get("mask") is not None:
        logits = ops.where(given["mask"], logits, _NEVER)
    if operation.is_causal:
        sizes = [_size(operation, logits, axis) for axis in (-2, -1)]
        logits = ops.where(np.tril(np.ones(sizes, bool)), logits, _NEVER)
    return ops.einsum("bnts,bsnh->btnh", ops.softmax(logits, axis=-1), value)


_NEVER = -1e9  # the logit of what attention must not look at


@_decomposed("PadImages")
def _pad_images(operation: Operation, given: Arguments) -> Structure:
    from keras import ops

    x = given["images"]
    rows, columns = _around(operation, x, "padding")
    widths = [rows, columns, (0, 0)]
    return ops.pad(x, widths if len(x.shape) == 3 else [(0, 0), *widths])


@_decomposed("CropImages")
def _crop_images(operation: Operation, given: Arguments) -> Structure:
    x = given["images"]
    rows, columns = _around(operation, x, "cropping")
    kept = [slice(before, _size(operation, x, axis) - after) for axis, (before, after) in ((-3, rows), (-2, columns))]
    return x[(Ellipsis, *kept, slice(None))]


def _around(operation: Operation, images: keras.KerasTensor, what: str) -> list[tuple[int, int]]:
    """What is added or cut before and behind the rows and the columns of images; one of three is left to the others."""
    if operation.data_format == "channels_first":
        raise unsupported(operation, f"{type(operation).__name__} with data_format='channels_first'")
    sides = []
    for first, last, target, axis in (("top", "bottom", "height", -3), ("left", "right", "width", -2)):
        before, after = getattr(operation, f"{first}_{what}"), getattr(operation, f"{last}_{what}")
        wanted = getattr(operation, f"target_{target}")
        if wanted is not None:
            change = abs(wanted - _size(operation, images, axis))
            before = change - (after or 0) if before is None else before
            after = change - before if after is None else after
        sides.append((before or 0, after or 0))
    return sides


@_decomposed("ExtractPatches")
def _extract_patches(operation: Operation, given: Arguments) -> Structure:
    """Patches side by side are a reshape; others are a convolution with an identity kernel."""
    from keras import ops

    x, size = given["images"], tuple(operation.size)
    side_by_side = _both(operation.strides) == size and _both(operation.dilation_rate) == (1, 1)
    if len(size) != 2 or len(x.shape) != 4 or operation.data_format == "channels_first" or not side_by_side:
        raise unsupported(operation, "ExtractPatches of patches that overlap, or have more axes")
    rows, columns = (_size(operation, x, axis) for axis in (1, 2))
    (down, right), (height, width) = (rows // size[0], columns // size[1]), size
    if (down * height, right * width) != (rows, columns):
        if operation.padding != "valid":
            raise unsupported(operation, "ExtractPatches with padding")
        x = x[:, : down * height, : right * width]
    channels = x.shape[-1]
    parts = ops.transpose(ops.reshape(x, (-1, down, height, right, width, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(parts, (-1, down, right, height * width * channels))


def _both(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _size(operation: Operation, tensor: keras.KerasTensor, axis: int) -> int:
    size = tensor.shape[axis]
    if size is None:
        raise unsupported(operation, f"{type(operation).__name__} along an axis of unknown size")
    return int(size)
