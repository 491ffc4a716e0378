"""Channel rules of layers that merge, pool, pad, move or reshape tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgeprune.models.graph import is_symbolic
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes, Edit, Path
from edgeprune.prune.channels.rules.axes import (  # fmt: skip
    channel_axis,
    freeze_others,
    is_batch,
    like_output,
    replace_axis,
    without_batch,
)
from edgeprune.prune.channels.rules.registry import opaque, register  # fmt: skip
from edgeprune.prune.channels.units import FIXED, Vector

Shape = Sequence[int | None]


# CustomScaleLayer: InceptionResNetV2's x + scale * y
@register("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "CustomScaleLayer")
def merge(call: Call) -> Axes:
    axes, shape = broadcast(call, call.inputs, call.input_shapes)
    given = enumerate(call.node.call_args[0])
    return meet_constants(call, axes, shape, [((0, 0, i), value) for i, value in given if not is_symbolic(value)])


def broadcast(call: Call, inputs: Sequence[Axes], shapes: Sequence[Shape]) -> tuple[Axes, Shape]:
    """Elementwise with broadcasting, axes aligned from the right: what meets is tied together.

    Returns:
        Axes and shape of the outcome.
    """
    rank = max(map(len, shapes))
    result: list[Vector | None] = []
    sizes: list[int | None] = []
    for axis in range(-rank, 0):
        sides = [
            (axes[axis], shape[axis])
            for axes, shape in zip(inputs, shapes, strict=True)
            if len(shape) >= -axis and shape[axis] != 1
        ]
        vectors = [vector for vector, _ in sides if vector is not None]
        if len(vectors) < len(sides):
            call.freeze(vectors, f"{call.name!r} joins them to channels that cannot be removed")
        for other in vectors[1:]:
            call.unite(vectors[0], other, f"{call.name!r} joins them to channels that cannot be removed")
        alone = [axes[axis] for axes in inputs if len(axes) >= -axis and axes[axis] is not None]
        result.append(vectors[0] if vectors else alone[0] if alone and not sides else None)
        sizes.append(sides[0][1] if sides else 1)
    return tuple(result), sizes


def meet_constants(call: Call, axes: Axes, shape: Shape, constants: Iterable[tuple[Path, Any]]) -> Axes:
    """What becomes of a tensor that meets constants elementwise: those with a value per channel are sliced along.

    Args:
        shape: of the tensor.
        constants: where each stands among the call's arguments, and its value; None is none.
    """
    for path, value in constants:
        lengths = np.shape(value) if value is not None else ()
        for axis in range(-min(len(lengths), len(axes)), 0):
            vector = axes[axis]
            if vector is not None and lengths[axis] != 1:
                call.edit(Edit(path, vector, "take", len(lengths) + axis))
    # Where a single position meets a constant with several, the constant decides.
    after = call.output_shapes[0]
    missing = (None,) * (len(after) - len(axes))
    return tuple(v if a == b else None for v, a, b in zip((*missing, *axes), (*missing, *shape), after, strict=True))


@register("Concatenate")
def concatenate(call: Call) -> Axes:
    axis = call.layer.axis
    if is_batch(axis, len(call.input_shapes[0])):
        return opaque(call, f"{call.name!r} joins samples")[0]
    if len(call.inputs) != len(call.node.call_args[0]):
        return opaque(call, f"{call.name!r} joins them to constants")[0]
    return join(call, call.inputs, call.input_shapes, without_batch(axis))


def join(call: Call, inputs: Sequence[Axes], shapes: Sequence[Shape], axis: int) -> Axes:
    """Concatenation along ``axis``; along the others what meets is tied together."""
    merged = list(broadcast(call, [replace_axis(a, axis, None) for a in inputs], shapes)[0])
    if any(axes[axis] is not None for axes in inputs):
        parts = [
            axes[axis] if axes[axis] is not None else np.full(shape[axis] or 0, FIXED)
            for axes, shape in zip(inputs, shapes, strict=True)
        ]
        merged[axis] = np.concatenate(parts)  # type: ignore[arg-type]
    return tuple(merged)


@register(
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Cropping1D", "Cropping2D", "Cropping3D",
    "UpSampling1D", "UpSampling2D", "UpSampling3D", "Resizing", "CenterCrop",
)  # fmt: skip
def spatial(call: Call) -> Axes:
    """Works on positions; channels stay where they are."""
    axis = channel_axis(call.layer)
    return like_output(call, axis, freeze_others(call, call.inputs[0], axis, "positions are pooled or moved"))


@register(
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
)  # fmt: skip
def global_pooling(call: Call) -> Axes:
    axis = channel_axis(call.layer)
    vector = freeze_others(call, call.inputs[0], axis, "positions are pooled")
    return like_output(call, axis if call.layer.keepdims else 0, vector)


@register("Permute")
def permute(call: Call) -> Axes:
    return tuple(call.inputs[0][dim - 1] for dim in call.layer.dims)


@register("RepeatVector")
def repeat_vector(call: Call) -> Axes:
    return (None, *call.inputs[0])


@register("Flatten")
def flatten(call: Call) -> Axes:
    if channel_axis(call.layer) == 0:
        call.freeze(call.inputs[0], f"Flatten {call.name!r} transposes channels-first tensors")
        return (None,)
    return reshape_axes(call, call.inputs[0], call.input_shapes[0], call.output_shapes[0])


@register("Reshape")
def reshape(call: Call) -> Axes:
    axes = reshape_axes(call, call.inputs[0], call.input_shapes[0], call.output_shapes[0])
    for position, (vector, given) in enumerate(zip(axes, call.layer.target_shape, strict=True)):
        if given != -1:
            call.size(("target_shape", position), np.full(given, FIXED) if vector is None else vector)
    return axes


def reshape_axes(call: Call, axes: Axes, before: Shape, after: Shape) -> Axes:
    """Where units are after a reshape from shape ``before`` to ``after`` (both without batch).

    Axes are matched from the last to the first, in the smallest blocks with as many elements on both sides. What is in
    front, where an unknown size or the batch takes part, is not followed. Within a block at most one axis may vary
    before, and at most one afterwards: a tensor from which single elements are missing is no tensor. Where more would
    vary, what differs along the other axes is tied together.
    """
    blocks = _blocks(before, after)
    i, j = (blocks[0][0].start, blocks[0][1].start) if blocks else (len(before), len(after))
    unknown = None in (*before[:i], *after[:j])
    call.freeze(axes[:i], f"{call.name!r} reshapes {'an axis of unknown size' if unknown else 'them into samples'}")
    result: list[Vector | None] = [None] * j
    for inside, outside in blocks:
        block, sizes, target = axes[inside], before[inside], after[outside]
        if len(sizes) == len(target) == 1:
            result.append(block[0])
            continue
        varying = [i for i, vector in enumerate(block) if vector is not None]
        if not varying:
            result += [None] * len(target)
        else:
            call.freeze([block[i] for i in varying[:-1]], f"{call.name!r} folds them into other channels")
            moved = block[varying[-1]]
            assert moved is not None
            line = [1] * len(sizes)
            line[varying[-1]] = len(moved)
            elements = np.broadcast_to(moved.reshape(line), sizes).reshape(target)  # type: ignore[arg-type]
            result += _one_axis(call, elements)
    return tuple(result)


def _blocks(before: Shape, after: Shape) -> list[tuple[slice, slice]]:
    """The smallest runs of axes that hold equally many elements on both sides, as far as they go from the right."""
    blocks: list[tuple[slice, slice]] = []
    i, j = len(before), len(after)
    while True:
        end_i, end_j = i, j
        left = right = 1
        while left != right or (i, j) == (end_i, end_j):
            shorter, position = (before, i) if (left <= right and i) or not j else (after, j)
            if not position or shorter[position - 1] is None:
                return blocks[::-1]
            if shorter is before:
                i, left = i - 1, left * (before[i - 1] or 0)
            else:
                j, right = j - 1, right * (after[j - 1] or 0)
        blocks.append((slice(i, end_i), slice(j, end_j)))


def _one_axis(call: Call, elements: np.ndarray) -> list[Vector | None]:
    """The vectors of a block whose elements belong to these units; ties units until one axis says everything."""
    varying = [axis for axis in range(elements.ndim) if not np.array_equal(*_ends(elements, axis))]
    if not varying:
        return [elements.reshape(-1)[:1] if size == 1 and i == 0 else None for i, size in enumerate(elements.shape)]
    kept = max(varying, key=lambda axis: (len(np.unique(_line(elements, axis))), axis))
    first = elements
    for axis in varying:
        if axis == kept:
            continue
        rest = np.moveaxis(first, axis, 0)
        for part in rest[1:]:
            call.unite(rest[0].ravel(), part.ravel(), f"{call.name!r} ties them to channels that cannot be removed")
        first = np.expand_dims(rest[0], axis)
    line = _line(elements, kept)
    return [line if axis == kept else None for axis in range(elements.ndim)]


def _line(elements: np.ndarray, axis: int) -> np.ndarray:
    """The units along one axis, at the first position of the others."""
    return np.moveaxis(elements, axis, 0).reshape(elements.shape[axis], -1)[:, 0]


def _ends(elements: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The array, and the array that it would be if nothing varied along ``axis``."""
    first = np.take(elements, [0], axis)
    return elements, np.broadcast_to(first, elements.shape)
