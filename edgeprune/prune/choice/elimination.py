"""Which channels a model can do without, if what is left is refitted: backward elimination by refitted error.

Removing channel after channel, always the one whose absence raises the error of the refitted consumers least, gives an
order and an error for every width (optimal brain surgeon, Hassibi & Stork 1993, with blocks as in optimal brain
compression, Frantar & Alistarh 2022, arXiv:2208.11580; for channels: OSSCAR, Meng et al. 2024, arXiv:2403.12983). With
the moments S of a consumer's inputs, the error of removing the terms B and refitting the others is
W_B' ([S⁻¹]_BB)⁻¹ W_B, and S⁻¹ and W without them follow from those with them by a block update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.prune.channels.units import Vector
from edgeprune.reconstruction.fisher import output_fisher
from edgeprune.reconstruction.inputs import input_moments
from edgeprune.reconstruction.linear import Product, product_of
from edgeprune.reconstruction.moments import with_ridge
from edgeprune.reconstruction.refit import RIDGE
from edgeprune.reconstruction.threads import one_thread

# A group of more channels loses several at once.
STEPS = 128


@dataclasses.dataclass(frozen=True)
class Elimination:
    """The order in which a group loses channels.

    Attributes:
        order: numbers of units within the group, the first to go first; units that cannot be removed are left out.
        errors: float64 [len(order) + 1], the error of the consumers once so many are gone and the others refitted,
            weighted and summed over consumers.
    """

    order: Vector
    errors: np.ndarray


@dataclasses.dataclass
class Consumer:
    """A layer that sums over channels: its inverse moments and weights, with what is gone already left out.

    Attributes:
        units: unit of each term, int [terms].
        inverse: of the moments, float64 [terms, terms].
        matrix: refitted weights, float64 [terms, columns], with the root of the weight of each column's error.
    """

    units: Vector
    inverse: np.ndarray
    matrix: np.ndarray


def eliminate(group: Group, consumers: Sequence[Consumer]) -> Elimination:
    """Order the removable units of a group, of which one stays; ``consumers`` are changed."""
    left = [int(unit) for unit in group.units[group.free]]
    number_of = {int(unit): number for number, unit in enumerate(group.units)}
    places = [_Places.of(consumer, left) for consumer in consumers]
    order: list[int] = []
    errors = [0.0]
    at_once = max(1, len(left) // STEPS)
    stays = int(len(left) == group.size)
    while len(left) > stays:
        costs = sum((place.costs(left) for place in places), np.zeros(len(left)))
        for index in np.argsort(costs, kind="stable")[: min(at_once, len(left) - stays)]:
            unit = left[index]
            errors.append(errors[-1] + sum(place.remove(unit) for place in places))
            order.append(number_of[unit])
        gone = {int(group.units[number]) for number in order}
        left = [unit for unit in left if unit not in gone]
    return Elimination(np.array(order, int), np.array(errors))


class _Places:
    """Where the terms of each unit are in a consumer."""

    def __init__(self, consumer: Consumer, terms: dict[int, np.ndarray]):
        self.consumer, self.terms = consumer, terms

    @classmethod
    def of(cls, consumer: Consumer, units: Sequence[int]) -> _Places:
        order = np.argsort(consumer.units, kind="stable")
        values = consumer.units[order]
        bounds = zip(np.searchsorted(values, units), np.searchsorted(values, units, "right"), strict=True)
        return cls(consumer, {unit: order[a:b] for unit, (a, b) in zip(units, bounds, strict=True) if b > a})

    def costs(self, units: Sequence[int]) -> np.ndarray:
        """How much the error rises with each of the units gone."""
        found = np.zeros(len(units))
        by_size: dict[int, list[int]] = {}
        for number, unit in enumerate(units):
            if unit in self.terms:
                by_size.setdefault(len(self.terms[unit]), []).append(number)
        for numbers in by_size.values():
            terms = np.stack([self.terms[units[number]] for number in numbers])
            blocks = self.consumer.inverse[terms[:, :, None], terms[:, None]]
            rows = self.consumer.matrix[terms]
            found[numbers] = (rows * np.linalg.solve(blocks, rows)).sum((1, 2))
        return found

    def remove(self, unit: int) -> float:
        """Take the terms of a unit out, refit the others, and say by how much the error rises."""
        terms = self.terms.get(unit)
        if terms is None:
            return 0.0
        inverse, matrix = self.consumer.inverse, self.consumer.matrix
        rows = matrix[terms].copy()
        solved = np.linalg.solve(inverse[np.ix_(terms, terms)], np.concatenate([rows, inverse[terms]], 1))
        columns = inverse[:, terms].copy()
        cost = float((rows * solved[:, : rows.shape[1]]).sum())
        matrix -= columns @ solved[:, : rows.shape[1]]
        inverse -= columns @ solved[:, rows.shape[1] :]
        matrix[terms] = 0
        # What is gone must not touch what is left: its rows are zero up to rounding, which would add up.
        inverse[terms], inverse[:, terms] = 0, 0
        return cost


def eliminations(graph: Graph, batches: Sequence[Sequence[np.ndarray]], seed: int = 0) -> dict[str, Elimination]:
    """The elimination of every group that can lose channels and has consumers that can be refitted.

    An error of a consumer's output counts as the model's answers feel it (:mod:`edgeprune.reconstruction.fisher`).

    Args:
        batches: per batch the inputs, in the order of the graph's model.
        seed: of the rows that are looked at, and of the Fisher information.
    """
    found = {}
    consumers = consumers_of(graph, batches, output_fisher(graph.model, batches, seed), seed)
    for group in graph.groups:
        units = group.units[group.free]
        reading = [consumer for consumer in consumers if np.isin(consumer.units, units).any()]
        if reading:
            copies = [Consumer(one.units, one.inverse.copy(), one.matrix.copy()) for one in reading]
            found[group.name] = eliminate(group, copies)
    return found


def consumers_of(
    graph: Graph, batches: Sequence[Sequence[np.ndarray]], fisher: Mapping[str, np.ndarray], seed: int = 0
) -> list[Consumer]:
    """The layers that sum over channels and can be refitted, one per part of their product.

    Args:
        fisher: layer → weight of a squared error of each channel of its output; those without are left out.
    """
    taps = [tap for tap in _taps(graph) if tap.layer in fisher]
    moments = input_moments(graph.model, batches, [tap.layer for tap in taps], seed)
    found = []
    for tap in taps:
        sums = moments.pop(tap.layer)
        squares, *_ = sums.centered(intercept=True)
        weight = np.sqrt(fisher[tap.layer]).reshape(tap.product.parts, 1, -1)
        units = tap.units.reshape(tap.product.parts, -1)
        for part, square in enumerate(with_ridge(squares, RIDGE)):
            terms = np.tile(units[part], len(square) // units.shape[1])
            with one_thread():
                inverse = np.linalg.inv(square)
            found.append(Consumer(terms, inverse, (tap.product.matrix * weight)[part]))
    return found


@dataclasses.dataclass(frozen=True)
class _Tap:
    """A layer that sums over channels along the last axis of what it reads, and their units."""

    layer: str
    product: Product
    units: Vector


def _taps(graph: Graph) -> Iterator[_Tap]:
    for node in graph.view.nodes:
        product = product_of(node.layer)
        if product is None or len(graph.view.uses(node.layer)) > 1:
            continue
        for binding in graph.layers[node.layer.name].bindings:
            if binding.role == "consumed" and node.layer.weights[binding.weight] is product.weight:
                (tensor,) = node.keras_inputs
                axes = graph.axes[id(tensor)]
                if axes and axes[-1] is not None:
                    yield _Tap(node.layer.name, product, axes[-1])
                break
