"""How far an order of bundles is followed until a budget is met, and the corrections where bundles are coarse.

By bisection and local search on counts that come from the graph alone: no model is built on the way.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.prune.choice.budget import TOLERANCE_POINTS, Budget, kept_fractions, unit_costs
from edgeprune.prune.choice.bundles import RemovalOrder, parted

# Where bundles are coarse and the order misses the budget: groups tried in turn as the one that keeps a bundle, so that
# bundles of other groups can go instead.
_RETREATS = 16
_SEARCH_WORK = 200_000  # bundles in all allocations that are tried in one search for a better one
ASK_FOR_LESS = "ask for less, lower min_channels or the channel multiple, or protect fewer layers."


def counts_for_rate(removal: RemovalOrder, rate: float) -> np.ndarray:
    """As many bundles in order as come nearest to a fraction of the filters of all groups that can be pruned.

    Returns:
        int [candidates]: bundles that each loses.
    """
    free = [c for c in removal.candidates if c.rate is None and c.most]
    total = sum(c.group.size for c in free)
    if not free and all(c.rate is None for c in removal.candidates):
        raise _nothing_to_remove(removal)

    def removed(bundles: int) -> float:
        keep = removal.keep(removal.counts(bundles))
        return sum(int(np.count_nonzero(~keep[c.group.units])) for c in free) / max(total, 1)

    low, high = 0, len(removal.order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if removed(middle) < rate else (low, middle)
    best = min(low, high, key=lambda bundles: abs(removed(bundles) - rate))
    # Where one bundle is more than the tolerance, the nearest number of bundles is as good as it gets.
    allowed = max(TOLERANCE_POINTS / 100, max((c.step for c in free), default=0) / max(total, 1))
    if free and rate - removed(best) > allowed:
        raise RecipeError(
            f"Removing {rate:.1%} of the filters cannot be reached within {TOLERANCE_POINTS:g} points: the largest "
            f"reachable reduction removes {removed(len(removal.order)):.1%} of them.",
            fix=ASK_FOR_LESS,
        )
    return removal.counts(best)


def _nothing_to_remove(removal: RemovalOrder) -> RecipeError:
    reasons = [f"{c.group.name}: {c.group.frozen or 'protected, or at its minimum'}" for c in removal.candidates]
    return RecipeError(
        f"There are no filters to remove. {'; '.join(reasons[:5])}{'; …' if len(reasons) > 5 else '.'}",
        expected="a group of channels that is not frozen; `edgeprune inspect MODEL` lists them.",
        fix="protect fewer layers, lower min_channels, or prune weights ([weights]) instead.",
    )


def counts_for_limits(removal: RemovalOrder, budget: Budget) -> np.ndarray:
    """Bundles in order until every limit is met; one that would go too far past them is passed over.

    Returns:
        int [candidates]: bundles that each loses. What stays is at most every limit, and at least one of them less
        the tolerance, where that can be had; else the nearest, which may be above a limit by the tolerance. What there
        is still room for stays, too.

    Raises:
        RecipeError: no counts within the tolerance were found, in any order.
    """
    excess = functools.partial(_excess, removal, budget)
    low, high = 0, len(removal.order)  # the first `low` bundles leave more than the budget
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(removal.counts(middle)) > 0 else (low, middle)

    def filled(stays: int | None) -> tuple[float, np.ndarray]:
        """Remove bundles in order, passing over those that go too far past the budget.

        ``stays``: a candidate that keeps the last of its bundles, so that bundles of others can go instead.
        """
        counts = removal.counts(low) - (np.arange(len(removal.candidates)) == stays)
        reached, passed_over = excess(counts), {stays}
        for index in removal.order[low:]:
            if reached <= 0:
                break
            trial = counts + np.eye(len(counts), dtype=int)[index]
            if index in passed_over or (now := excess(trial)) < -TOLERANCE_POINTS / 100:
                passed_over.add(index)  # the later bundles of a group may not go before an earlier one
                continue
            counts, reached = trial, now
        return reached, counts

    tried = [(excess(removal.counts(high)), removal.counts(high))]
    for stays in [None, *list(dict.fromkeys(reversed(removal.order[:low])))[:_RETREATS]]:
        tried.append(filled(stays))
        if -TOLERANCE_POINTS <= tried[-1][0] * 100 <= 0:
            break
    best = min(tried, key=lambda entry: _away(entry[0]))[1]
    if _away(excess(best))[0]:
        best = _nearest(removal, budget, best)
    if _away(excess(best))[0]:
        raise _unreachable(removal, budget, best)
    return _put_back(removal.order, best, lambda counts: excess(counts) <= 0)


def _away(excess: float) -> tuple[bool, bool, float]:
    """How good an excess is, to be compared: first whether the budget is missed, then whether it is exceeded within the
    tolerance, then the distance from it. The least is best."""
    missed = abs(excess) * 100 > TOLERANCE_POINTS
    return missed, excess > 0 and not missed, abs(excess)


def _nearest(removal: RemovalOrder, budget: Budget, start: np.ndarray) -> np.ndarray:
    """The counts that come nearest to the budget, or the first found that meet it; those like ``start`` come first.

    Branch and bound (Land and Doig 1960, doi:10.2307/1910129): the count of one candidate after another is fixed,
    coarse bundles first. All and none of the others bound what can be had then. It is cut short where bundles are many.
    """
    few, many = removal.counts(0), removal.counts(len(removal.order))
    costs = unit_costs(removal.graph, removal.graph.groups, budget)
    coarse = [costs[candidate.group.name] * candidate.step for candidate in removal.candidates]
    free = sorted(np.flatnonzero(many > few).tolist(), key=lambda index: -coarse[index])
    best, least = start, _away(_excess(removal, budget, start))
    branches, trials = [(0, start)], 0
    while branches and least[0] and trials * len(removal.order) <= _SEARCH_WORK:
        depth, counts = branches.pop()
        rest = np.isin(np.arange(len(counts)), free[depth:])
        excess, lowest, highest = (_excess(removal, budget, np.where(rest, of, counts)) for of in (counts, many, few))
        trials += 3
        if _away(excess) < least:
            best, least = counts, _away(excess)
        if depth < len(free) and _away(min(max(0.0, lowest), highest)) < least:
            index = free[depth]
            for count in sorted(range(many[index] + 1), key=lambda count: -abs(count - start[index])):
                child = counts.copy()
                child[index] = count
                branches.append((depth + 1, child))
    return best


def _excess(removal: RemovalOrder, budget: Budget, counts: np.ndarray) -> float:
    """By how much a model exceeds its budget: the largest (fraction kept - limit) of all limits; negative if below."""
    kept = kept_fractions(removal.graph, removal.keep(counts), budget)
    return max((kept[what] - limit for what, limit in budget.limits.items()), default=0.0)


def _put_back(order: Sequence[int], counts: np.ndarray, fits: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Restore bundles that the budget has room for, the last removed first: small ones, or ones of another limit.

    Bundles of one candidate go back in the reverse of their order, so its first that does not fit is its last to try.
    """
    full: set[int] = set()
    for index in reversed(parted(order, counts)[0]):
        trial = counts - np.eye(len(counts), dtype=int)[index]
        if index not in full and fits(trial):
            counts = trial
        else:
            full.add(index)
    return counts


def exchange(removal: RemovalOrder, budget: Budget, counts: np.ndarray) -> np.ndarray:
    """Exchange bundles as long as that keeps more importance: one is removed and others restored, or the reverse.

    The order alone does not see how coarse bundles fill up a budget; where they are fine, there is little to gain, and
    few exchanges are tried. The budget is met within the tolerance all the while: a costly bundle does not go for cheap
    ones until little is left. A local search for the knapsack, as Lin 1965, doi:10.1002/j.1538-7305.1965.tb04146.x,
    does for tours.
    """
    worth = [candidate.bundle_scores() for candidate in removal.candidates]
    limit = max(_excess(removal, budget, counts), 0.0)
    movable = [index for index, scores in enumerate(worth) if len(scores)]
    trials = 0

    def fits(trial: np.ndarray) -> bool:
        nonlocal trials
        trials += 1
        return _excess(removal, budget, trial) <= limit

    def lost(trial: np.ndarray) -> float:
        return sum(float(scores[:count].sum()) for scores, count in zip(worth, trial.tolist(), strict=True))

    def exchanged(back: int, gone: int) -> np.ndarray | None:
        """With a bundle more of one and a bundle less of another (or the same of both, where they are one)."""
        trial = counts.copy()
        trial[gone] += 1
        if back != gone:
            trial[back] -= 1
        for index in parted(removal.order, trial)[1]:
            if fits(trial):
                trial = _put_back([i for i in removal.order if i != gone], trial, fits)
                return trial if _excess(removal, budget, trial) * 100 >= -TOLERANCE_POINTS else None
            if index != back:
                trial[index] += 1
        return None

    while True:
        for back, gone in itertools.product(movable, movable):
            if trials * len(removal.order) > _SEARCH_WORK:
                return counts
            if (back != gone and not counts[back]) or counts[gone] == len(worth[gone]):
                continue
            trial = exchanged(back, gone)
            if trial is not None and lost(trial) < lost(counts) * (1 - 1e-9):
                counts = trial
                break
        else:
            return counts


def _unreachable(removal: RemovalOrder, budget: Budget, nearest: np.ndarray) -> RecipeError:
    def kept(counts: np.ndarray) -> dict[str, float]:
        return kept_fractions(removal.graph, removal.keep(counts), budget)

    def told(counts: np.ndarray) -> str:
        return _shares(kept(counts))

    everything = removal.counts(len(removal.order))
    reached = kept(nearest if nearest.any() else everything)  # a budget of all is none
    can = " and ".join(f'max_{what} = "{share:.1%}"' for what, share in reached.items())
    return RecipeError(
        f"Keeping {_shares(budget.limits)} cannot be reached within {TOLERANCE_POINTS:g} points: the nearest found "
        f"leaves {told(nearest)}, and the largest reachable reduction leaves {told(everything)}.",
        fix=f"ask for what was found, {can}" + ASK_FOR_LESS.removeprefix("ask for less"),
    )


def _shares(fractions: Mapping[str, float]) -> str:
    words = {"params": "parameters", "macs": "MACs"}
    return " and ".join(f"{fraction:.1%} of the {words[what]}" for what, fraction in fractions.items())
