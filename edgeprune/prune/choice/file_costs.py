"""What a file costs on a board, as a function of the channels that stay: milliseconds, memory and bytes.

Milliseconds are those that a profile of the file shows, by the model of latency or the target's compiler, operator by
operator, at every pair of widths. What depends on the whole file (caches, gaps between tensors in memory) is left to
the exact count of a choice, after which :func:`edgeprune.prune.choice.allocation.allocate` corrects the limit.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from edgeprune.hardware.latency.estimate import KernelSet, Prediction, clock, predict
from edgeprune.hardware.latency.source import Source, latency_source
from edgeprune.prune.choice.budget import Resource
from edgeprune.prune.choice.compiled_costs import CompilerTimes
from edgeprune.prune.choice.file_shapes import FileShapes
from edgeprune.prune.choice.ladders import Widths, product
from edgeprune.prune.choice.program import Tables, summed
from edgeprune.target import Target
from edgeprune.tflite.graph import Operator, Subgraph, Tensor
from edgeprune.tflite.memory import plan
from edgeprune.tflite.scratch import scratch

# A sum of many widths is looked at in so many points.
_POINTS = 9
# By which the length of metadata and the alignment of buffers may differ.
_SPARE_BYTES = 256
# Of one channel's scale and zero point, where each has its own.
_QUANTIZATION_BYTES = 12

Exact = Callable[[Subgraph], float]
Clock = Callable[[Subgraph, Operator], float]


class Times(Protocol):
    """A source of milliseconds for files of a model on a target."""

    whole: float
    """Of the file as it is."""
    close: float
    """How near to a limit a choice is brought."""

    def exact(self, keep: np.ndarray) -> float:
        """Of the file in which only some units stay: bool [units]."""

    def clock(self, widths: Widths) -> tuple[float, Clock]:
        """What belongs to no operator, and a function for an operator of a graph with other sizes."""


class _Estimates:
    """By the target's coefficients."""

    close = Resource.close

    def __init__(self, shapes: FileShapes, target: Target, kernels: KernelSet | None, threads: int | None):
        self._shapes, self._how = shapes, (target, kernels, threads)
        self.whole = self._predicted(shapes.base).estimate.median_ms

    def _predicted(self, graph: Subgraph) -> Prediction:
        found = predict(graph, *self._how)
        assert found is not None
        return found

    def exact(self, keep: np.ndarray) -> float:
        return self._predicted(self._shapes.at(keep)).estimate.median_ms

    def clock(self, widths: Widths) -> tuple[float, Clock]:
        # Starting an accelerator and what goes over its link belong to no operator, and may be most of the time. What
        # is left at the least widths is there at all.
        narrowest = [0 if one.group.block else len(one.gone) - 1 for one in widths.ladders]
        least = self._predicted(self._shapes.at(widths.keep(narrowest)))
        rest = max(least.estimate.median_ms - sum(least.operator_ms), 0.0)
        return rest, clock(self._shapes.base, *self._how)


_TIMES: dict[Source, Callable[[FileShapes, Target, KernelSet | None, int | None], Times]] = {
    "coefficients": _Estimates,
    "compiler": lambda shapes, target, kernels, threads: CompilerTimes(shapes, target),
}


def latency(
    shapes: FileShapes, target: Target, kernels: KernelSet | None = None, threads: int | None = None
) -> Resource:
    """The milliseconds on a target whose speed is known, see :func:`latency_source`.

    Args:
        kernels, threads: of estimates by coefficients; None for the target's.
    """
    source = latency_source(target)
    assert source is not None
    times = _TIMES[source](shapes, target, kernels, threads)

    def tables(widths: Widths) -> tuple[Tables, ...]:
        rest, milliseconds = times.clock(widths)
        each = {one.index: _of_operator(shapes, widths, one, milliseconds) for one in shapes.base.operators}
        costs = [product([cost, _there(widths, shapes.blocks.get(index))]) for index, cost in each.items()]
        return (summed([{(): np.array(rest)}, *costs]),)

    whole = times.whole
    return Resource("latency", "max_latency", "milliseconds", whole, whole, tables, times.exact, "ms", times.close)


def memory(shapes: FileShapes) -> Resource:
    """The bytes of the arena: the peak over the operators, and the plan of the interpreter afterwards."""

    def exact(graph: Subgraph) -> float:
        return float(plan(graph).arena_bytes)

    blocks = plan(shapes.base).allocations
    # By operator, the tensors that are alive while it runs; scratch memory is no tensor.
    alive = {
        operator.index: frozenset(one.tensor for one in blocks if one.first <= operator.index <= one.last) - {-1}
        for operator in shapes.base.operators
    }
    working = {operator.index for operator in shapes.base.operators if scratch(shapes.base, operator).arena}

    def is_covered(index: int) -> bool:
        """Whether it takes no more than another operator, whatever the widths."""
        some = alive[index]
        return index not in working and any(
            some < others or (some == others and (other in working or other < index)) for other, others in alive.items()
        )

    def tables(widths: Widths) -> tuple[Tables, ...]:
        each = {tensor.index: _bytes(shapes, widths, tensor) for tensor in shapes.base.tensors}
        return tuple(
            summed(
                [
                    *(each[index] for index in alive[one.index]),
                    product([_scratch_bytes(shapes, widths, one), _there(widths, shapes.blocks.get(one.index))]),
                ]
            )
            for one in shapes.base.operators
            if not is_covered(one.index)
        )

    return _resource(shapes, "memory", "arena", tables, exact, "bytes")


def size(shapes: FileShapes) -> Resource:
    """The bytes of the file."""
    rest = len(shapes.content) - _stored_bytes(shapes.base) + _SPARE_BYTES

    def exact(graph: Subgraph) -> float:
        return float(rest + _stored_bytes(graph))

    def tables(widths: Widths) -> tuple[Tables, ...]:
        constants = [tensor for tensor in shapes.base.tensors if tensor.constant]
        parts = [_bytes(shapes, widths, tensor) for tensor in constants]
        scales = [_scale_bytes(shapes, widths, tensor) for tensor in constants if _has_scales(tensor)]
        return (summed([{(): np.array(float(rest))}, *parts, *scales]),)

    return _resource(shapes, "size", "file", tables, exact, "bytes")


def _resource(
    shapes: FileShapes,
    name: str,
    words: str,
    tables: Callable[[Widths], tuple[Tables, ...]],
    exact: Exact,
    unit: str,
) -> Resource:
    """All of it may be used, until :meth:`Resource.limited` says how much."""
    whole = exact(shapes.base)
    return Resource(name, f"max_{name}", words, whole, whole, tables, lambda keep: exact(shapes.at(keep)), unit)


def _of_operator(
    shapes: FileShapes, widths: Widths, operator: Operator, amount: Callable[[Subgraph, Operator], float]
) -> Tables:
    """An amount, such as the time, of an operator at all widths of what it reads and makes."""
    used = sorted({index for index in (*operator.inputs, *operator.outputs) if index >= 0})
    place = {index: number for number, index in enumerate(used)} | {-1: -1}
    alone = dataclasses.replace(
        operator,
        inputs=tuple(place[index] for index in operator.inputs),
        outputs=tuple(place[index] for index in operator.outputs),
    )
    tensors = [dataclasses.replace(shapes.base.tensors[index], index=place[index]) for index in used]
    dimensions = [(place[index], one) for index in used for one in shapes.dimensions.get(index, ())]
    counts = {one.vector.tobytes(): _points(widths, one.vector) for _, one in dimensions}
    key = tuple(sorted({axis for axes, _ in counts.values() for axis in axes}))
    lengths = {axis: len(values) for axes, values in counts.values() for axis in axes}
    found = np.empty([lengths[axis] for axis in key])
    for options in itertools.product(*(range(lengths[axis]) for axis in key)):
        at = dict(zip(key, options, strict=True))
        resized = list(tensors)
        for number, one in dimensions:
            axes, values = counts[one.vector.tobytes()]
            shape = list(resized[number].shape)
            shape[one.axis] = one.times * int(values[at[axes[0]]] if axes else values)
            resized[number] = dataclasses.replace(resized[number], shape=tuple(shape))
        found[options] = amount(Subgraph("", tuple(resized), (alone,), (), ()), alone)
    # What does not depend on an axis needs no variables for it.
    for place_of_axis in reversed(range(len(key))):
        first = found.take([0], place_of_axis)
        if np.array_equal(np.broadcast_to(first, found.shape), found):
            found, key = first.squeeze(place_of_axis), key[:place_of_axis] + key[place_of_axis + 1 :]
    return {key: found}


def _scratch_bytes(shapes: FileShapes, widths: Widths, operator: Operator) -> Tables:
    """What its kernel allocates while an operator runs."""
    if not scratch(shapes.base, operator).arena:
        return {}
    return _of_operator(shapes, widths, operator, lambda graph, one: float(sum(scratch(graph, one).arena)))


def _points(widths: Widths, vector: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """The axis that decides a count, if any does, and the count at each of its options."""
    tables = widths.axis(vector, _POINTS)
    keys = [key for key in tables if key]
    constant = round(float(tables.get((), np.array(0.0))))
    if not keys:
        return (), np.array(constant)
    return keys[0], np.round(tables[keys[0]]).astype(int) + constant


def _bytes(shapes: FileShapes, widths: Widths, tensor: Tensor) -> Tables:
    dimensions = shapes.dimensions.get(tensor.index, [])
    constant = float(tensor.nbytes)
    for one in dimensions:
        constant = constant / tensor.shape[one.axis] * one.times
    counts = (widths.axis(one.vector) for one in dimensions)
    return product([{(): np.array(constant)}, *counts, _there(widths, shapes.of_tensor(tensor.index))])


def _there(widths: Widths, block: np.ndarray | None) -> Tables:
    """1 where the block is there that something belongs to, else 0."""
    return {(): np.array(1.0)} if block is None else widths.count(block)


def _scale_bytes(shapes: FileShapes, widths: Widths, tensor: Tensor) -> Tables:
    assert tensor.quantization is not None
    axis = tensor.quantization.axis
    counts = [one for one in shapes.dimensions.get(tensor.index, ()) if one.axis == axis]
    times = counts[0].times if counts else tensor.shape[axis]
    follows = [widths.axis(one.vector) for one in counts]
    return product(
        [{(): np.array(float(times * _QUANTIZATION_BYTES))}, *follows, _there(widths, shapes.of_tensor(tensor.index))]
    )


def _stored_bytes(graph: Subgraph) -> int:
    constants = [tensor for tensor in graph.tensors if tensor.constant]
    scales = sum(
        tensor.shape[tensor.quantization.axis] * _QUANTIZATION_BYTES
        for tensor in constants
        if tensor.quantization and _has_scales(tensor)
    )
    return scales + sum(tensor.nbytes for tensor in constants)


def _has_scales(tensor: Tensor) -> bool:
    """Whether each channel has a scale of its own."""
    return tensor.quantization is not None and len(tensor.quantization.scale) > 1
