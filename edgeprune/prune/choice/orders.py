"""In which order bundles of channels go, over all groups: what an allocation is named after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.prune.channels.graph import Graph
from edgeprune.prune.choice.budget import Budget, unit_costs
from edgeprune.prune.choice.bundles import Candidate

if TYPE_CHECKING:
    from edgeprune.prune.choice.sensitivity import Curves

# (candidate, number of one of its bundles, from 1) → what bundles are sorted by
Key = Callable[[Candidate, int], float | tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What an order may go by.

    Attributes:
        in_loss: scores are in units of the loss, so that they may be divided by a cost.
        curves: measured losses; None: the order does without.
        balance: weight of parameters against MACs in a cost, in [0, 1], where the budget limits both.
    """

    graph: Graph
    budget: Budget
    in_loss: bool = False
    curves: Curves | None = None
    balance: float = 0.5

    def unit_costs(self) -> dict[str, float]:
        """Group → share of the model that one unit of it costs."""
        return unit_costs(self.graph, self.graph.groups, self.budget, self.balance)


def _uniform_order(ranking: Ranking) -> Key:
    """By the fraction that is gone with half of the bundle: a rate is rounded for all groups at once."""
    return lambda candidate, number: (number - 0.5) * candidate.step / candidate.group.size


def _global_order(ranking: Ranking) -> Key:
    """By importance, or by importance per cost."""
    equal = dict.fromkeys((group.name for group in ranking.graph.groups), 1.0)
    costs = ranking.unit_costs() if ranking.in_loss else equal

    def key(candidate: Candidate, number: int) -> float:
        units = candidate.order[(number - 1) * candidate.step : number * candidate.step]
        return float(candidate.scores[units].mean()) / max(costs[candidate.group.name], 1e-30)

    return key


def _sensitivity_order(ranking: Ranking) -> Key:
    """By the rise of the loss per cost saved, on the convex envelope of each group's curve.

    With convex curves, and losses that add up, taking the cheapest bundle first minimises the predicted loss under the
    budget (Fox 1966, "Discrete optimization via marginal analysis"). Among equals, groups keep in step.
    """
    curves, costs = ranking.curves, ranking.unit_costs()
    assert curves is not None
    envelopes = {group.name: convex_envelope(*curves.loss_rise(group)) for group in ranking.graph.groups}

    def key(candidate: Candidate, number: int) -> tuple[float, float]:
        size, step = candidate.group.size, candidate.step
        before, after = ((n * step) / size for n in (number - 1, number))
        rise = envelopes[candidate.group.name]
        # Filters all cost the same where the budget counts filters.
        cost = 1.0 if ranking.budget.rate is not None else max(costs[candidate.group.name], 1e-30)
        return (rise(after) - rise(before)) / (cost * step), after

    return key


def convex_envelope(rates: np.ndarray, rises: np.ndarray) -> Callable[[float], float]:
    """The largest convex function below the points, straight between them; past the last, it goes on as it ended.

    Args:
        rates: rising, from 0.
        rises: not falling, from 0.
    """
    hull: list[tuple[float, float]] = []
    for x, y in zip(rates.tolist(), rises.tolist(), strict=True):
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-1][0]) >= (y - hull[-1][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    xs, ys = np.array(hull).T
    slope = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]) if len(hull) > 1 else 0.0
    return lambda rate: float(np.interp(rate, xs, ys) + slope * max(rate - xs[-1], 0.0))


ORDERS: dict[str, Callable[[Ranking], Key]] = {
    "uniform": _uniform_order,
    "global": _global_order,
    "sensitivity": _sensitivity_order,
}
