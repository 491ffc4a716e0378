"""How many channels each group loses: rates per group, or one ranking over all of them, until a budget is met.

A budget is a number of filters (a rate), parameters, or MACs. The search is over one number (the rate, or the rank in
the global order), by bisection on counts that come from the graph alone: no model is built on the way.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.prune.criteria import Scores
from edgeprune.prune.graph import Graph, Group

# A budget counts as met within this many points of the whole.
TOLERANCE_POINTS = 2.0


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is to be kept: exactly one of ``rate`` (fraction of filters removed), ``max_params``, ``max_macs``.

    ``max_params`` and ``max_macs`` are fractions of the unpruned model that may stay, in (0, 1).
    """

    rate: float | None = None
    max_params: float | None = None
    max_macs: float | None = None


@dataclasses.dataclass(frozen=True)
class Constraints:
    """What every allocation respects.

    Attributes:
        min_channels: kept in every layer.
        multiple: the number of channels of every pruned layer is a multiple of this, where the group allows it.
        protect: shell patterns over layer names that are not pruned.
        rates: shell pattern → fraction of filters removed, instead of the overall rate.
        max_rate: no group loses more than this fraction.
    """

    min_channels: int = 1
    multiple: int = 1
    protect: tuple[str, ...] = ()
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    max_rate: float = 0.95


def allocate(
    graph: Graph, scores: Scores, budget: Budget, how: Literal["uniform", "global"], constraints: Constraints
) -> np.ndarray:
    """Choose the units that stay.

    Args:
        scores: importance per unit of each group; the least important go first.
        how: ``uniform``: every group loses the same fraction. ``global``: one ranking over all groups, by importance
            per MAC (or parameter) that a unit costs.

    Returns:
        bool [units of the graph].

    Raises:
        RecipeError: the budget cannot be met; the message names the largest reachable reduction.
    """
    candidates = [_Candidate.of(graph, group, scores[group.name], constraints) for group in graph.groups]
    chooser = _uniform if how == "uniform" else _global
    choose = chooser(graph, candidates, budget, constraints)
    if budget.rate is not None:
        return choose(budget.rate)
    return _bisect(graph, choose, budget)


def kept_fraction(graph: Graph, keep: np.ndarray, budget: Budget) -> float:
    """The fraction of what the budget counts (parameters or MACs) that stays."""
    everything = np.ones_like(keep)
    if budget.max_params is not None:
        return graph.count_params(keep) / graph.count_params(everything)
    return graph.count_macs(keep) / graph.count_macs(everything)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A group with its units in the order in which they would go, and how many may."""

    group: Group
    order: np.ndarray  # unit numbers within the group, least important first
    scores: np.ndarray
    most: int  # units that may go
    step: int  # units go in multiples of this
    rate: float | None  # the recipe's own rate for the group

    @classmethod
    def of(cls, graph: Graph, group: Group, scores: np.ndarray, constraints: Constraints) -> _Candidate:
        free = np.array([i for i in range(group.size) if i not in group.reasons], int)
        if any(fnmatch.fnmatch(layer, p) for layer in (group.name, *group.layers) for p in constraints.protect):
            free = free[:0]
        own = [rate for p, rate in constraints.rates.items() if fnmatch.fnmatch(group.name, p)]
        most = min(len(free), group.size - constraints.min_channels, int(group.size * constraints.max_rate))
        order = free[np.argsort(scores[free], kind="stable")]
        return cls(group, order, scores, max(most, 0), _step(graph, group, constraints), own[0] if own else None)

    def removed(self, count: float) -> np.ndarray:
        """The units (of the graph) that go if about ``count`` of them should."""
        whole = min(round(count), self.most)
        kept = self.group.size - whole
        if self.step > 1 and whole:
            kept = min(-(-kept // self.step) * self.step, self.group.size)
        return self.group.units[self.order[: max(self.group.size - kept, 0)]]


def _step(graph: Graph, group: Group, constraints: Constraints) -> int:
    """Units whose removal changes the layers' channels by a multiple of the target's width."""
    widths = {
        int(np.sum(vector == group.units[0])) or 1 for _, _, vector in graph.producers if group.units[0] in vector
    }
    channels = max(widths, default=1)
    step = int(constraints.multiple // np.gcd(constraints.multiple, channels))
    # A step is at most a quarter of the group: a coarser one would leave small layers no choice worth the name.
    while step > 1 and group.size < 4 * step:
        step //= 2
    return step


def _uniform(
    graph: Graph, candidates: list[_Candidate], budget: Budget, constraints: Constraints
) -> Callable[[float], np.ndarray]:
    def choose(rate: float) -> np.ndarray:
        rates = [candidate.rate if candidate.rate is not None else rate for candidate in candidates]
        return _keep(graph, [c.removed(r * c.group.size) for c, r in zip(candidates, rates, strict=True)])

    return choose


def _global(
    graph: Graph, candidates: list[_Candidate], budget: Budget, constraints: Constraints
) -> Callable[[float], np.ndarray]:
    """Rank all units by importance per cost; a rate removes that fraction of them, from the bottom."""
    costs = unit_costs(graph, [c.group for c in candidates], budget)
    rows = [
        (c.scores[unit] / max(costs[c.group.name], 1e-30), number, unit)
        for number, c in enumerate(candidates)
        if c.rate is None
        for unit in c.order.tolist()
    ]
    ranking = np.array([number for _, number, _ in sorted(rows, key=lambda row: row[0])], int)

    def choose(rate: float) -> np.ndarray:
        counts = np.bincount(ranking[: round(rate * len(ranking))], minlength=len(candidates))
        wanted = [c.rate * c.group.size if c.rate is not None else n for c, n in zip(candidates, counts, strict=True)]
        return _keep(graph, [c.removed(n) for c, n in zip(candidates, wanted, strict=True)])

    return choose


def unit_costs(graph: Graph, groups: Sequence[Group], budget: Budget) -> dict[str, float]:
    """MACs (or parameters) that removing one unit of each group saves in the whole model; 0 for a frozen group."""
    first = {g.name: int(g.units[next(i for i in range(g.size) if i not in g.reasons)]) for g in groups if not g.frozen}
    of_interest = np.zeros(len(graph.units), bool)
    of_interest[list(first.values())] = True
    saved = np.zeros(len(graph.units))
    for term in graph.params if budget.max_params is not None else graph.macs:
        whole = term.coefficient * math.prod(map(len, term.vectors))
        found = {int(unit) for vector in term.vectors for unit in vector[of_interest[vector]]}
        for unit in found:
            left = term.coefficient * math.prod(int(np.count_nonzero(vector != unit)) for vector in term.vectors)
            saved[unit] += whole - left
    return {group.name: float(saved[first[group.name]]) if group.name in first else 0.0 for group in groups}


def _keep(graph: Graph, removed: list[np.ndarray]) -> np.ndarray:
    keep = np.ones(len(graph.units), bool)
    for units in removed:
        keep[units] = False
    for vector in graph.nonempty:
        if len(vector) and not keep[vector].any():
            keep[vector[0]] = True
    return keep


def _bisect(graph: Graph, choose: Callable[[float], np.ndarray], budget: Budget) -> np.ndarray:
    """The smallest rate that keeps no more than the budget, or the one nearest to it."""
    limit = budget.max_params if budget.max_params is not None else budget.max_macs
    assert limit is not None
    low, high = 0.0, 1.0
    best, least = None, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        keep = choose(middle)
        fraction = kept_fraction(graph, keep, budget)
        least = min(least, fraction)
        if best is None or abs(fraction - limit) < abs(best[0] - limit):
            best = (fraction, keep)
        low, high = (middle, high) if fraction > limit else (low, middle)
    least = min(least, kept_fraction(graph, choose(1.0), budget))
    assert best is not None
    if abs(best[0] - limit) * 100 > TOLERANCE_POINTS:
        what = "parameters" if budget.max_params is not None else "MACs"
        raise RecipeError(
            f"Keeping {limit:.0%} of the {what} cannot be reached within {TOLERANCE_POINTS:g} points: the nearest is "
            f"{best[0]:.1%}, and the largest reachable reduction leaves {least:.1%}.",
            fix="ask for less, lower min_channels or the channel multiple, or protect fewer layers.",
        )
    return best[1]
