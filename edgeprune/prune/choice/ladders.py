"""The widths that a group may have, which channels stay at each, and counts of channels as functions of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from edgeprune.prune.channels.graph import Graph, Group, Term
from edgeprune.prune.channels.units import Vector
from edgeprune.prune.choice.budget import Constraints
from edgeprune.prune.choice.program import Tables, Total, summed
from edgeprune.recipe.patterns import matches, value_of
from edgeprune.target import ChannelSteps

# A count that more axes than this decide is an axis of its own, see :class:`edgeprune.prune.choice.program.Total`.
_AXES_OF_A_COUNT = 2


@dataclasses.dataclass(frozen=True)
class Ladder:
    """A group and the widths it may have, the widest first.

    Attributes:
        group: whose channels go.
        order: numbers of units within the group, the first to go first.
        gone: int [widths], how many of ``order`` go at each; rising.
        kept: bool [widths, units of the group], what stays at each. Of every layer that makes some of the channels, as
            many as the constraints demand, the last in order.
    """

    group: Group
    order: Vector
    gone: Vector
    kept: np.ndarray

    def thinned(self, most: int) -> Ladder:
        """With at most so many widths, evenly spread, the first and the last among them."""
        if len(self.gone) <= most:
            return self
        picked = np.unique(np.round(np.linspace(0, len(self.gone) - 1, most)).astype(int))
        return dataclasses.replace(self, gone=self.gone[picked], kept=self.kept[picked])


def ladder(graph: Graph, group: Group, order: Vector, constraints: Constraints) -> Ladder:
    """The widths that the constraints allow a group whose channels go in an order.

    A group with a rate of its own has the one width that is nearest to it.
    """
    rate = value_of(names_of(group), constraints.layer_rates)
    if matches(names_of(group), constraints.protect) or (group.block and rate is not None):
        order = order[:0]  # a block with a layer that has a rate of its own stays for it
    most = max(min(len(order), group.size - constraints.min_channels, int(group.size * constraints.max_rate)), 0)
    if group.block:
        most = len(order)
    gone = _removals(graph, group, constraints.steps, most)
    if rate is not None:
        gone = gone[[int(np.argmin(np.abs(gone - rate * group.size)))]]
    kept = np.ones((len(gone), group.size), bool)
    for row, count in zip(kept, gone.tolist(), strict=True):
        row[order[:count]] = False
    _restore(kept, order, graph, group, constraints.min_channels)
    return Ladder(group, order, gone, kept)


def _restore(kept: np.ndarray, order: Vector, graph: Graph, group: Group, least: int) -> None:
    """Let every layer, also one of several in a group, keep its minimum of channels, the most important ones."""
    number_of = {int(unit): number for number, unit in enumerate(group.units)}
    rank = np.full(group.size, len(order))
    rank[order] = np.arange(len(order))
    vectors = [*((vector, least) for _, _, vector in graph.producers), *((vector, 1) for vector in graph.nonempty)]
    parts = {
        (tuple(sorted({number_of[unit] for unit in vector.tolist() if unit in number_of})), most)
        for vector, most in vectors
    }
    for numbers, most in parts:
        if 0 < len(numbers) < group.size:
            best = np.array(sorted(numbers, key=lambda number: -rank[number]), int)
            for row in kept:
                missing = min(most, len(best)) - int(row[best].sum())
                if missing > 0:
                    row[best[~row[best]][:missing]] = True


def _removals(graph: Graph, group: Group, steps: ChannelSteps, most: int) -> Vector:
    """How many units may go together, at most ``most``, so that layers keep whole steps of channels; rising from 0."""
    widths = {
        int(np.sum(vector == group.units[0])) or 1 for _, _, vector in graph.producers if group.units[0] in vector
    }
    each = max(widths, default=1)  # channels of a unit
    step = _step(group, steps.multiple, each)
    # The first step also takes what does not fill one.
    gone = np.unique([0, *range(group.size % step or step, most + 1, step)])
    if steps.block is None:
        return gone
    kept, coarse = group.size - gone, _step(group, steps.block, each)
    return gone[(gone == 0) | (kept * each <= steps.block) | (kept % coarse == 0)]


def _step(group: Group, multiple: int, each: int) -> int:
    """Units, of ``each`` channels, whose removal changes the layers' channels by a multiple of the target's width."""
    step = multiple // math.gcd(multiple, each)
    # A narrow group may be halved at least. No finer: a vector that is half empty costs as much as a full one.
    while step > 1 and group.size < 2 * step:
        step //= 2
    return step


def names_of(group: Group) -> tuple[str, ...]:
    """The names by which a pattern can select a group."""
    return (group.name, *group.layers, *group.block)


class Widths:
    """The ladders of a model, as axes of a program, and counts of channels as tables over them."""

    def __init__(self, graph: Graph, ladders: Sequence[Ladder]):
        self.graph, self.ladders = graph, tuple(ladders)
        self.sizes = [len(one.gone) for one in ladders]
        self.totals: list[Total] = []
        self._owner = np.full(len(graph.units), -1)
        self._number = np.zeros(len(graph.units), int)
        for index, one in enumerate(ladders):
            self._owner[one.group.units] = index
            self._number[one.group.units] = np.arange(one.group.size)
        self._known: dict[bytes, Tables] = {}

    def keep(self, options: Iterable[int]) -> np.ndarray:
        """bool [units]: what stays if every ladder takes its option."""
        keep = np.ones(len(self.graph.units), bool)
        for one, option in zip(self.ladders, options, strict=True):
            keep[one.group.units] = one.kept[option]
        return keep

    def count(self, vector: Vector) -> Tables:
        """Positions of a vector that stay: a constant and a table for each ladder that has a say."""
        known = self._known.get(vector.tobytes())
        if known is None:
            owners = self._owner[vector]
            tables: dict[tuple[int, ...], np.ndarray] = {(): np.array(float(np.count_nonzero(owners < 0)))}
            for index in np.unique(owners[owners >= 0]).tolist():
                one = self.ladders[index]
                times = np.bincount(self._number[vector[owners == index]], minlength=one.group.size)
                values = one.kept @ times.astype(float)
                key = () if len(values) == 1 or np.ptp(values) == 0 else (index,)
                tables[key] = tables.get(key, 0.0) + (values if key else values[0])
            known = self._known[vector.tobytes()] = tables
        return known

    def axis(self, vector: Vector, points: int = 2) -> Tables:
        """The same over one axis: that of its ladder, or a total of several.

        Args:
            points: in which a total is looked at; two are exact where what it is multiplied by does not depend on it.
        """
        tables = self.count(vector)
        if len([key for key in tables if key]) <= 1:
            return tables
        index = self._total(tables, points)
        return {(index,): self.totals[index - len(self.sizes)].points}

    def sum_of(self, terms: Iterable[Term]) -> Tables:
        """The sum of terms, such as the MACs of a model."""
        return summed(map(self._of_term, terms))

    def _of_term(self, term: Term) -> Tables:
        counts = [self.count(vector) for vector in term.vectors]
        if len({axis for count in counts for key in count for axis in key}) > _AXES_OF_A_COUNT:
            counts = [self.axis(vector) for vector in term.vectors]
        return product([{(): np.array(term.coefficient)}, *counts])

    def _total(self, tables: Tables, points: int) -> int:
        least, largest = (sum(float(of(values)) for values in tables.values()) for of in (np.min, np.max))
        spread = np.unique(np.round(np.linspace(least, largest, points)))
        for index, total in enumerate(self.totals):
            if total.tables is tables and np.array_equal(total.points, spread):
                return len(self.sizes) + index
        self.totals.append(Total(tables, spread))
        return len(self.sizes) + len(self.totals) - 1


def product(factors: Sequence[Tables]) -> Tables:
    """The product of sums of tables, as a sum of tables."""
    return functools.reduce(_times, factors, {(): np.array(1.0)})


def _times(one: Tables, other: Tables) -> Tables:
    return summed(
        {key: _spread(a, ours, key) * _spread(b, theirs, key)}
        for ours, a in one.items()
        for theirs, b in other.items()
        for key in [tuple(sorted({*ours, *theirs}))]
    )


def _spread(values: np.ndarray, axes: tuple[int, ...], key: tuple[int, ...]) -> np.ndarray:
    """A table over some axes as one over more, to be broadcast; ``axes`` and ``key`` are sorted."""
    shape = [1] * len(key)
    for axis, size in zip(axes, np.shape(values), strict=True):
        shape[key.index(axis)] = size
    return np.reshape(values, shape)
