"""The part of the table of ``keras.ops`` operations that moves values around: shapes, slices, joins, padding, sizes."""

from __future__ import annotations

import itertools

import numpy as np

from edgeprune.models.graph import is_symbolic
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.keras3_ops import channels_last, operation_rule, unsupported, whole_batch
from edgeprune.models.types import Arguments, Operation, Structure, Tensor


@operation_rule("Reshape", "Ravel")
def _reshape(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    tensor = arguments["x"]
    shape = getattr(operation, "newshape", (-1,))
    shape = [shape] if isinstance(shape, int) else list(shape)
    if whole_batch(shape, tensor):
        return emitter.layer("Reshape", tensor, target_shape=tuple(shape[1:]))
    return emitter.op("reshape", tensor, [-1 if size is None else size for size in shape])


@operation_rule("Transpose")
def _transpose(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    rank = len(arguments["x"].shape)
    axes = range(rank)[::-1] if operation.axes is None else operation.axes
    return _permute(emitter, arguments["x"], [axis % rank for axis in axes])


@operation_rule("Swapaxes")
def _swapaxes(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    order = list(range(len(arguments["x"].shape)))
    one, other = operation.axis1, operation.axis2
    order[one], order[other] = order[other], order[one]
    return _permute(emitter, arguments["x"], order)


@operation_rule("Moveaxis")
def _moveaxis(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    rank = len(arguments["x"].shape)
    source, destination = ([axis % rank for axis in axes] for axes in (operation.source, operation.destination))
    order = [axis for axis in range(rank) if axis not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return _permute(emitter, arguments["x"], order)


def _permute(emitter: Emitter, tensor: Tensor, order: list[int]) -> Structure:
    if order[0] == 0 and len(order) > 1:
        return emitter.layer("Permute", tensor, dims=tuple(order[1:]))
    return emitter.op("transpose", tensor, order)


@operation_rule("ExpandDims")
def _expand_dims(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    tensor = arguments["x"]
    axes = operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]
    rank = len(tensor.shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        tensor = emitter.op("expand_dims", tensor, axis)
    return tensor


@operation_rule("Squeeze")
def _squeeze(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    axis = operation.axis
    if axis is None:
        axis = [i for i, size in enumerate(arguments["x"].shape) if size == 1]
    return emitter.op("squeeze", arguments["x"], list(axis) if isinstance(axis, list | tuple) else [axis])


@operation_rule("Concatenate")
def _concatenate(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    tensors = [emitter.cast(tensor, dtype) for tensor in arguments["xs"]]
    axis = operation.axis
    if axis % len(tensors[0].shape) and len(tensors) > 1 and all(map(is_symbolic, tensors)):
        return emitter.layer("Concatenate", tensors, axis=axis)
    return emitter.op("concat", tensors, axis)


@operation_rule("Stack")
def _stack(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("stack", list(arguments["x"]), axis=operation.axis)


@operation_rule("Unstack")
def _unstack(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("unstack", arguments["x"], num=operation.num, axis=operation.axis)


@operation_rule("Split")
def _split(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    tensor, axis, parts = arguments["x"], operation.axis, operation.indices_or_sections
    if not isinstance(parts, int):
        bounds = [0, *(int(index) for index in parts), tensor.shape[axis]]
        parts = [stop - start for start, stop in itertools.pairwise(bounds)]
    return emitter.op("split", tensor, parts, axis=axis)


@operation_rule("Tile")
def _tile(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    repeats = [operation.repeats] if isinstance(operation.repeats, int) else list(operation.repeats)
    missing = len(arguments["x"].shape) - len(repeats)
    if missing < 0:
        raise unsupported(operation, "Tile to more axes")
    return emitter.op("tile", arguments["x"], [1] * missing + repeats)


@operation_rule("Repeat")
def _repeat(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("repeat", arguments["x"], operation.repeats, axis=operation.axis)


@operation_rule("Flip")
def _flip(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    rank = len(arguments["x"].shape)
    axes = range(rank) if operation.axis is None else operation.axis
    axes = [axes] if isinstance(axes, int) else list(axes)
    return emitter.op("reverse", arguments["x"], [axis % rank for axis in axes])


@operation_rule("Roll")
def _roll(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    if operation.axis is None:
        raise unsupported(operation, "Roll without an axis")
    return emitter.op("roll", arguments["x"], operation.shift, operation.axis)


@operation_rule("Take")
def _take(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    tensor, axis, indices = arguments["x"], operation.axis, emitter.cast(arguments["indices"], "int32")
    if axis is None:
        raise unsupported(operation, "Take without an axis")
    if not is_symbolic(indices) and tensor.shape[axis] is not None:
        numbers = np.asarray(indices)  # tf.gather knows no negative indices
        indices = np.where(numbers < 0, numbers + tensor.shape[axis], numbers).tolist()
    return emitter.op("gather", tensor, indices, axis=axis)


@operation_rule("TakeAlongAxis")
def _take_along_axis(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    tensor, indices = arguments["x"], arguments["indices"]
    rank = len(tensor.shape)
    shapes = [list(getattr(value, "shape", ()))[:-1] for value in (tensor, indices)]
    if operation.axis not in (-1, rank - 1) or shapes[0] != shapes[1] or not is_symbolic(indices):
        raise unsupported(operation, "TakeAlongAxis along another axis than the last, or of another shape")
    return emitter.op("gather", tensor, emitter.cast(indices, "int32"), axis=-1, batch_dims=rank - 1)


@operation_rule("BroadcastTo")
def _broadcast_to(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("broadcast_to", arguments["x"], list(operation.shape))


@operation_rule("GetItem")
def _get_item(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.getitem(arguments["x"], _without_dots(arguments["key"], len(arguments["x"].shape)))


def _without_dots(key: Structure, rank: int) -> Structure:
    """A key with slices in place of "...", which tf_keras cannot write into a file."""
    parts = list(key) if isinstance(key, tuple | list) else [key]
    dots = next((place for place, part in enumerate(parts) if part is Ellipsis), None)
    if dots is None:
        return key
    missing = rank - sum(part is not None and part is not Ellipsis for part in parts)
    return (*parts[:dots], *[slice(None)] * missing, *parts[dots + 1 :])


@operation_rule("Pad")
def _pad(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    if operation.mode not in ("constant", "reflect", "symmetric"):
        raise unsupported(operation, f"Pad with mode={operation.mode!r}")
    widths = [list(pair) for pair in operation.pad_width]
    if len(widths) == 1:
        widths *= len(arguments["x"].shape)
    constant = {"constant_values": arguments["constant_values"]} if arguments.get("constant_values") else {}
    return emitter.op("pad", arguments["x"], widths, operation.mode.upper(), **constant)


@operation_rule("Resize")
def _resize(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    channels_last(operation)
    if operation.crop_to_aspect_ratio or operation.pad_to_aspect_ratio:
        raise unsupported(operation, "Resize that keeps the aspect ratio")
    resized = emitter.op(
        "image.resize",
        arguments["images"],
        list(operation.size),
        method=operation.interpolation,
        antialias=operation.antialias,
    )
    return emitter.cast(resized, dtype)


@operation_rule("DepthToSpace", "SpaceToDepth")
def _depth_to_space(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    channels_last(operation)
    symbol = "nn.depth_to_space" if type(operation).__name__ == "DepthToSpace" else "nn.space_to_depth"
    return emitter.op(symbol, arguments["x"], operation.block_size)
