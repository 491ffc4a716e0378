"""Axes as rules count them: without the batch, and with the vector of units along each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgeprune.models.types import Layer
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes
from edgeprune.prune.channels.units import Vector


def channel_axis(layer: Layer) -> int:
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
