"""An allocation as an integer program: one option of every axis, the least loss, and every limit kept.

An axis is what is decided once, such as the width of a group: one binary variable per option. What a choice costs is a
sum of tables, each over the options of one axis or of several. A table over several is linear in a variable for each
combination of their options, and those variables are a transport from one axis to the others: their sums over all
other axes are the binaries of the axis (the standard exact linearization of products of binaries in which exactly one
is 1; Padberg 1989, doi:10.1007/BF01589101, for pairs). HALP (Shen et al. 2022, arXiv:2110.10811) and MDP (Sun et al.
2025, arXiv:2406.12079) put latency into such programs.

The Lagrangian relaxation comes first (:mod:`edgeprune.prune.choice.relaxation`): often its choice is near enough to its
bound, and else it leaves few options to the solver.

Where many axes add up in one number, as the channels of a concatenation do, the number is an axis, too: interpolated
between points, exactly where the tables over it are linear.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy.optimize
import scipy.sparse

from edgeprune.chatter import without_lines
from edgeprune.prune.choice.relaxation import relaxed

# Axes → values [options of each]; (): a constant. What it stands for is the sum of all.
Tables = Mapping[tuple[int, ...], np.ndarray]

GAP = 1e-4  # relative; a solution this near to the bound ends the search
SECONDS = 60.0
# What the largest loss of a table is scaled to for the solver, which stops at an absolute gap of a millionth, too. A
# choice whose loss is below the second may be off by more than the relative gap.
_LARGEST_LOSS, _SMALL_LOSS = 1e4, 1e-2
# What HiGHS leaves on standard output, whatever it is told.
_CHATTER = re.compile("Highs")


@dataclasses.dataclass(frozen=True)
class Total:
    """A number that several axes add up to, as an axis of its own.

    Attributes:
        tables: what it is the sum of; over one axis each.
        points: rising; tables over this axis have a value at each, and are interpolated in between.
    """

    tables: Tables
    points: np.ndarray


@dataclasses.dataclass(frozen=True)
class Limit:
    """Something that may be at most so much.

    Attributes:
        name: what is limited, such as "macs".
        costs: each must be at most ``most``; several, for the largest of several numbers.
        most: above 0, in the unit of the costs.
    """

    name: str
    costs: tuple[Tables, ...]
    most: float


@dataclasses.dataclass(frozen=True)
class Solution:
    """A choice, and how good it is.

    Attributes:
        options: int [axes], the chosen option of each.
        loss: of the choice.
        bound: no choice that keeps the limits has a loss below it.
        seconds: that the search took.
        prices: by limit, by how much the loss falls if the limit is raised by one percent of itself: the shadow price
            in the relaxation.
    """

    options: np.ndarray
    loss: float
    bound: float
    seconds: float
    prices: Mapping[str, float]

    @property
    def gap(self) -> float:
        """How far the loss may be from the best, as a fraction of it."""
        return relative_gap(self.loss, self.bound)


def relative_gap(loss: float, bound: float) -> float:
    """How far a loss is above its bound, as a fraction of it."""
    return max(loss - bound, 0.0) / max(abs(loss), 1e-300)


class Infeasible(Exception):
    """No choice keeps all limits.

    Attributes:
        nearest: by limit, what the choice that exceeds them least, relative to each, comes to.
        least: by limit, the least that any choice comes to.
    """

    def __init__(self, nearest: Mapping[str, float], least: Mapping[str, float]):
        super().__init__("no choice keeps all limits")
        self.nearest, self.least = nearest, least


class OutOfTime(Exception):
    """No choice was found in the time given."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What is to be decided.

    Attributes:
        sizes: the number of options of each axis that is chosen from.
        loss: what is to be least.
        limits: what every choice keeps.
        totals: the axes behind those of ``sizes``.
    """

    sizes: Sequence[int]
    loss: Tables
    limits: Sequence[Limit]
    totals: Sequence[Total] = ()

    def solve(self, seconds: float = SECONDS, gap: float = GAP) -> Solution:
        """The choice of the least loss.

        Raises:
            Infeasible: no choice keeps all limits.
            OutOfTime: none was found in ``seconds``.
        """
        started = time.monotonic()
        near = self._relaxed(gap)
        if near is None:
            return self._solved(seconds, gap)
        best, useful = near
        if best.gap > gap:
            best = self._searched(best, useful, seconds, gap)
        return dataclasses.replace(best, seconds=time.monotonic() - started)

    def _relaxed(self, gap: float) -> tuple[Solution, list[np.ndarray]] | None:
        """A choice and its bound by the Lagrangian relaxation, and by axis the options that a better one may take;
        None: there is no such relaxation, or it met no choice that keeps all limits."""
        if self.totals or any(limit.most <= 0 for limit in self.limits):
            return None
        names = [limit.name for limit in self.limits for _ in limit.costs]
        costs = [
            {key: values / limit.most for key, values in cost.items()} for limit in self.limits for cost in limit.costs
        ]
        found = relaxed(self.sizes, self.loss, costs, gap)
        if found is None or found.options is None:
            return None
        prices = dict.fromkeys(names, 0.0)
        for name, price in zip(names, found.prices.tolist(), strict=True):
            prices[name] += price / 100
        return Solution(found.options, found.loss, min(found.bound, found.loss), 0.0, prices), found.useful

    def _searched(self, best: Solution, useful: Sequence[np.ndarray], seconds: float, gap: float) -> Solution:
        """The best of a choice and those that take useful options only, where all better ones are."""
        kept = [np.union1d(some, [option]) for some, option in zip(useful, best.options.tolist(), strict=True)]
        left = [axis for axis, some in enumerate(kept) if len(some) > 1]
        if not left:  # no other choice can be better, whatever the bound, which rounding may have left behind
            return dataclasses.replace(best, bound=best.loss)
        number = {axis: place for place, axis in enumerate(left)}

        def within(tables: Tables) -> Tables:
            parts = []
            for key, values in tables.items():
                some = values[np.ix_(*(kept[axis] for axis in key))] if key else values
                open_axes = tuple(number[axis] for axis in key if axis in number)
                parts.append({open_axes: np.reshape(some, [len(kept[left[place]]) for place in open_axes])})
            return summed(parts)

        limits = [Limit(one.name, tuple(map(within, one.costs)), one.most) for one in self.limits]
        try:
            found = Program([len(kept[axis]) for axis in left], within(self.loss), limits)._solved(seconds, gap)
        except (Infeasible, OutOfTime):
            return best
        bound = max(best.bound, min(found.bound, best.loss))
        if found.loss >= best.loss:
            return dataclasses.replace(best, bound=bound)
        options = best.options.copy()
        options[left] = [kept[axis][option] for axis, option in zip(left, found.options.tolist(), strict=True)]
        return dataclasses.replace(best, options=options, loss=found.loss, bound=min(bound, found.loss))

    def _solved(self, seconds: float, gap: float) -> Solution:
        """The choice of the least loss by the solver."""
        started = time.monotonic()
        linear = _Linear(self)
        loss, constant = linear.row(self.loss)
        scale = (float(np.abs(loss).max(initial=0.0)) or 1.0) / _LARGEST_LOSS
        rows = [linear.limited(limit) for limit in self.limits]
        found = linear.minimise(loss / scale, rows, seconds, gap)
        if found.status == 2:
            raise self._infeasible(linear, seconds)
        if found.x is None:
            raise OutOfTime
        options = linear.options(found.x)
        value = evaluate(self.loss, self.sizes, options, self.totals)
        if 0 < value < _SMALL_LOSS * scale and all(np.min(table) >= 0 for table in self.loss.values()):
            # What costs more than this choice in all is in none that is better: it need not be told apart.
            capped = {axes: np.minimum(table, 2 * value) for axes, table in self.loss.items()}
            better = dataclasses.replace(self, loss=capped)._solved(seconds, gap)
            return dataclasses.replace(better, seconds=time.monotonic() - started)
        bound = (found.mip_dual_bound if found.mip_dual_bound is not None else found.fun) * scale + constant
        prices = linear.prices(loss, rows, [limit.name for limit in self.limits])
        return Solution(options, value, min(bound, value), time.monotonic() - started, prices)

    def cost(self, limit: Limit, options: np.ndarray) -> float:
        """What a choice comes to of something limited."""
        return max(evaluate(tables, self.sizes, options, self.totals) for tables in limit.costs)

    def _infeasible(self, linear: _Linear, seconds: float) -> Infeasible:
        def stretched(limits: Sequence[Limit]) -> dict[str, float]:
            found = linear.stretch([linear.limited(limit) for limit in limits], seconds)
            options = linear.options(found.x)
            return {limit.name: self.cost(limit, options) for limit in limits}

        least = {limit.name: stretched([limit])[limit.name] for limit in self.limits}
        return Infeasible(stretched(self.limits), least)


def summed(parts: Iterable[Tables]) -> dict[tuple[int, ...], np.ndarray]:
    """Sums of tables added up: one table for the same axes."""
    found: dict[tuple[int, ...], np.ndarray] = {}
    for tables in parts:
        for axes, values in tables.items():
            found[axes] = found.get(axes, 0.0) + values
    return found


def evaluate(tables: Tables, sizes: Sequence[int], options: np.ndarray, totals: Sequence[Total] = ()) -> float:
    """What a choice comes to; tables over a total are interpolated at what the choice adds up to."""
    weights: list[tuple[np.ndarray, np.ndarray]] = [(np.array([option]), np.ones(1)) for option in options.tolist()]
    for total in totals:
        number = sum(float(part[tuple(options[list(axes)])]) for axes, part in total.tables.items())
        weights.append(_between(total.points, number))
    value = 0.0
    for axes, values in tables.items():
        part = values
        for axis in axes:  # the first axis goes each time
            indices, shares = weights[axis]
            part = np.tensordot(shares, part[indices], 1)
        value += float(part)
    return value


def _between(points: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray]:
    """The points around a value and their weights in it."""
    if len(points) == 1:
        return np.zeros(1, int), np.ones(1)
    right = int(np.clip(np.searchsorted(points, value), 1, len(points) - 1))
    share = (value - points[right - 1]) / (points[right] - points[right - 1])
    return np.array([right - 1, right]), np.array([1 - share, share])


class _Linear:
    """A program in the form of a solver: variables, equations between them, and costs as rows over them."""

    def __init__(self, program: Program):
        axes = [*program.sizes, *(len(total.points) for total in program.totals)]
        starts = np.cumsum([0, *axes])
        self.axes = [range(start, stop) for start, stop in itertools.pairwise(starts.tolist())]
        self.chosen = len(program.sizes)
        self.count = int(starts[-1])
        self.joint: dict[tuple[int, ...], int] = {}  # axes of a table over several → its first variable
        self.shapes = {
            key: tuple(axes[axis] for axis in key)
            for tables in [program.loss, *(cost for limit in program.limits for cost in limit.costs)]
            for key in tables
            if len(key) > 1
        }
        for key, shape in self.shapes.items():
            self.joint[key] = self.count
            self.count += int(np.prod(shape))
        self.equations, self.right = self._equations(program)

    def _equations(self, program: Program) -> tuple[scipy.sparse.csr_array, np.ndarray]:
        rows: list[np.ndarray] = []
        columns: list[np.ndarray] = []
        values: list[np.ndarray] = []
        right: list[float] = []

        def add(where: np.ndarray, factors: np.ndarray, equals: float) -> None:
            rows.append(np.full(len(where), len(right)))
            columns.append(where)
            values.append(factors)
            right.append(equals)

        for axis in self.axes:
            add(np.array(axis), np.ones(len(axis)), 1.0)
        for axis, total in zip(self.axes[self.chosen :], program.totals, strict=True):
            row, constant = self.row(total.tables)
            used = np.flatnonzero(row)
            scale = max(float(np.abs(total.points).max()), 1.0)
            add(
                np.concatenate([np.array(axis), used]),
                np.concatenate([total.points, -row[used]]) / scale,
                constant / scale,
            )
        for key, start in self.joint.items():
            shape = self.shapes[key]
            numbers = np.arange(start, start + int(np.prod(shape))).reshape(shape)
            for position, number in enumerate(key):
                slices = np.moveaxis(numbers, position, 0).reshape(shape[position], -1)
                for variable, part in zip(self.axes[number], slices, strict=True):
                    add(np.append(part, variable), np.append(np.ones(len(part)), -1.0), 0.0)
        entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        return scipy.sparse.coo_array(entries, (len(right), self.count)).tocsr(), np.array(right)

    def row(self, tables: Tables) -> tuple[np.ndarray, float]:
        """The factors of the variables in a sum of tables, and its constant."""
        row, constant = np.zeros(self.count), 0.0
        for key, values in tables.items():
            if not key:
                constant += float(values)
                continue
            start = self.joint[key] if len(key) > 1 else self.axes[key[0]].start
            row[start : start + values.size] += np.ravel(values)
        return row, constant

    def limited(self, limit: Limit) -> tuple[scipy.sparse.csr_array, np.ndarray]:
        """Rows that are at most ``right``, in shares of the limit."""
        found = [self.row(cost) for cost in limit.costs]
        unit = limit.most if limit.most > 0 else 1.0  # of nothing, as of filters where every group has its own rate
        matrix = scipy.sparse.csr_array(np.stack([row for row, _ in found])) / unit
        return matrix, (limit.most - np.array([constant for _, constant in found])) / unit

    def minimise(
        self, loss: np.ndarray, rows: Sequence[tuple[scipy.sparse.csr_array, np.ndarray]], seconds: float, gap: float
    ) -> scipy.optimize.OptimizeResult:
        integers = np.zeros(len(loss))
        integers[: self.axes[self.chosen - 1].stop if self.chosen else 0] = 1
        free = len(loss) - self.count  # variables beside those of the program: by how much limits are stretched
        equations = scipy.sparse.hstack([self.equations, scipy.sparse.csr_array((len(self.right), free))])
        constraints = [scipy.optimize.LinearConstraint(equations, self.right, self.right)]
        constraints += [scipy.optimize.LinearConstraint(matrix, -np.inf, most) for matrix, most in rows]
        upper = np.concatenate([np.ones(self.count), np.full(free, np.inf)])
        with without_lines(_CHATTER, descriptor=1):
            return scipy.optimize.milp(
                loss,
                integrality=integers,
                bounds=scipy.optimize.Bounds(0, upper),
                constraints=constraints,
                options={"time_limit": seconds, "mip_rel_gap": gap},
            )

    def stretch(
        self, rows: Sequence[tuple[scipy.sparse.csr_array, np.ndarray]], seconds: float
    ) -> scipy.optimize.OptimizeResult:
        """The choice for which the limits have to be stretched least, all by the same share."""
        stretched = [
            (scipy.sparse.hstack([matrix, np.full((matrix.shape[0], 1), -1.0)]), most - 1.0) for matrix, most in rows
        ]
        found = self.minimise(np.append(np.zeros(self.count), 1.0), stretched, seconds, GAP)
        if found.x is None:
            raise OutOfTime
        return found

    def options(self, x: np.ndarray) -> np.ndarray:
        return np.array([int(np.argmax(x[axis.start : axis.stop])) for axis in self.axes[: self.chosen]], int)

    def prices(
        self, loss: np.ndarray, rows: Sequence[tuple[scipy.sparse.csr_array, np.ndarray]], names: Sequence[str]
    ) -> dict[str, float]:
        """Per limit, the fall of the loss per percent: from the dual values of the relaxation."""
        if not rows:
            return {}
        relaxed = scipy.optimize.linprog(
            loss,
            A_ub=scipy.sparse.vstack([matrix for matrix, _ in rows]),
            b_ub=np.concatenate([most for _, most in rows]),
            A_eq=self.equations,
            b_eq=self.right,
            bounds=(0, 1),
            method="highs",
        )
        if relaxed.status != 0:
            return {}
        cuts = np.cumsum([matrix.shape[0] for matrix, _ in rows])[:-1]
        parts = np.split(-relaxed.ineqlin.marginals, cuts)
        return {name: float(part.sum()) / 100 for name, part in zip(names, parts, strict=True)}
