"""Channel rules of TensorFlow operations in a functional model (``TFOpLambda``), keyed by the operation's symbol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeprune.models.graph import is_symbolic, symbol_of
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes, Edit, Path
from edgeprune.prune.channels.rules.axes import as_list, is_batch, length, lengths, without_batch
from edgeprune.prune.channels.rules.registry import AnyChannelRule, ChannelRule, opaque, register
from edgeprune.prune.channels.rules.shape import broadcast, join, reshape_axes
from edgeprune.prune.channels.units import Vector

OPS: dict[str, ChannelRule] = {}
# What TensorFlow 1 called axes and keepdims.
FORMER_NAMES = ("dim", "squeeze_dims", "reduction_indices", "keep_dims")


def op(*symbols: str) -> Callable[[AnyChannelRule], AnyChannelRule]:
    """Enter a rule for operations of these symbols."""

    def enter(rule: AnyChannelRule) -> AnyChannelRule:
        OPS.update(dict.fromkeys(symbols, rule))
        return rule

    return enter


@register("TFOpLambda", "SlicingOpLambda")
def operation(call: Call) -> list[Axes]:
    symbol = symbol_of(call.layer)
    rule = OPS.get(symbol)
    if rule is None or any(call.node.call_kwargs.get(name) is not None for name in FORMER_NAMES):
        return opaque(call, f"no channel rule for the operation {symbol} ({call.name!r})")
    axes = rule(call)
    return axes if isinstance(axes, list) else [axes]


def argument(call: Call, position: int, name: str, default: Any = None) -> Any:
    """An argument of the operation, however it was passed."""
    args, kwargs = call.node.call_args, call.node.call_kwargs
    return args[position] if len(args) > position else kwargs.get(name, default)


def path_to(call: Call, position: int, name: str) -> Path:
    """Where the argument stands, for an edit."""
    return (0, position) if len(call.node.call_args) > position else (1, name)


def refuse(call: Call, why: str) -> Axes:
    """An operation of one output that cannot be followed."""
    return opaque(call, f"{call.name!r} {why}")[0]


@op("concat")
def concat(call: Call) -> Axes:
    axis = int(argument(call, 1, "axis", 0))
    joins_samples = is_batch(axis, len(call.input_shapes[0]))
    if joins_samples or len(call.inputs) != len(argument(call, 0, "values")):
        return refuse(call, "joins samples" if joins_samples else "joins them to constants")
    return join(call, call.inputs, call.input_shapes, without_batch(axis))


@op("nn.depth_to_space")
def depth_to_space(call: Call) -> Axes:
    """Every channel that comes out is made of as many as a block has positions: they go together."""

    def joined(vector: Vector, positions: int) -> Vector:
        first, *others = vector.reshape(positions, -1)
        for other in others:
            call.unite(first, other, f"{call.name!r} makes one channel of several")
        return first

    return _by_block(call, joined)


@op("nn.space_to_depth")
def space_to_depth(call: Call) -> Axes:
    """A channel becomes one for every position in a block."""
    return _by_block(call, np.tile)


def _by_block(call: Call, channels: Callable[[Vector, int], Vector]) -> Axes:
    """``channels``: (vector, positions in a block) → the vector that comes out."""
    if argument(call, 2, "data_format", "NHWC") != "NHWC":
        return refuse(call, "puts channels first")
    vector = call.inputs[0][-1]
    call.freeze(call.inputs[0][:-1], f"{call.name!r} moves these positions")
    return (None, None, None if vector is None else channels(vector, int(argument(call, 1, "block_size")) ** 2))


@op("stack")
def stack(call: Call) -> Axes:
    """Tensors side by side along a new axis: they lose the same channels."""
    axis, rank = int(argument(call, 1, "axis", 0)), len(call.input_shapes[0])
    if is_batch(axis, rank + 1) or len(call.inputs) != len(argument(call, 0, "values")):
        return refuse(call, "stacks constants, or along samples")
    axes, position = broadcast(call, call.inputs, call.input_shapes)[0], without_batch(axis) % (rank + 1)
    return (*axes[:position], None, *axes[position:])


@op("tile")
def tile(call: Call) -> Axes:
    multiples = argument(call, 1, "multiples")
    if is_symbolic(multiples) or any(map(is_symbolic, multiples)) or multiples[0] != 1:
        return refuse(call, "repeats samples, or as often as is known only at run time")
    repeated = [vector for vector, times in zip(call.inputs[0], multiples[1:], strict=True) if times != 1]
    call.freeze(repeated, f"{call.name!r} repeats them")
    return tuple(v if times == 1 else None for v, times in zip(call.inputs[0], multiples[1:], strict=True))


@op("reshape")
def reshape(call: Call) -> Axes:
    shape = argument(call, 1, "shape")
    if hasattr(shape, "shape") and not is_symbolic(shape):
        shape = np.asarray(shape).tolist()
    if not isinstance(shape, list | tuple) or len(shape) != len(call.output_shapes[0]) + 1:
        return refuse(call, "has a shape that is known only at run time")
    axes = reshape_axes(call, call.inputs[0], call.input_shapes[0], call.output_shapes[0])
    path = path_to(call, 1, "shape")
    for position, vector in enumerate(axes, 1):
        if vector is not None and is_symbolic(shape[position]):
            call.freeze([vector], f"{call.name!r} computes its shape at run time")
        elif vector is not None and shape[position] != -1:
            call.edit(Edit((*path, position), vector))
    return axes


@op("shape")
def shape(call: Call) -> Axes:
    """Sizes at run time: nothing is lost as long as only those of samples, or of axes that stay, are looked at."""
    axes = call.inputs[0]
    readers = call.graph.view.readers(call.node.outputs)
    for node in readers:
        spec = node.call_args[1] if len(node.call_args) > 1 else node.call_kwargs.get("slice_spec")
        index = spec[0] if isinstance(spec, list | tuple) and len(spec) == 1 else spec
        call.freeze(
            [axes[axis - 1] for axis in _picked(index, len(axes) + 1) if axis], f"{call.name!r} looks at their number"
        )
    if not readers:
        call.freeze(axes, f"{call.name!r} looks at their number")
    return ()


def _picked(index: Any, rank: int) -> list[int]:
    """The axes whose sizes an index or a slice takes; all of them where it is not known."""
    if isinstance(index, int) and -rank <= index < rank:
        return [index % rank]
    if isinstance(index, dict) and all(isinstance(bound, int | None) for bound in index.values()):
        return list(range(rank))[slice(index["start"], index["stop"], index["step"])]
    return list(range(rank))


@op("transpose")
def transpose(call: Call) -> Axes:
    order, axes = argument(call, 1, "perm"), call.inputs[0]
    if order is None or is_symbolic(order) or not is_batch(order[0], len(axes)):
        return refuse(call, "moves samples")
    return tuple(axes[without_batch(axis) % len(axes)] for axis in order[1:])


@op("expand_dims")
def expand_dims(call: Call) -> Axes:
    axis = int(argument(call, 1, "axis"))
    if axis in (0, -len(call.inputs[0]) - 2):
        return refuse(call, "moves samples")
    position = without_batch(axis) % (len(call.inputs[0]) + 1)
    return (*call.inputs[0][:position], None, *call.inputs[0][position:])


@op("squeeze")
def squeeze(call: Call) -> Axes:
    given = as_list(argument(call, 1, "axis"))
    if None in given or 0 in given:
        return refuse(call, "drops whatever axes have size 1" if None in given else "drops the axis of samples")
    gone = {without_batch(axis) % len(call.inputs[0]) for axis in given}
    return tuple(vector for position, vector in enumerate(call.inputs[0]) if position not in gone)


@op(
    "math.reduce_mean", "math.reduce_sum", "math.reduce_max", "math.reduce_min", "reduce_mean", "reduce_sum",
    "math.reduce_variance", "math.reduce_std", "math.reduce_prod",
)  # fmt: skip
def reduce(call: Call) -> Axes:
    """Channels may be summed over, but not averaged or compared."""
    axes = call.inputs[0]
    given, keep = as_list(argument(call, 1, "axis")), bool(argument(call, 2, "keepdims", False))
    if None in given or 0 in given:
        return refuse(call, "reduces over samples")
    gone = {without_batch(axis) % len(axes) for axis in given}
    for position in gone:
        if "sum" in symbol_of(call.layer):
            call.mask(0, position, axes[position])
        else:
            call.freeze([axes[position]], f"{call.name!r} reduces over these channels")
    if keep:
        return tuple(None if i in gone else vector for i, vector in enumerate(axes))
    return tuple(vector for i, vector in enumerate(axes) if i not in gone)


@op("pad")
def pad(call: Call) -> Axes:
    """Zeros beside the channels, as where a residual block widens, go with whatever is added to them."""
    axes, pads = call.inputs[0], argument(call, 1, "paddings")
    mode = argument(call, 2, "mode", "CONSTANT").upper()
    # Positional, the value stands at one place in TensorFlow 1 and at another in 2.
    values = (*call.node.call_args[3:], call.node.call_kwargs.get("constant_values", 0))
    of_zeros = mode == "CONSTANT" and not any(isinstance(value, int | float) and value for value in values)
    if hasattr(pads, "shape") or is_symbolic(pads) or not of_zeros or axes[-1] is None or not any(pads[-1]):
        return spatial(call)
    before, after = (call.graph.units.new(int(count)) for count in pads[-1])
    path = path_to(call, 1, "paddings")
    call.edit(Edit((*path, len(axes), 0), before), Edit((*path, len(axes), 1), after))
    call.freeze(axes[:-1], f"{call.name!r} works on these positions")
    return (*(None,) * (len(axes) - 1), np.concatenate([before, axes[-1], after]))


@op(
    "image.resize", "image.resize_bilinear", "image.resize_nearest_neighbor", "nn.avg_pool", "nn.max_pool",
    "nn.avg_pool2d", "nn.max_pool2d",
)  # fmt: skip
def spatial(call: Call) -> Axes:
    """Works on positions; whatever has changed its size cannot be followed."""
    axes = call.inputs[0]
    changed = [i for i, (a, b) in enumerate(zip(call.input_shapes[0], call.output_shapes[0], strict=True)) if a != b]
    call.freeze([axes[i] for i in changed], f"{call.name!r} pads or moves them")
    call.freeze(axes[:-1], f"{call.name!r} works on these positions")
    return tuple(None if i in changed or i < len(axes) - 1 else vector for i, vector in enumerate(axes))


@op("nn.softmax", "nn.log_softmax")
def softmax(call: Call) -> Axes:
    axis = int(argument(call, 1, "axis", -1) if argument(call, 1, "axis", -1) is not None else -1)
    call.freeze([call.inputs[0][without_batch(axis)]], f"softmax normalises over these channels ({call.name!r})")
    return call.inputs[0]


@op("split")
def split(call: Call) -> list[Axes]:
    """Parts of given sizes shrink each by itself; equal parts lose the same positions."""
    sizes, axis = argument(call, 1, "num_or_size_splits"), int(argument(call, 2, "axis", 0))
    position = without_batch(axis)
    vector = call.inputs[0][position]
    others = list(call.inputs[0])
    if axis == 0 or len(call.inputs) > 1:
        refuse(call, "splits samples" if axis == 0 else "splits them into parts whose sizes are computed")
        return [(None,) * len(shape) for shape in call.output_shapes]
    if vector is None:
        return [tuple(others)] * len(call.output_shapes)
    lengths = [shape[position] for shape in call.output_shapes]
    parts = np.split(vector, np.cumsum(lengths)[:-1])  # type: ignore[arg-type]
    if np.ndim(sizes) == 0:
        for part in parts[1:]:
            call.unite(parts[0], part, f"{call.name!r} splits them into equal parts")
    else:
        path = path_to(call, 1, "num_or_size_splits")
        call.edit(*[Edit((*path, i), part) for i, part in enumerate(parts)])
    call.graph.nonempty += parts
    return [tuple(part if i == position % len(others) else v for i, v in enumerate(others)) for part in parts]


@op("__operators__.getitem")
def getitem(call: Call) -> Axes:
    """Slices; along an axis that shrinks, the bounds move with what was removed before them."""
    axes = call.inputs[0]
    spec = as_list(argument(call, 1, "slice_spec"))
    expanded = _full_spec(spec, len(axes) + 1)
    if expanded is None or not isinstance(expanded[0][0], dict):
        return refuse(call, "indexes in a way that cannot be followed")
    result: list[Vector | None] = []
    position = -1
    for part, place in expanded:
        if part is None:
            result.append(None)
            continue
        position += 1
        vector = axes[position - 1] if position else None
        whole = isinstance(part, dict) and all(part[key] is None for key in ("start", "stop", "step"))
        if not isinstance(part, dict):
            call.freeze([vector], f"{call.name!r} picks one of them by its number")
            continue
        if position == 0:
            continue
        result.append(vector if whole or vector is None else _sliced(call, vector, part, place))
    return tuple(result)


def _full_spec(spec: Sequence[Any], rank: int) -> list[tuple[Any, int]] | None:
    """The slice of every axis, or None for a new one, and its place in ``spec``; None if there are arrays in it."""
    if not all(isinstance(part, int | dict | type(Ellipsis) | str | None) for part in spec):
        return None
    rank += sum(part is None for part in spec)
    dots = [i for i, part in enumerate(spec) if part is Ellipsis or part == "Ellipsis"]
    everything = {"start": None, "stop": None, "step": None}
    if not dots:
        rows = [(part, i) for i, part in enumerate(spec)]
        return rows + [(everything, -1)] * (rank - len(rows))
    before = [(part, i) for i, part in enumerate(spec) if i < dots[0]]
    after = [(part, i) for i, part in enumerate(spec) if i > dots[0]]
    return before + [(everything, -1)] * (rank - len(before) - len(after)) + after


def _sliced(call: Call, vector: Vector, part: dict[str, Any], place: int) -> Vector | None:
    if part["step"] not in (None, 1) or any(is_symbolic(part[key]) for key in ("start", "stop")):
        call.freeze([vector], f"{call.name!r} takes some of them by number")
        return None
    start, stop, _ = slice(part["start"], part["stop"]).indices(len(vector))
    path = path_to(call, 1, "slice_spec")
    path = (*path, place) if isinstance(argument(call, 1, "slice_spec"), list | tuple) else path
    for key, bound in (("start", start), ("stop", stop)):
        if part[key] is not None:
            call.edit(Edit((*path, key), vector[:bound]))
    call.graph.nonempty.append(vector[start:stop])
    return vector[start:stop]


@op("linalg.matmul", "matmul", "__operators__.matmul")
def matmul(call: Call) -> Axes:
    """A product of two tensors: a sum over the last axis of one and the last but one of the other."""
    if len(call.inputs) != 2 or len(call.inputs[0]) < 2 or len(call.inputs[0]) != len(call.inputs[1]):
        return refuse(call, "multiplies with a constant")
    a, b = call.inputs
    flip_a, flip_b = bool(argument(call, 2, "transpose_a", False)), bool(argument(call, 3, "transpose_b", False))
    if any(argument(call, 4 + i, name, False) for i, name in enumerate(("adjoint_a", "adjoint_b"))):
        return refuse(call, "multiplies with an adjoint")
    summed_a, kept_a = (-2, -1) if flip_a else (-1, -2)
    summed_b, kept_b = (-1, -2) if flip_b else (-2, -1)
    left, right = a[summed_a], b[summed_b]
    if left is None or right is None:
        call.freeze([left, right], f"{call.name!r} multiplies them with channels that cannot be removed")
    else:
        call.unite(left, right, f"{call.name!r} multiplies them with channels that cannot be removed")
        call.mask(0, len(a) + summed_a, left)
    stacked = (
        broadcast(call, [a[:-2], b[:-2]], [call.input_shapes[0][:-2], call.input_shapes[1][:-2]])[0] if a[:-2] else ()
    )
    axes = (*stacked, a[kept_a], b[kept_b])
    call.count_macs(1.0, length(call, summed_a), *lengths(axes, call.output_shapes[0]))
    return axes
