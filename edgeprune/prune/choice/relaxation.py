"""The Lagrangian relaxation of an allocation: a bound, a choice near the best, and the options that are worth a look.

The limits go into the loss with prices, and what is left is least by elimination of one axis after the other (Bertelè
and Brioschi 1972; Dechter 1999, doi:10.1016/S0004-3702(99)00059-4), exactly: the axes of a network hang together in
small cliques, such as the three groups around a residual block. The prices are those of the highest bound, found by
Dantzig and Wolfe's cutting planes. The elimination there also gives the least of all choices that take an option; an
option whose least is above a choice at hand is in none that is better (reduced-cost fixing).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize

_Tables = Mapping[tuple[int, ...], np.ndarray]

# Entries of the tables of one elimination, beyond which it is not tried.
_ENTRIES = 3_000_000
_PRICINGS = 60
# Choices met on the way that are improved, and pairs of options that are looked at in one step of that.
_STARTS, _STEPS, _PAIRS = 4, 200, 4_000_000
# In shares of the limits: what counts as kept.
_KEPT = 1e-9


@dataclasses.dataclass(frozen=True)
class Relaxed:
    """What the relaxation says.

    Attributes:
        options: int [axes], a choice that keeps all limits; None: none was met.
        loss: of the choice; infinite without one.
        bound: no choice that keeps the limits has a loss below it.
        prices: float [costs], in loss per share of its limit.
        useful: by axis, the options that a better choice may take; int, rising.
    """

    options: np.ndarray | None
    loss: float
    bound: float
    prices: np.ndarray
    useful: list[np.ndarray]


def relaxed(sizes: Sequence[int], loss: _Tables, costs: Sequence[_Tables], gap: float) -> Relaxed | None:
    """Solve the relaxation.

    Args:
        sizes: the number of options of each axis.
        loss: what is to be least.
        costs: what is at most 1 each.
        gap: relative; a choice this near to the bound is not improved.

    Returns:
        None: the axes hang together too closely.
    """
    keys = sorted({key for tables in [loss, *costs] for key in tables if key})
    cliques = _cliques(sizes, keys)
    if sum(np.prod([float(sizes[axis]) for axis in clique]) for clique in cliques) > _ENTRIES:
        return None
    elimination = _Elimination(sizes, cliques)
    met: list[tuple[np.ndarray, float, np.ndarray]] = []
    bound, prices = -np.inf, np.zeros(len(costs))

    def ask(trial: np.ndarray) -> float:
        """The least at these prices; its choice is remembered."""
        nonlocal bound, prices
        least = elimination.run(_priced(loss, costs, trial)) - float(trial.sum())
        if least > bound:
            bound, prices = least, trial
        options = elimination.options
        met.append((options, _value(loss, options), np.array([_value(cost, options) for cost in costs]) - 1.0))
        return least

    ask(np.zeros(len(costs)))
    spread = sum(float(np.ptp(table)) for key, table in loss.items() if key) or 1.0
    ask(np.full(len(costs), 1e6 * spread))
    for _ in range(_PRICINGS if costs else 0):
        # The highest prices at which none of the choices met so far is below: a bound from above on the bound.
        matrix = np.array([[1.0, *-excess] for _, _, excess in met])
        found = scipy.optimize.linprog(
            [-1.0, *np.zeros(len(costs))],
            A_ub=matrix,
            b_ub=[value for _, value, _ in met],
            bounds=[(None, None), *[(0, 1e6 * spread)] * len(costs)],
        )
        if found.x is None or -found.fun - ask(np.maximum(found.x[1:], 0.0)) <= 0.1 * gap * abs(found.fun):
            break
    kept = [one for one in met if one[2].max(initial=0.0) <= _KEPT]
    best, least = None, np.inf
    for options, value, _ in sorted(kept, key=lambda one: one[1])[:_STARTS]:
        if value - bound > gap * abs(value):
            options, value = _improved(sizes, loss, costs, options)
        if value < least:
            best, least = options, value
    elimination.run(_priced(loss, costs, prices))
    most = least + float(prices.sum()) + 1e-9 * abs(least)
    return Relaxed(best, least, bound, prices, [np.flatnonzero(one <= most) for one in elimination.least_of_options()])


def _priced(loss: _Tables, costs: Sequence[_Tables], prices: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
    found = dict(loss)
    for tables, price in zip(costs, prices.tolist(), strict=True):
        for key, values in tables.items() if price else ():
            found[key] = found.get(key, 0.0) + price * values
    return found


def _value(tables: _Tables, options: np.ndarray) -> float:
    return sum(float(values[tuple(options[list(key)])]) for key, values in tables.items())


def _cliques(sizes: Sequence[int], keys: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Of every axis, in an order in which the tables stay small, the axis and the later ones it then touches."""
    near = [{axis for key in keys if own in key for axis in key} - {own} for own in range(len(sizes))]
    left, found = set(range(len(sizes))), []
    while left:
        own = min(left, key=lambda axis: (np.prod([float(sizes[one]) for one in near[axis]]), axis))
        left.remove(own)
        found.append((own, *sorted(near[own])))
        for axis in near[own]:
            near[axis] = (near[axis] | near[own]) - {axis, own}
    return found


class _Elimination:
    """The least sum of tables, by elimination of the first axis of each clique in turn.

    Attributes:
        options: int [axes], a choice of the least sum of the last run.
    """

    def __init__(self, sizes: Sequence[int], cliques: Sequence[tuple[int, ...]]):
        self.sizes, self.cliques = sizes, cliques
        self.place = {clique[0]: number for number, clique in enumerate(cliques)}
        # Where what is left of a clique goes: to the clique of the next of its axes to be eliminated.
        self.parents = [min((self.place[axis] for axis in clique[1:]), default=-1) for clique in cliques]

    def run(self, tables: _Tables) -> float:
        """The least sum."""
        self.sums = [np.zeros([self.sizes[axis] for axis in clique]) for clique in self.cliques]
        constant = 0.0
        for key, values in tables.items():
            if key:
                number = min(self.place[axis] for axis in key)
                self.sums[number] += _over(key, np.asarray(values), self.cliques[number])
            else:
                constant += float(values)
        self.messages = []
        for number, clique in enumerate(self.cliques):
            message = self.sums[number].min(0)
            self.messages.append(message)
            if len(clique) > 1:
                parent = self.parents[number]
                self.sums[parent] += _over(clique[1:], message, self.cliques[parent])
            else:
                constant += float(message)
        self.options = np.zeros(len(self.sizes), int)
        for number, clique in reversed([*enumerate(self.cliques)]):
            self.options[clique[0]] = np.argmin(self.sums[number][(slice(None), *self.options[list(clique[1:])])])
        self.value = constant
        return constant

    def least_of_options(self) -> list[np.ndarray]:
        """By axis, the least sum of the choices that take each of its options, after a run."""
        whole = list(self.sums)
        found: list[np.ndarray] = [np.zeros(0)] * len(self.sizes)
        for number, clique in reversed([*enumerate(self.cliques)]):
            if len(clique) > 1:
                parent = self.cliques[self.parents[number]]
                others = tuple(place for place, axis in enumerate(parent) if axis not in clique)
                above = whole[self.parents[number]].min(others)
                rest = tuple(axis for axis in parent if axis in clique)
                whole[number] = whole[number] + _over(rest, above, clique) - self.messages[number]
            else:
                whole[number] = whole[number] + (self.value - float(self.messages[number]))
            found[clique[0]] = whole[number].reshape(len(whole[number]), -1).min(1)
        return found


def _over(key: tuple[int, ...], values: np.ndarray, clique: tuple[int, ...]) -> np.ndarray:
    """A table over some axes of a clique, to be broadcast over all of them."""
    order = sorted(range(len(key)), key=lambda place: clique.index(key[place]))
    shape = [1] * len(clique)
    for place in order:
        shape[clique.index(key[place])] = values.shape[place]
    return values.transpose(order).reshape(shape)


def _improved(
    sizes: Sequence[int], loss: _Tables, costs: Sequence[_Tables], options: np.ndarray
) -> tuple[np.ndarray, float]:
    """A choice after changes of one option or two at once, each the best of its kind, until none helps."""
    options = options.copy()
    axes = np.repeat(np.arange(len(sizes)), sizes)
    numbers = np.concatenate([np.arange(size) for size in sizes])
    for _ in range(_STEPS):
        now = np.array([_value(tables, options) for tables in [loss, *costs]])
        change = np.stack([_changes(tables, sizes, options) for tables in [loss, *costs]])
        room = 1.0 + _KEPT - now[1:]
        alone = np.where((change[1:] <= room[:, None]).all(0), change[0], np.inf)
        taken, gain = [int(np.argmin(alone))], float(alone.min())
        if len(axes) ** 2 <= _PAIRS:
            # Of two axes in one table, the changes do not just add up: what is found is counted again below.
            both = change[0][:, None] + change[0][None]
            for row, left in zip(change[1:], room, strict=True):
                both[row[:, None] + row[None] > left] = np.inf
            both[axes[:, None] == axes[None]] = np.inf
            first, second = divmod(int(np.argmin(both)), len(axes))
            # Two changes for less than half as much again as one: the one is taken, and leaves room for more of them.
            if both[first, second] < 1.5 * gain:
                trial = options.copy()
                trial[axes[[first, second]]] = numbers[[first, second]]
                then = np.array([_value(tables, trial) for tables in [loss, *costs]])
                if (then[1:] <= 1.0 + _KEPT).all() and then[0] - now[0] < gain:
                    taken, gain = [first, second], float(then[0] - now[0])
        if not gain < -1e-9 * abs(now[0]):
            break
        options[axes[taken]] = numbers[taken]
    return options, _value(loss, options)


def _changes(tables: _Tables, sizes: Sequence[int], options: np.ndarray) -> np.ndarray:
    """By how much a sum changes with each option of each axis alone; one axis behind the other."""
    found = [np.zeros(size) for size in sizes]
    for key, values in tables.items():
        for place, axis in enumerate(key):
            where = tuple(slice(None) if other == place else options[one] for other, one in enumerate(key))
            found[axis] += values[where] - values[tuple(options[list(key)])]
    return np.concatenate(found)
