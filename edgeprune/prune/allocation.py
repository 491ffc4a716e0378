"""How many channels each group loses: rates per group, or one ranking over all of them, until a budget is met.

A budget is a number of filters (a rate), parameters, or MACs. What goes is the beginning of one order over all groups;
how much of it is found by bisection on counts that come from the graph alone: no model is built on the way.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.prune.criteria import Scores
from edgeprune.prune.graph import Graph, Group

if TYPE_CHECKING:
    from edgeprune.prune.sensitivity import Curves

# A budget counts as met within this many points of the whole.
TOLERANCE_POINTS = 2.0
# How much parameters count beside MACs, in the cost of a channel, where both are limited.
_BALANCES = tuple(number / 8 for number in range(9))
# Groups of which a bundle may stay for the sake of others, where bundles are coarse and the order misses the budget.
_RETREATS = 16
_EXCHANGE_WORK = 200_000  # bundles in all allocations that are tried in search of a better one
_ASK_FOR_LESS = "ask for less, lower min_channels or the channel multiple, or protect fewer layers."


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is to be kept: ``rate`` (fraction of filters removed), or ``max_params``, ``max_macs`` or both.

    ``max_params`` and ``max_macs`` are fractions of the unpruned model that may stay, in (0, 1).
    """

    rate: float | None = None
    max_params: float | None = None
    max_macs: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        """Fraction that may stay, by what is counted: "params", "macs"."""
        given = {"params": self.max_params, "macs": self.max_macs}
        return {what: limit for what, limit in given.items() if limit is not None}


@dataclasses.dataclass(frozen=True)
class Constraints:
    """What every allocation respects.

    Attributes:
        min_channels: kept in every layer.
        multiple: the number of channels of every pruned layer is a multiple of this, where the group allows it; it is
            halved until the budget can be met.
        protect: shell patterns over names of groups and of the layers that make their channels; they are not pruned.
        layer_rates: shell pattern over the same → fraction of filters removed, instead of the overall rate.
        max_rate: no group loses more than this fraction.
    """

    min_channels: int = 1
    multiple: int = 1
    protect: tuple[str, ...] = ()
    layer_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    max_rate: float = 0.95


def allocate(
    graph: Graph,
    scores: Scores,
    budget: Budget,
    how: Literal["uniform", "global", "sensitivity"],
    constraints: Constraints,
    per_cost: bool = False,
    curves: Curves | None = None,
) -> np.ndarray:
    """Choose the units that stay.

    Units go in bundles, the least important of a group first; a bundle is as large as the channel multiple demands.
    All bundles stand in one order, which is what ``how`` decides. Where both parameters and MACs are limited, several
    weights of one against the other are tried (Lagrangian relaxation of a knapsack with two constraints, Fisher 1981,
    doi:10.1287/mnsc.27.1.1), and the order that keeps the most importance is taken.

    Args:
        scores: importance per unit of each group.
        how: ``uniform``: every group loses the same fraction. ``global``: by importance across groups.
            ``sensitivity``: by the rise of the measured loss per MAC (parameter, filter) saved.
        per_cost: with ``global``, by importance per share of the MACs (or parameters, or both) that a bundle saves.
            Right for scores in units of the loss; a norm divided by a cost means nothing.
        curves: what ``sensitivity`` goes by; every group that may lose channels has its curve.

    Returns:
        bool [units of the graph].

    Raises:
        RecipeError: the budget cannot be met; the message names the largest reachable reduction. Or a pattern matches
            nothing.
    """
    _check_patterns(graph, constraints)
    while True:
        try:
            return _allocate(graph, scores, budget, how, constraints, per_cost, curves)
        except RecipeError:
            if constraints.multiple == 1:
                raise
            # Few and narrow layers: what a multiple keeps out of reach is not worth missing the budget for.
            constraints = dataclasses.replace(constraints, multiple=constraints.multiple // 2)


def _allocate(
    graph: Graph,
    scores: Scores,
    budget: Budget,
    how: Literal["uniform", "global", "sensitivity"],
    constraints: Constraints,
    per_cost: bool,
    curves: Curves | None,
) -> np.ndarray:
    """With this multiple of channels."""
    candidates = [_Candidate.of(graph, group, scores[group.name], constraints) for group in graph.groups]

    def allocated(balance: float) -> np.ndarray:
        key = _ORDERS[how](graph, budget, per_cost, curves, balance)
        bundles = [
            (key(candidate, number), index)
            for index, candidate in enumerate(candidates)
            if candidate.rate is None
            for number in range(1, candidate.most // candidate.step + 1)
        ]
        plan = _Plan(graph, candidates, [index for _, index in sorted(bundles)], constraints.min_channels)
        if budget.rate is not None:
            return plan.keep(_remove(plan, budget.rate))
        counts = _fill(plan, budget)
        return plan.keep(_exchange(plan, budget, counts) if in_loss else counts)

    in_loss = how == "global" and per_cost
    if in_loss and len(budget.limits) > 1:
        return _most_important(graph, scores, allocated)
    return allocated(0.5)


def _most_important(graph: Graph, scores: Scores, allocated: Callable[[float], np.ndarray]) -> np.ndarray:
    """Of the allocations for each balance, the one that keeps the largest sum of scores.

    Raises:
        RecipeError: there is none for any balance.
    """
    found: list[np.ndarray] = []
    refusals: list[RecipeError] = []
    for balance in _BALANCES:
        try:
            found.append(allocated(balance))
        except RecipeError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return max(found, key=lambda keep: sum(float(scores[g.name][keep[g.units]].sum()) for g in graph.groups))


def _check_patterns(graph: Graph, constraints: Constraints) -> None:
    """A pattern that matches nothing is most likely a name that was mistyped."""
    names = list(dict.fromkeys(name for group in graph.groups for name in _names(group)))
    for pattern in (*constraints.protect, *constraints.layer_rates):
        if not fnmatch.filter(names, pattern):
            near = difflib.get_close_matches(pattern, names, 6) or names[:6]
            raise RecipeError(
                f"The pattern {pattern!r} (protect or layer_rates) matches no layer that makes channels.",
                expected=f"names or shell patterns of such layers, as {', '.join(near)}.",
                fix="see `edgeprune inspect MODEL` for the groups of channels and their layers.",
            )


def _names(group: Group) -> tuple[str, ...]:
    """What a pattern may call a group."""
    return (group.name, *group.layers)


def _matches(group: Group, pattern: str) -> bool:
    return bool(fnmatch.filter(_names(group), pattern))


def kept_fractions(graph: Graph, keep: np.ndarray, budget: Budget) -> dict[str, float]:
    """The fraction that stays of everything that the budget limits."""
    counts, everything = {"params": graph.count_params, "macs": graph.count_macs}, np.ones_like(keep)
    return {what: counts[what](keep) / counts[what](everything) for what in budget.limits}


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A group with its units in the order in which they would go, and how many may."""

    group: Group
    order: np.ndarray  # unit numbers within the group, least important first
    scores: np.ndarray
    most: int  # units that may go
    step: int  # units in a bundle
    rate: float | None  # the recipe's own rate for the group

    @classmethod
    def of(cls, graph: Graph, group: Group, scores: np.ndarray, constraints: Constraints) -> _Candidate:
        free = np.array([i for i in range(group.size) if i not in group.reasons], int)
        if any(_matches(group, pattern) for pattern in constraints.protect):
            free = free[:0]
        own = [rate for pattern, rate in constraints.layer_rates.items() if _matches(group, pattern)]
        most = min(len(free), group.size - constraints.min_channels, int(group.size * constraints.max_rate))
        order = free[np.argsort(scores[free], kind="stable")]
        return cls(group, order, scores, max(most, 0), _step(graph, group, constraints), own[0] if own else None)

    def own_bundles(self) -> int:
        """The bundles that come nearest to the group's own rate; none where it has none."""
        return min(round((self.rate or 0.0) * self.group.size / self.step), self.most // self.step)

    def bundle_scores(self) -> np.ndarray:
        """The importance of each bundle, in the order in which they go; none where the group has a rate of its own."""
        cuts = [len(self.removed(number)) for number in range(self.most // self.step + 1)]
        gone = np.concatenate([[0.0], np.cumsum(self.scores[self.order])])
        return np.diff(gone[cuts]) if self.rate is None else np.zeros(0)

    def removed(self, bundles: int) -> np.ndarray:
        """The units (of the graph) in the first ``bundles``; what does not fill one up goes with the first."""
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
class _Plan:
    """All bundles in the order in which they go: ``order`` holds the number of the candidate of each."""

    graph: Graph
    candidates: list[_Candidate]
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


Key = Callable[[_Candidate, int], Any]  # a candidate and the number of a bundle, from 1 → what bundles are sorted by


def _uniform_order(graph: Graph, budget: Budget, per_cost: bool, curves: Curves | None, balance: float) -> Key:
    """By the fraction that is gone with half of the bundle: a rate is rounded for all groups at once."""
    return lambda candidate, number: (number - 0.5) * candidate.step / candidate.group.size


def _global_order(graph: Graph, budget: Budget, per_cost: bool, curves: Curves | None, balance: float) -> Key:
    """By importance, or by importance per cost."""
    costs = (
        unit_costs(graph, graph.groups, budget, balance)
        if per_cost
        else dict.fromkeys((g.name for g in graph.groups), 1.0)
    )

    def key(candidate: _Candidate, number: int) -> float:
        units = candidate.order[(number - 1) * candidate.step : number * candidate.step]
        return float(candidate.scores[units].mean()) / max(costs[candidate.group.name], 1e-30)

    return key


def _sensitivity_order(graph: Graph, budget: Budget, per_cost: bool, curves: Curves | None, balance: float) -> Key:
    """By the rise of the loss per cost saved, on the convex envelope of each group's curve.

    With convex curves, and losses that add up, taking the cheapest bundle first minimises the predicted loss under the
    budget (Fox 1966, "Discrete optimization via marginal analysis"). Among equals, groups keep in step.
    """
    assert curves is not None
    costs = unit_costs(graph, graph.groups, budget, balance)
    envelopes = {group.name: convex_envelope(*curves.loss_rise(group)) for group in graph.groups}

    def key(candidate: _Candidate, number: int) -> tuple[float, float]:
        size, step = candidate.group.size, candidate.step
        before, after = ((n * step) / size for n in (number - 1, number))
        rise = envelopes[candidate.group.name]
        # Filters all cost the same where the budget counts filters.
        cost = 1.0 if budget.rate is not None else max(costs[candidate.group.name], 1e-30)
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


_ORDERS = {"uniform": _uniform_order, "global": _global_order, "sensitivity": _sensitivity_order}


def unit_costs(graph: Graph, groups: Sequence[Group], budget: Budget, balance: float = 0.5) -> dict[str, float]:
    """The share of the model that removing one unit of each group saves: of its MACs, of its parameters, or of both, as
    the budget limits them; ``balance``: the weight of parameters against MACs then, in [0, 1]."""
    weights = {"params": balance, "macs": 1 - balance} if len(budget.limits) > 1 else {}
    totals = {"params": graph.count_params, "macs": graph.count_macs}
    everything = np.ones(len(graph.units), bool)
    costs = dict.fromkeys((group.name for group in groups), 0.0)
    for what in budget.limits or ("macs",):
        total = totals[what](everything)
        for name, saved in unit_savings(graph, groups, what).items():
            costs[name] += weights.get(what, 1.0) * saved / total
    return costs


def unit_savings(graph: Graph, groups: Sequence[Group], what: str) -> dict[str, float]:
    """How many MACs ("macs") or parameters ("params") removing one unit of each group saves; 0 for a frozen group."""
    first = {g.name: int(g.units[next(i for i in range(g.size) if i not in g.reasons)]) for g in groups if not g.frozen}
    of_interest = np.zeros(len(graph.units), bool)
    of_interest[list(first.values())] = True
    saved = np.zeros(len(graph.units))
    for term in {"params": graph.params, "macs": graph.macs}[what]:
        whole = term.coefficient * math.prod(map(len, term.vectors))
        for unit in {int(unit) for vector in term.vectors for unit in vector[of_interest[vector]]}:
            left = term.coefficient * math.prod(int(np.count_nonzero(vector != unit)) for vector in term.vectors)
            saved[unit] += whole - left
    return {group.name: float(saved[first[group.name]]) if group.name in first else 0.0 for group in groups}


def _remove(plan: _Plan, rate: float) -> np.ndarray:
    """Take as many bundles in order as come nearest to a fraction of the filters of all groups that can be pruned."""
    free = [c for c in plan.candidates if c.rate is None and c.most]
    total = sum(c.group.size for c in free)
    if not free and all(c.rate is None for c in plan.candidates):
        raise _nothing_to_remove(plan)

    def removed(bundles: int) -> float:
        keep = plan.keep(plan.counts(bundles))
        return sum(int(np.count_nonzero(~keep[c.group.units])) for c in free) / max(total, 1)

    low, high = 0, len(plan.order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if removed(middle) < rate else (low, middle)
    best = min(low, high, key=lambda bundles: abs(removed(bundles) - rate))
    # Where one bundle is more than the tolerance, the nearest number of bundles is as good as it gets.
    allowed = max(TOLERANCE_POINTS / 100, max((c.step for c in free), default=0) / max(total, 1))
    if free and rate - removed(best) > allowed:
        raise RecipeError(
            f"Removing {rate:.1%} of the filters cannot be reached within {TOLERANCE_POINTS:g} points: the largest "
            f"reachable reduction removes {removed(len(plan.order)):.1%} of them.",
            fix=_ASK_FOR_LESS,
        )
    return plan.counts(best)


def _nothing_to_remove(plan: _Plan) -> RecipeError:
    reasons = [f"{c.group.name}: {c.group.frozen or 'protected, or at its minimum'}" for c in plan.candidates]
    return RecipeError(
        f"There are no filters to remove. {'; '.join(reasons[:5])}{'; …' if len(reasons) > 5 else '.'}",
        expected="a group of channels that is not frozen; `edgeprune inspect MODEL` lists them.",
        fix="protect fewer layers, lower min_channels, or prune weights ([weights]) instead.",
    )


def _fill(plan: _Plan, budget: Budget) -> np.ndarray:
    """Take bundles in order until every limit is met; one that would go too far past them is passed over.

    Returns:
        What stays: at most every limit, and at least one of them less the tolerance, where that can be had; else the
        nearest, which may be above a limit by the tolerance. What there is still room for stays, too.
    """

    excess = functools.partial(_excess, plan, budget)
    low, high = 0, len(plan.order)  # the first `low` bundles leave more than the budget
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(plan.counts(middle)) > 0 else (low, middle)

    def filled(stays: int | None) -> tuple[float, np.ndarray]:
        """Bundles in order that do not go too far; one more of the candidate ``stays`` does, for the sake of others."""
        counts = plan.counts(low) - (np.arange(len(plan.candidates)) == stays)
        reached, passed_over = excess(counts), {stays}
        for index in plan.order[low:]:
            if reached <= 0:
                break
            trial = counts + np.eye(len(counts), dtype=int)[index]
            if index in passed_over or (now := excess(trial)) < -TOLERANCE_POINTS / 100:
                passed_over.add(index)  # the later bundles of a group may not go before an earlier one
                continue
            counts, reached = trial, now
        return reached, counts

    def preference(candidate: tuple[float, np.ndarray]) -> tuple[bool, bool, float]:
        away = candidate[0]
        return abs(away) * 100 > TOLERANCE_POINTS, away > 0, abs(away)

    found = [(excess(plan.counts(high)), plan.counts(high))]
    for stays in [None, *list(dict.fromkeys(reversed(plan.order[:low])))[:_RETREATS]]:
        found.append(filled(stays))
        if preference(min(found, key=preference))[:2] == (False, False):
            break
    best = min(found, key=preference)
    if abs(best[0]) * 100 > TOLERANCE_POINTS:
        raise _unreachable(plan, budget, best[1])
    return _put_back(plan.order, best[1], lambda counts: excess(counts) <= 0)


def _excess(plan: _Plan, budget: Budget, counts: np.ndarray) -> float:
    """How far the count that is furthest from its limit is above it."""
    kept = kept_fractions(plan.graph, plan.keep(counts), budget)
    return max((kept[what] - limit for what, limit in budget.limits.items()), default=0.0)


def _put_back(order: Sequence[int], counts: np.ndarray, fits: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Bundles that fit stay after all, the last that went first: small ones, or ones that another limit asked for.

    Bundles of one candidate go back in the reverse of their order, so its first that does not fit is its last to try.
    """
    full: set[int] = set()
    for index in reversed(_parted(order, counts)[0]):
        trial = counts - np.eye(len(counts), dtype=int)[index]
        if index not in full and fits(trial):
            counts = trial
        else:
            full.add(index)
    return counts


def _parted(order: Sequence[int], counts: np.ndarray) -> tuple[list[int], list[int]]:
    """The order of the bundles that are gone, and of those that are there."""
    left, gone, there = counts.copy(), list[int](), list[int]()
    for index in order:
        (gone if left[index] > 0 else there).append(index)
        left[index] -= 1
    return gone, there


def _exchange(plan: _Plan, budget: Budget, counts: np.ndarray) -> np.ndarray:
    """Bundles change places as long as more importance stays: one goes and others return, or one returns and others go.

    The order alone does not see how coarse bundles fill up a budget; where they are fine, there is little to gain, and
    few exchanges are tried. A local search for the knapsack, as Lin 1965, doi:10.1002/j.1538-7305.1965.tb04146.x, does
    for tours.
    """
    worth = [candidate.bundle_scores() for candidate in plan.candidates]
    limit = max(_excess(plan, budget, counts), 0.0)
    movable = [index for index, scores in enumerate(worth) if len(scores)]
    trials = 0

    def fits(trial: np.ndarray) -> bool:
        nonlocal trials
        trials += 1
        return _excess(plan, budget, trial) <= limit

    def lost(trial: np.ndarray) -> float:
        return sum(float(scores[:count].sum()) for scores, count in zip(worth, trial.tolist(), strict=True))

    def exchanged(back: int, gone: int) -> np.ndarray | None:
        """With a bundle more of one and a bundle less of another (or the same of both, where they are one)."""
        trial = counts.copy()
        trial[gone] += 1
        if back != gone:
            trial[back] -= 1
        for index in _parted(plan.order, trial)[1]:
            if fits(trial):
                return _put_back([i for i in plan.order if i != gone], trial, fits)
            if index != back:
                trial[index] += 1
        return None

    while True:
        for back, gone in itertools.product(movable, movable):
            if trials * len(plan.order) > _EXCHANGE_WORK:
                return counts
            if (back != gone and not counts[back]) or counts[gone] == len(worth[gone]):
                continue
            trial = exchanged(back, gone)
            if trial is not None and lost(trial) < lost(counts) * (1 - 1e-9):
                counts = trial
                break
        else:
            return counts


def _unreachable(plan: _Plan, budget: Budget, nearest: np.ndarray) -> RecipeError:
    def told(counts: np.ndarray) -> str:
        return _shares(kept_fractions(plan.graph, plan.keep(counts), budget))

    return RecipeError(
        f"Keeping {_shares(budget.limits)} cannot be reached within {TOLERANCE_POINTS:g} points: the nearest is "
        f"{told(nearest)}, and the largest reachable reduction leaves {told(plan.counts(len(plan.order)))}.",
        fix=_ASK_FOR_LESS,
    )


def _shares(fractions: Mapping[str, float]) -> str:
    words = {"params": "parameters", "macs": "MACs"}
    return " and ".join(f"{fraction:.1%} of the {words[what]}" for what, fraction in fractions.items())
