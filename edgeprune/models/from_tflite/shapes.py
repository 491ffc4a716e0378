"""Operators that move numbers: shapes, slices, pads, joins, and sizes of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune.models.from_tflite.call import Call, Value, check_size
from edgeprune.models.from_tflite.convolutions import blocks_of, image
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.models.types import Tensor

# -- shapes ----------------------------------------------------------------------------------------------------------


@rule("RESHAPE")
def reshape(call: Call) -> Value:
    value = call.value(0)
    given = call.value(1).constant if call.has(1) else np.array(call.option("new_shape", ()) or ())
    if given is None:
        raise NoRule("computes its shape at run time", "a constant shape")
    shape = [int(size) for size in given.ravel()]
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        shape[shape.index(-1)] = math.prod(value.shape) // rest if rest > 0 else 0
    return call.reshaped(value, tuple(shape))


@rule("SQUEEZE")
def squeeze(call: Call) -> Value:
    value = call.value(0)
    rank = len(value.shape)
    given = {axis % max(rank, 1) for axis in call.option("squeeze_dims", ()) or ()}
    gone = given or {axis for axis, size in enumerate(value.shape) if size == 1}
    if any(axis >= rank or value.shape[axis] != 1 for axis in gone):
        raise NoRule(f"drops axes of {list(value.shape)} that are not 1", "axes of size 1")
    if value.has_batch and 0 not in gone:
        return call.made(call.emit.op("squeeze", value.tensor, sorted(gone)), whole=False)
    return call.reshaped(value, tuple(size for axis, size in enumerate(value.shape) if axis not in gone))


@rule("EXPAND_DIMS")
def expand_dims(call: Call) -> Value:
    value = call.value(0)
    (axis,) = call.integers(1, "axis")
    axis %= len(value.shape) + 1
    if value.has_batch and axis:
        return call.made(call.emit.op("expand_dims", value.tensor, axis), whole=False)
    return call.reshaped(value, (*value.shape[:axis], 1, *value.shape[axis:]))


@rule("SHAPE")
def shape(call: Call) -> Value:
    return Value.of_constant(np.array(call.value(0).shape, np.dtype(call.output().dtype)))


@rule("RANK")
def rank(call: Call) -> Value:
    return Value.of_constant(np.array(len(call.value(0).shape), np.int32))


@rule("TRANSPOSE")
def transpose(call: Call) -> Value:
    value, order = call.value(0), call.integers(1, "order")
    if sorted(axis % max(len(value.shape), 1) for axis in order) != list(range(len(value.shape))):
        raise NoRule(f"orders the axes of {list(value.shape)} as {order}", "each axis once")
    order = [axis % len(value.shape) for axis in order]
    if value.constant is not None:
        return Value.of_constant(value.constant.transpose(order))
    direct = value.has_batch and order[0] == 0
    tensor = call.symbolic(value) if direct else call.whole(value)
    dims = tuple(order[1:]) if direct else tuple(axis + 1 for axis in order)
    return call.made(call.emit.layer("Permute", tensor, dims=dims) if dims else tensor, whole=not direct)


# -- slices ----------------------------------------------------------------------------------------------------------


def _sliced(call: Call, value: Value, parts: Sequence[Any]) -> Value:
    """``value[parts]``, one part per axis in the file: a slice, or the number of a position."""
    if all(
        part == slice(None) or (isinstance(part, int) and n == 1) for part, n in zip(parts, value.shape, strict=True)
    ):
        return call.reshaped(value, tuple(n for part, n in zip(parts, value.shape, strict=True) if part == slice(None)))
    first = parts[0] if parts else slice(None)
    keeps = isinstance(first, slice) and len(range(*first.indices(value.shape[0]))) == 1
    if value.has_batch and keeps:
        rest = tuple(parts[1:])
        if all(isinstance(p, slice) and p == slice(None) for p in rest):
            return value
        return call.made(call.emit.getitem(call.symbolic(value), (slice(None), *rest)), whole=False)
    if value.constant is not None:
        return Value.of_constant(value.constant[tuple(parts)])
    return call.made(call.emit.getitem(call.whole(value), (slice(None), *parts)), whole=True)


def _slice(start: int, stop: int, step: int, size: int) -> slice:
    """Without bounds where it takes everything, so that whole axes can be followed."""
    return slice(None) if range(size)[start:stop:step] == range(size) else slice(start, stop, step)


@rule("SLICE")
def slice_(call: Call) -> Value:
    value = call.value(0)
    begins, sizes = call.integers(1, "begin"), call.integers(2, "size")
    if not len(begins) == len(sizes) == len(value.shape):
        raise NoRule(f"takes {sizes} from {begins} of {list(value.shape)}", "a bound for each axis")
    stops = [n if size == -1 else begin + size for begin, size, n in zip(begins, sizes, value.shape, strict=True)]
    rows = list(zip(begins, stops, value.shape, strict=True))
    if any(not 0 <= begin <= stop <= n for begin, stop, n in rows):
        raise NoRule(f"takes {sizes} from {begins} of {list(value.shape)}", "bounds within the tensor")
    if any(begin == stop for begin, stop, _ in rows):
        return Value.of_constant(np.zeros([stop - begin for begin, stop, _ in rows], np.float32))
    return _sliced(call, value, [_slice(begin, stop, 1, n) for begin, stop, n in rows])


@rule("STRIDED_SLICE")
def strided_slice(call: Call) -> Value:
    value = call.value(0)
    begins, ends, steps = (call.integers(i + 1, what) for i, what in enumerate(("begin", "end", "strides")))
    if call.option("new_axis_mask", 0) or call.option("offset", False) or len(begins) > len(value.shape):
        raise NoRule("makes new axes, or counts ends from begins", "plain bounds")
    if not len(begins) == len(ends) == len(steps) or 0 in steps:
        raise NoRule("has bounds of different lengths, or a stride of 0", "a complete file")
    masks = {name: int(call.option(f"{name}_mask", 0)) for name in ("begin", "end", "ellipsis", "shrink_axis")}
    if masks["ellipsis"] & (masks["ellipsis"] - 1):
        raise NoRule("has two ellipses", "one")
    parts: list[Any] = []
    left = len(value.shape) - len(begins)
    for i, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if masks["ellipsis"] >> i & 1:
            parts += [slice(None)] * (left + 1)
            left = 0
            continue
        size = value.shape[len(parts)]
        if masks["shrink_axis"] >> i & 1:
            if not -size <= begin < size:
                raise NoRule(f"takes position {begin} of {size}", "a position within the tensor")
            parts.append(begin % size)
            continue
        start = None if masks["begin"] >> i & 1 else begin
        stop = None if masks["end"] >> i & 1 else end
        taken = range(size)[slice(start, stop, step)]
        if not len(taken):
            raise NoRule("takes nothing of its tensor", "at least one position")
        last = taken[-1] + step
        parts.append(_slice(taken[0], last, step, size) if last >= 0 else slice(taken[0], None, step))
    return _sliced(call, value, [*parts, *[slice(None)] * left])


@rule("SPLIT", "SPLIT_V")
def split(call: Call) -> list[Value]:
    by_size = call.operator.name == "SPLIT_V"
    value = call.value(0 if by_size else 1)
    (axis,) = call.integers(2 if by_size else 0, "axis")
    axis %= len(value.shape)
    parts: Any = len(call.operator.outputs)
    if by_size:
        parts = call.integers(1, "sizes")
        if parts.count(-1) == 1:
            parts[parts.index(-1)] = value.shape[axis] - sum(parts) - 1
        if sum(parts) != value.shape[axis] or min(parts) < 0:
            raise NoRule(f"splits {value.shape[axis]} into {parts}", "sizes that add up")
        return _split_by(call, value, parts, axis)
    if not parts or value.shape[axis] % parts:
        raise NoRule(f"splits {value.shape[axis]} into {parts}", "equal parts")
    if parts == 1:
        return [value]
    (tensor,), whole = call.along([value], [axis])
    return [call.made(part, whole) for part in call.emit.op("split", tensor, parts, axis=axis + whole)]


def _split_by(call: Call, value: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    """Parts of these sizes along an axis; those of size 0 are nothing that anything reads."""
    (tensor,), whole = call.along([value], [axis])
    if len(sizes) == 1:
        return [value]
    some = [size for size in sizes if size]
    parts = call.emit.op("split", tensor, some, axis=axis + whole) if len(some) > 1 else [tensor]
    made = iter([call.made(part, whole) for part in parts])
    nothing = Value.of_constant(np.zeros([0 if i == axis else n for i, n in enumerate(value.shape)], np.float32))
    return [next(made) if size else nothing for size in sizes]


@rule("UNPACK")
def unpack(call: Call) -> list[Value]:
    value = call.value(0)
    axis = int(call.option("axis", 0)) % max(len(value.shape), 1)
    rest = (*value.shape[:axis], *value.shape[axis + 1 :])
    if value.shape[axis] == 1:
        return [call.reshaped(value, rest)]
    (tensor,), whole = call.along([value], [axis])
    return [call.made(part, whole) for part in call.emit.op("unstack", tensor, axis=axis + whole)]


@rule("GATHER")
def gather(call: Call) -> Value:
    value, indices = call.value(0), call.value(1)
    axis, batch_dims = int(call.option("axis", 0)) % max(len(value.shape), 1), int(call.option("batch_dims", 0))
    if value.constant is not None and indices.constant is None:
        if axis or batch_dims or value.constant.ndim < 1:
            raise NoRule("looks positions of a constant up along an inner axis", "rows of a table")
        if value.constant.dtype == np.float32:
            return _looked_up(call, value.constant, indices)
        return call.made(call.emit.op("gather", value.constant, call.whole(indices)), whole=True)
    if batch_dims and not (batch_dims == 1 and value.has_batch and indices.has_batch and axis):
        raise NoRule("has batch dimensions", "plain indices")
    if batch_dims:
        made = call.emit.op("gather", value.tensor, indices.tensor, axis=axis, batch_dims=1)
        return call.made(made, whole=False)
    if indices.constant is None:
        made = call.emit.op("gather", call.whole(value), call.whole(indices), axis=axis + 1, batch_dims=1)
        return call.made(made, whole=True)
    return _taken(call, value, indices.constant, axis)


def _taken(call: Call, value: Value, positions: np.ndarray, axis: int) -> Value:
    """Constant positions along an axis."""
    if positions.size and not 0 <= positions.min() <= positions.max() < value.shape[axis]:
        raise NoRule(f"takes positions up to {positions.max()} of {value.shape[axis]}", "positions within the tensor")
    if value.constant is not None:
        check_size((*value.shape[:axis], *positions.shape, *value.shape[axis + 1 :]), True)
        return Value.of_constant(np.take(value.constant, positions, axis))
    (tensor,), whole = call.along([value], [axis])
    return call.made(call.emit.op("gather", tensor, positions.tolist(), axis=axis + whole), whole)


def _looked_up(call: Call, table: np.ndarray, indices: Value) -> Value:
    """Rows of a table by numbers that come at run time: an Embedding."""
    rows = table.reshape(len(table), -1)
    tensor = call.weighted(
        "Embedding", call.symbolic(indices), [rows], input_dim=rows.shape[0], output_dim=rows.shape[1]
    )
    return call.reshaped(Value((*indices.shape, rows.shape[1]), tensor), (*indices.shape, *table.shape[1:]))


@rule("EMBEDDING_LOOKUP")
def embedding_lookup(call: Call) -> Value:
    return _looked_up(call, call.constant(1, "table"), call.value(0))


@rule("GATHER_ND")
def gather_nd(call: Call) -> Value:
    value, indices = call.value(0), call.value(1)
    if indices.constant is None:
        return call.made(call.emit.op("gather_nd", call.whole(value), call.whole(indices), batch_dims=1), whole=True)
    rows, flat_positions = _rows(value.shape, indices.constant)
    return _taken(call, call.reshaped(value, rows), flat_positions, 0)


def _rows(shape: Sequence[int], indices: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """A shape with the axes that constant indices [..., axes] name as one, and the positions along that."""
    count = indices.shape[-1] if indices.ndim else 0
    named, rest = tuple(shape[:count]), tuple(shape[count:])
    inside = indices.size and (indices >= 0).all() and (indices < np.array(named, np.int64)).all()
    if not 0 < count <= len(shape) or not inside:
        raise NoRule(f"takes positions of {list(shape)}", "positions within the tensor")
    return (math.prod(named), *rest), np.ravel_multi_index(np.moveaxis(indices, -1, 0).tolist(), named)


@rule("SCATTER_ND")
def scatter_nd(call: Call) -> Value:
    """Zeros with rows put at constant positions: the rows and a row of zeros, in the order of the output."""
    updates, sizes = call.value(1), call.integers(2, "shape")
    check_size(sizes, True)
    rows, positions = _rows(sizes, call.constant(0, "positions"))
    if len(set(positions.ravel().tolist())) < positions.size:
        raise NoRule("puts several rows at one position", "distinct positions")
    order: np.ndarray = np.full(rows[0], positions.size, np.int64)
    order[positions.ravel()] = np.arange(positions.size)
    updates = call.reshaped(updates, (positions.size, *rows[1:]))
    if updates.constant is not None:
        array = np.concatenate([updates.constant, np.zeros_like(updates.constant[:1])])
        return Value.of_constant(array[order].reshape(sizes))
    padded = call.emit.op("pad", call.whole(updates), [[0, 0], [0, 1], *[[0, 0]] * (len(rows) - 1)], suffix="padded")
    made = call.made(call.emit.op("gather", padded, order.tolist(), axis=1), whole=True)
    return call.reshaped(made, tuple(sizes))


@rule("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(call: Call) -> Value:
    """A part replaced, at a constant place."""
    value, part, starts = call.value(0), call.value(1), call.integers(2, "place")
    if not len(starts) == len(value.shape) == len(part.shape):
        raise NoRule(f"puts {list(part.shape)} at {starts} of {list(value.shape)}", "a place within the tensor")
    rows = list(zip(starts, value.shape, part.shape, strict=True))
    if any(size > whole for _, whole, size in rows):
        raise NoRule(f"puts {list(part.shape)} into {list(value.shape)}", "a part that is smaller")
    starts = [min(max(start, 0), whole - size) for start, whole, size in rows]
    pads = [[start, whole - start - size] for start, (_, whole, size) in zip(starts, rows, strict=True)]
    inside = np.pad(np.ones((1, *part.shape), bool), [[0, 0], *pads])
    padded = call.emit.op("pad", call.whole(part), [[0, 0], *pads], suffix="padded")
    return call.made(call.emit.op("where", inside, padded, call.whole(value)), whole=True)


@rule("MATRIX_DIAG")
def matrix_diag(call: Call) -> Value:
    (tensor,), whole = call.along([call.value(0)], [-1])
    return call.made(call.emit.op("linalg.diag", tensor), whole)


@rule("REVERSE_SEQUENCE")
def reverse_sequence(call: Call) -> Value:
    """The first of a sequence backwards, as many as a constant says."""
    value, lengths = call.value(0), call.integers(1, "length")
    axis = int(call.option("seq_dim", 0)) % max(len(value.shape), 1)
    if len(lengths) != 1 or not 0 <= lengths[0] <= value.shape[axis]:
        raise NoRule(f"turns {lengths} of {list(value.shape)}", "one sequence")
    positions = np.concatenate([np.arange(lengths[0])[::-1], np.arange(lengths[0], value.shape[axis])])
    return _taken(call, value, positions, axis)


@rule("REVERSE_V2")
def reverse(call: Call) -> Value:
    value = call.value(0)
    axes = [axis % len(value.shape) for axis in call.integers(1, "axes")]
    (tensor,), whole = call.along([value], axes)
    return call.made(call.emit.op("reverse", tensor, [axis + whole for axis in axes]), whole)


# -- joins -----------------------------------------------------------------------------------------------------------


@rule("CONCATENATION")
def concatenation(call: Call) -> Value:
    values = [call.value(position) for position in range(len(call.inputs))]
    axis = int(call.option("axis", 0)) % max(len(values[0].shape), 1)
    values = [value for value in values if 0 not in value.shape] or values
    if len(values) == 1:
        return values[0]
    tensors, whole = call.along(values, [axis])
    made = call.activated(call.emit.layer("Concatenate", tensors, axis=axis + whole))
    return call.made(made, whole)


@rule("PACK")
def pack(call: Call) -> Value:
    values = [call.value(position) for position in range(len(call.inputs))]
    rank = len(values[0].shape)
    axis = int(call.option("axis", 0)) % (rank + 1)
    if len(values) == 1:
        return call.reshaped(values[0], (*values[0].shape[:axis], 1, *values[0].shape[axis:]))
    if axis == 0 or not rank or call.folds:
        made = call.emit.op("stack", [call.whole(value) for value in values], axis=axis + 1)
        return call.made(made, whole=True)
    tensors, whole = call.along(values, [])
    return call.made(call.emit.op("stack", tensors, axis=axis + whole), whole)


@rule("TILE")
def tile(call: Call) -> Value:
    value, times = call.value(0), call.integers(1, "multiples")
    if len(times) != len(value.shape):
        raise NoRule(f"repeats {list(value.shape)} {times} times", "a number for each axis")
    check_size([n * t for n, t in zip(value.shape, times, strict=True)], call.folds)
    (tensor,), whole = call.along([value], [i for i, t in enumerate(times) if t != 1])
    return call.made(call.emit.op("tile", tensor, [1, *times] if whole else times), whole)


@rule("BROADCAST_TO")
def broadcast_to(call: Call) -> Value:
    value, sizes = call.value(0), call.integers(1, "shape")
    padded = (*(1,) * (len(sizes) - len(value.shape)), *value.shape)
    if any(n not in (1, size) for n, size in zip(padded, sizes, strict=True)):
        raise NoRule(f"gives {list(value.shape)} the shape {sizes}", "sizes that fit")
    check_size(sizes, call.folds)
    made = call.emit.op(
        "tile", call.whole(value, len(sizes)), [1, *(s // n for n, s in zip(padded, sizes, strict=True))]
    )
    return call.made(made, whole=True)


@rule("FILL")
def fill(call: Call) -> Value:
    sizes = call.integers(0, "shape")
    check_size(sizes, True)
    return Value.of_constant(np.full(sizes, call.constant(1, "value").ravel()[0]))


@rule("RANGE")
def range_(call: Call) -> Value:
    start, stop, step = (call.constant(i, "bounds").ravel()[0] for i in range(3))
    if not step:
        raise NoRule("counts in steps of 0", "a step")
    check_size([math.ceil((stop - start) / step)], True)
    return Value.of_constant(np.arange(start, stop, step))


@rule("ONE_HOT")
def one_hot(call: Call) -> Value:
    value = call.value(0)
    depth, on, off = (call.constant(i, "depth").ravel()[0] for i in (1, 2, 3))
    axis = int(call.option("axis", -1))
    check_size((*value.shape, int(depth)), call.folds)
    last = axis in (-1, len(value.shape))
    (tensor,), whole = call.along([value], [] if last else [0])
    options: dict[str, Any] = {"dtype": call.output().dtype, "axis": -1 if last else axis + whole}
    return call.made(call.emit.op("one_hot", tensor, int(depth), on.item(), off.item(), **options), whole)


# -- pads and images -------------------------------------------------------------------------------------------------


def _pads(call: Call, value: Value) -> list[list[int]]:
    pads = call.constant(1, "pads").reshape(-1, 2).tolist()
    if len(pads) != len(value.shape) or min(map(min, pads), default=0) < 0:
        raise NoRule(f"pads {list(value.shape)} by {pads}", "two numbers for each axis")
    check_size([n + a + b for n, (a, b) in zip(value.shape, pads, strict=True)], call.folds)
    return pads


@rule("PAD", "PADV2", "MIRROR_PAD")
def pad(call: Call) -> Value:
    """ZeroPadding2D where that is what it is, in front of a convolution; else the operation."""
    value = call.value(0)
    pads = _pads(call, value)
    options: dict[str, Any] = {}
    if call.operator.name == "PADV2":
        options["constant_values"] = call.constant(2, "value").ravel()[0].item()
    if call.operator.name == "MIRROR_PAD":
        options["mode"] = "SYMMETRIC" if call.option("mode", 0) == 1 else "REFLECT"
    if not options and value.has_batch and len(pads) == 4 and pads[0] == pads[3] == [0, 0]:
        return Value.of_tensor(call.emit.layer("ZeroPadding2D", call.symbolic(value), padding=pads[1:3]))
    (tensor,), whole = call.along([value], [axis for axis, both in enumerate(pads) if any(both)])
    return call.made(call.emit.op("pad", tensor, [[0, 0], *pads] if whole else pads, **options), whole)


# Operator → by interpolation: the operation with aligned corners or none, and the method of the other.
_RESIZERS = {
    "RESIZE_BILINEAR": ("compat.v1.image.resize_bilinear", "bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": ("compat.v1.image.resize_nearest_neighbor", "nearest"),
}


@rule(*_RESIZERS)
def resize(call: Call) -> Value:
    tensor, sizes = image(call), call.integers(1, "size")
    check_size([*sizes, int(tensor.shape[-1])], False)
    symbol, method = _RESIZERS[call.operator.name]
    if call.option("half_pixel_centers", False) and call.option("align_corners", False):
        raise NoRule("takes both the corners and the centers of pixels as fixed", "one of them")
    if call.option("half_pixel_centers", False):
        return Value.of_tensor(_half_pixels(call, tensor, sizes, method))
    made = call.emit.op(symbol, tensor, sizes, align_corners=bool(call.option("align_corners", False)))
    return Value.of_tensor(made)


def _half_pixels(call: Call, tensor: Tensor, sizes: Sequence[int], method: str) -> Tensor:
    times = [after / before for after, before in zip(sizes, tensor.shape[1:3], strict=True)]
    if all(factor == int(factor) for factor in times):
        return call.emit.layer("UpSampling2D", tensor, size=tuple(map(int, times)), interpolation=method)
    return call.emit.op("image.resize", tensor, list(sizes), method=method)


@rule("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def by_blocks(call: Call) -> Value:
    tensor, size = image(call), int(call.option("block_size", 0))
    to_space = call.operator.name == "DEPTH_TO_SPACE"
    sides = [tensor.shape[-1] / max(size, 1) ** 2] if to_space else [side / max(size, 1) for side in tensor.shape[1:3]]
    if size < 2 or any(side != int(side) for side in sides):
        raise NoRule(f"moves blocks of {size} in {list(tensor.shape[1:])}", "sizes that fit")
    return Value.of_tensor(call.emit.op("nn.depth_to_space" if to_space else "nn.space_to_depth", tensor, size))


@rule("SPACE_TO_BATCH_ND")
def space_to_batch(call: Call) -> Value:
    """An image in blocks, which a convolution turns into its dilation."""
    blocks = blocks_of(call.constant(1, "block size"), call.constant(2, "pads"))
    height, width, channels = image(call).shape[1:]
    rows, columns = (n + sum(pads) for n, pads in zip((height, width), blocks.margins, strict=True))
    if rows % blocks.size[0] or columns % blocks.size[1]:
        raise NoRule(f"makes blocks of {list(blocks.size)} of {rows} rows and {columns} columns", "sizes that fit")
    shape = (math.prod(blocks.size), rows // blocks.size[0], columns // blocks.size[1], int(channels))
    return Value(shape, image(call), blocks=blocks)


@rule("BATCH_TO_SPACE_ND")
def batch_to_space(call: Call) -> Value:
    value = call.value(0, blocks=True)
    blocks = blocks_of(call.constant(1, "block size"), call.constant(2, "crops"))
    if value.tensor is None or value.blocks != blocks:
        raise NoRule("makes one image of what is no image in such blocks", "SPACE_TO_BATCH_ND before it")
    return Value.of_tensor(value.tensor)
