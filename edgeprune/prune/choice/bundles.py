"""Channels go in bundles: of every group its units in order of importance, as many at once as fill a vector."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.prune.choice.budget import Constraints
from edgeprune.recipe.patterns import matches, value_of


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A group with its removable units, the least important first, and how many of them may be removed."""

    group: Group
    order: np.ndarray  # unit numbers within the group, least important first
    scores: np.ndarray
    most: int  # units that may go
    step: int  # units in a bundle
    rate: float | None  # the recipe's own rate for the group

    @classmethod
    def of(cls, graph: Graph, group: Group, scores: np.ndarray, constraints: Constraints) -> Candidate:
        free = group.free
        if matches(names_of(group), constraints.protect):
            free = free[:0]
        own = value_of(names_of(group), constraints.layer_rates)
        most = min(len(free), group.size - constraints.min_channels, int(group.size * constraints.max_rate))
        order = free[np.argsort(scores[free], kind="stable")]
        return cls(group, order, scores, max(most, 0), _step(graph, group, constraints), own)

    def own_bundles(self) -> int:
        """The bundles that come nearest to the group's own rate; none where it has none."""
        return min(round((self.rate or 0.0) * self.group.size / self.step), self.most // self.step)

    def bundle_scores(self) -> np.ndarray:
        """The importance of each bundle, in the order in which they go; none where the group has a rate of its own."""
        cuts = [len(self.removed(number)) for number in range(self.most // self.step + 1)]
        gone = np.concatenate([[0.0], np.cumsum(self.scores[self.order])])
        return np.diff(gone[cuts]) if self.rate is None else np.zeros(0)

    def removed(self, bundles: int) -> np.ndarray:
        """The units (of the graph) in the first ``bundles``; the first one also takes what does not fill a bundle."""
        if not bundles:
            return self.group.units[:0]
        odd = self.group.size % self.step
        count = (bundles - 1) * self.step + odd if odd else bundles * self.step
        return self.group.units[self.order[: min(count, self.most)]]


def _step(graph: Graph, group: Group, constraints: Constraints) -> int:
    """Units whose removal changes the layers' channels by a multiple of the target's width."""
    widths = {
        int(np.sum(vector == group.units[0])) or 1 for _, _, vector in graph.producers if group.units[0] in vector
    }
    channels = max(widths, default=1)
    step = int(constraints.multiple // np.gcd(constraints.multiple, channels))
    # A narrow group may be halved at least. No finer: a vector that is half empty costs as much as a full one.
    while step > 1 and group.size < 2 * step:
        step //= 2
    return step


@dataclasses.dataclass(frozen=True)
class RemovalOrder:
    """All bundles in the order in which they are removed: ``order`` holds the candidate's number for each."""

    graph: Graph
    candidates: list[Candidate]
    order: list[int]
    min_channels: int

    def counts(self, bundles: int) -> np.ndarray:
        """Bundles that each candidate loses if the first ``bundles`` go; a group with a rate of its own loses that."""
        counts = np.bincount(np.array(self.order[:bundles], int), minlength=len(self.candidates))
        own = [c.own_bundles() for c in self.candidates]
        return np.where([c.rate is not None for c in self.candidates], own, counts)

    def keep(self, counts: np.ndarray) -> np.ndarray:
        """bool [units]: what stays; every layer, also one of several in a group, has its minimum of channels."""
        keep = np.ones(len(self.graph.units), bool)
        for candidate, count in zip(self.candidates, counts.tolist(), strict=True):
            keep[candidate.removed(count)] = False
        producers = [(vector, self.min_channels) for _, _, vector in self.graph.producers]
        for vector, least in [*producers, *((vector, 1) for vector in self.graph.nonempty)]:
            missing = min(least, len(vector)) - int(keep[vector].sum())
            if missing > 0:
                gone = vector[~keep[vector]]
                keep[gone[np.argsort(-self._scores[gone], kind="stable")[:missing]]] = True
        return keep

    @functools.cached_property
    def _scores(self) -> np.ndarray:
        """Of every unit: [units]."""
        scores = np.zeros(len(self.graph.units))
        for candidate in self.candidates:
            scores[candidate.group.units] = candidate.scores
        return scores


def names_of(group: Group) -> tuple[str, ...]:
    """The names by which a pattern can select a group."""
    return (group.name, *group.layers)


def parted(order: Sequence[int], counts: np.ndarray) -> tuple[list[int], list[int]]:
    """Split an order into its removed and its remaining bundles; ``counts``: removed bundles of each candidate."""
    left, removed, remaining = counts.copy(), list[int](), list[int]()
    for index in order:
        (removed if left[index] > 0 else remaining).append(index)
        left[index] -= 1
    return removed, remaining
