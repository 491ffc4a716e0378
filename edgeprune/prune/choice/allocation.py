"""How many channels each group loses: the beginning of one order of bundles over all groups, until a budget is met."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.prune.channels.graph import Graph
from edgeprune.prune.choice.budget import Budget, Constraints
from edgeprune.prune.choice.bundles import Candidate, RemovalOrder, names_of
from edgeprune.prune.choice.criteria import Scores
from edgeprune.prune.choice.filling import counts_for_limits, counts_for_rate, exchange
from edgeprune.prune.choice.orders import ORDERS, Ranking
from edgeprune.recipe.patterns import check_patterns

if TYPE_CHECKING:
    from edgeprune.prune.choice.sensitivity import Curves

# How much parameters count beside MACs, in the cost of a channel, where both are limited.
_BALANCES = tuple(number / 8 for number in range(9))


def allocate(
    graph: Graph,
    scores: Scores,
    budget: Budget,
    how: Literal["uniform", "global", "sensitivity"],
    constraints: Constraints,
    in_loss: bool = False,
    curves: Curves | None = None,
) -> np.ndarray:
    """Choose the units that stay.

    Units go in bundles, the least important of a group first; a bundle is as large as the channel multiple demands.
    All bundles stand in one order, which is what ``how`` decides. Where both parameters and MACs are limited, several
    weights of one against the other are tried (Lagrangian relaxation of a knapsack with two constraints, Fisher 1981,
    doi:10.1287/mnsc.27.1.1), and the order that keeps the most importance is taken.

    Args:
        graph: what :func:`edgeprune.prune.channels.analyse.analyse` found; its groups are pruned.
        scores: importance of each unit: group → float [units of the group].
        budget: how much is to be kept, or how many filters go.
        how: ``uniform``: every group loses the same fraction. ``global``: by importance across groups.
            ``sensitivity``: by the rise of the measured loss per MAC (parameter, filter) saved.
        constraints: what every layer keeps. The multiple of channels is halved until the budget can be met.
        in_loss: scores are changes of the loss: ``global`` then goes by importance per share of the MACs (or
            parameters, or both) that a bundle saves. A norm divided by a cost means nothing.
        curves: what ``sensitivity`` goes by; every group that may lose channels has its curve.

    Returns:
        bool [units of the graph].

    Raises:
        RecipeError: the budget cannot be met; the message names the largest reachable reduction. Or there is no such
            allocation, or a pattern matches nothing.
    """
    if how not in ORDERS:
        raise RecipeError(f"There is no allocation {how!r}.", expected=f"one of: {', '.join(ORDERS)}.")
    names = (name for group in graph.groups for name in names_of(group))
    given = {"protect": constraints.protect, "layer_rates": constraints.layer_rates}
    check_patterns("filters", given, names, "layer that makes channels")
    while True:
        try:
            return _allocate(scores, how, constraints, Ranking(graph, budget, in_loss, curves))
        except RecipeError:
            if constraints.multiple == 1:
                raise
            # Few and narrow layers: what a multiple keeps out of reach is not worth missing the budget for.
            constraints = dataclasses.replace(constraints, multiple=constraints.multiple // 2)


def _allocate(scores: Scores, how: str, constraints: Constraints, ranking: Ranking) -> np.ndarray:
    """:func:`allocate` with the channel multiple of ``constraints`` as it is."""
    graph, budget = ranking.graph, ranking.budget
    by_loss = how == "global" and ranking.in_loss
    candidates = [Candidate.of(graph, group, scores[group.name], constraints) for group in graph.groups]

    def allocated(balance: float) -> np.ndarray:
        key = ORDERS[how](dataclasses.replace(ranking, balance=balance))
        bundles = [
            (key(candidate, number), index)
            for index, candidate in enumerate(candidates)
            if candidate.rate is None
            for number in range(1, candidate.most // candidate.step + 1)
        ]
        removal = RemovalOrder(graph, candidates, [index for _, index in sorted(bundles)], constraints.min_channels)
        if budget.rate is not None:
            return removal.keep(counts_for_rate(removal, budget.rate))
        counts = counts_for_limits(removal, budget)
        return removal.keep(exchange(removal, budget, counts) if by_loss else counts)

    if by_loss and len(budget.limits) > 1:
        return _most_important(graph, scores, allocated)
    return allocated(0.5)


def _most_important(graph: Graph, scores: Scores, allocated: Callable[[float], np.ndarray]) -> np.ndarray:
    """Of the allocations for each balance, the one that keeps the largest sum of scores.

    Raises:
        RecipeError: there is none for any balance.
    """
    allocations: list[np.ndarray] = []
    refusals: list[RecipeError] = []
    for balance in _BALANCES:
        try:
            allocations.append(allocated(balance))
        except RecipeError as error:
            refusals.append(error)
    if not allocations:
        raise refusals[0]
    return max(allocations, key=lambda keep: sum(float(scores[g.name][keep[g.units]].sum()) for g in graph.groups))
