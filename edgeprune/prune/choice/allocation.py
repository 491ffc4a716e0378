"""How many channels each group loses: the least loss under a budget, as a program that is solved."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.prune.channels.units import Vector
from edgeprune.prune.choice.budget import ANY_NUMBER, Budget, Constraints, Resource
from edgeprune.prune.choice.criteria import Scores
from edgeprune.prune.choice.ladders import Ladder, Widths, ladder, names_of
from edgeprune.prune.choice.program import SECONDS, Infeasible, Limit, OutOfTime, Program, Solution, evaluate
from edgeprune.prune.choice.reasons import Reason, reasons
from edgeprune.recipe.patterns import check_patterns
from edgeprune.target import ChannelSteps

if TYPE_CHECKING:
    from edgeprune.prune.choice.sensitivity import Curves

# A limit that stays this much below what was asked for, in points of the whole, is worth finer multiples of channels.
TOLERANCE_POINTS = 5.0
# Widths of one group, and entries in all tables over several groups: of larger models, every so-many-th width is looked
# at.
_WIDTHS, _ENTRIES = 128, 16_000
# What a program only approximates is counted exactly afterwards; its limit is corrected until it is near, so many times
# at most.
_LOWERED, _CORRECTED = 0.98, 10
# What all channels of a group are worth at least, beside the largest measured rise of the loss.
_WORTH = 1e-2
ASK_FOR_LESS = "ask for less, lower min_channels or the channel multiple, or protect fewer layers."


@dataclasses.dataclass(frozen=True)
class Allocation:
    """What was chosen, and how good the choice is under the model of loss and cost.

    Attributes:
        keep: bool [units of the graph].
        loss, bound: of the choice, and the least that any choice could have, to the gap of the solver.
        seconds: of the search.
        costs: by what is limited, what the choice comes to and what is allowed.
        prices: by what is limited, how much the loss falls if one percent more is allowed.
        steps: of channels; finer than was asked for where the budget forbade that.
        widths: the largest number of widths that a group was tried in, where not all of them were; else None.
        reasons: of every group that had a choice, why it got its width; none where all lose the same fraction.
    """

    keep: np.ndarray
    loss: float
    bound: float
    seconds: float
    costs: Mapping[str, tuple[float, float]]
    prices: Mapping[str, float]
    steps: ChannelSteps
    widths: int | None
    reasons: tuple[Reason, ...] = ()


def allocate(
    graph: Graph,
    scores: Scores,
    budget: Budget,
    how: Literal["uniform", "global", "sensitivity"],
    constraints: Constraints,
    curves: Curves | None = None,
    resources: Sequence[Resource] = (),
    seconds: float = SECONDS,
) -> Allocation:
    """Choose the units that stay.

    Args:
        graph: what :func:`edgeprune.prune.channels.analyse.analyse` found; its groups are pruned.
        scores: importance of each unit: group → float [units of the group].
        budget: how much is to be kept, or how many filters go.
        how: ``uniform``: every group loses the same fraction. ``global``: the least sum of scores is lost.
            ``sensitivity``: the least sum of the measured rises of the loss.
        constraints: what every layer keeps. Finer steps of channels are taken until the budget can be met, and used.
        curves: what ``sensitivity`` goes by; every group that may lose channels has its curve.
        resources: what else is limited, beside the budget.
        seconds: after which the search ends with what it has.

    Raises:
        RecipeError: the budget cannot be met; the message names the largest reachable reduction. Or there is no such
            allocation, or a pattern matches nothing.
    """
    if how not in ("uniform", *_LOSSES):
        raise RecipeError(f"There is no allocation {how!r}.", expected=f"one of: {', '.join(['uniform', *_LOSSES])}.")
    if how != "global" and any(group.block for group in graph.groups):
        raise RecipeError(
            f"Blocks cannot go with the allocation {how!r}, which knows channels only.", fix='take "global".'
        )
    names = (name for group in graph.groups for name in names_of(group))
    given = {"protect": constraints.protect, "layer_rates": constraints.layer_rates}
    check_patterns("filters", given, names, "layer that makes channels")
    refused: list[_OutOfReach] = []
    while True:
        search = _Search(graph, scores, budget, how, constraints, curves, resources, seconds)
        try:
            found = search.solve()
        except _OutOfReach as error:
            refused.append(error)
            if constraints.steps == ANY_NUMBER:
                raise min(refused, key=lambda one: one.excess) from None
        else:
            if constraints.steps == ANY_NUMBER or search.is_near(found):
                return found
        # Few and narrow layers: what a multiple keeps out of reach is not worth missing the budget for.
        constraints = dataclasses.replace(constraints, steps=constraints.steps.finer())


@dataclasses.dataclass
class _Search:
    """One allocation with the channel multiple of ``constraints`` as it is."""

    graph: Graph
    scores: Scores
    budget: Budget
    how: str
    constraints: Constraints
    curves: Curves | None
    others: Sequence[Resource]
    seconds: float

    @functools.cached_property
    def full(self) -> list[Ladder]:
        """Of every group, all widths that the constraints allow."""
        return [
            ladder(self.graph, group, _by_score(group, self.scores), self.constraints) for group in self.graph.groups
        ]

    @functools.cached_property
    def resources(self) -> list[Resource]:
        return [*self.budget.resources(self.graph, self.full), *self.others]

    def solve(self) -> Allocation:
        """The best choice; where a program only approximates what is limited, of the best choices under several
        limits in its place."""
        if all(len(one.gone) == 1 and not one.gone.any() for one in self.full):
            raise _nothing_to_remove(self.full)
        widths = self._widths()
        tables = [resource.tables(widths) for resource in self.resources]
        limits = [resource.most for resource in self.resources]
        found: list[_Choice] = []
        cornered: Infeasible | None = None
        for _ in range(_CORRECTED):
            stated = [
                Limit(one.name, table, most) for one, table, most in zip(self.resources, tables, limits, strict=True)
            ]
            try:
                choice = self._choice(widths, stated)
            except Infeasible as error:
                if any(one.is_kept for one in found):
                    break  # the corrected limits were too low, those before were not
                # What the program cannot reach may be in reach all the same: its nearest choice is counted exactly.
                cornered = error
                limits = [max(limit, error.nearest[one.name]) for one, limit in zip(stated, limits, strict=True)]
                continue
            repeated = bool(found) and np.array_equal(choice.options, found[-1].options)
            found.append(choice)
            if cornered is not None and not any(one.is_kept for one in found):
                raise _unreachable(_counted_exactly(cornered, stated, choice.uses), self.resources, self.budget)
            if choice.is_kept and (repeated or choice.is_settled):
                break
            limits = [use.next_limit(choice.is_kept) for use in choice.uses]
        return self._allocation(widths, found)

    def _choice(self, widths: Widths, limits: Sequence[Limit]) -> _Choice:
        """The best choice under what the program counts, and what it comes to.

        Raises:
            Infeasible: the program cannot keep the limits.
        """
        program = Program(widths.sizes, self._loss(widths), limits, widths.totals)
        options, solution = self._options(widths, program)
        keep = widths.keep(options)
        uses = [
            _Use(one.most, limit.most, program.cost(limit, options), one.exact(keep), one.close)
            for one, limit in zip(self.resources, limits, strict=True)
        ]
        return _Choice(program, options, solution, keep, uses)

    def _allocation(self, widths: Widths, found: Sequence[_Choice]) -> Allocation:
        """The best of the choices that keep all limits."""
        kept = [one for one in found if one.is_kept]
        if not kept:
            raise _not_found(self.seconds)
        best = min(kept, key=lambda one: one.solution.loss)
        prices, ratios = best.solution.prices, [use.ratio for use in best.uses]
        return Allocation(
            best.keep,
            best.solution.loss,
            # That of a limit that was lowered does not hold for the limit itself.
            min(one.solution.bound for one in found),
            sum(one.solution.seconds for one in found),
            {one.name: (use.exact, one.most) for one, use in zip(self.resources, best.uses, strict=True)},
            prices,
            self.constraints.steps,
            self._most_widths(widths),
            () if self.how == "uniform" else reasons(widths, best.program, best.options, prices, ratios),
        )

    def _widths(self) -> Widths:
        """As many widths of each group as the tables over pairs of them leave room for."""
        most = _WIDTHS
        while True:
            widths = Widths(self.graph, [one.thinned(most) for one in self.full])
            pairs = widths.sum_of(self.graph.macs)
            entries = sum(np.size(table) for key, table in pairs.items() if len(key) > 1)
            if entries <= _ENTRIES or most <= 4:
                return Widths(self.graph, widths.ladders)
            most = max(4, min(int(most * math.sqrt(_ENTRIES / entries)), most - 1))

    def is_near(self, found: Allocation) -> bool:
        """Whether a limit is used but for the tolerance."""
        spare = [(one.most - found.costs[one.name][0]) / one.whole for one in self.resources]
        return self.budget.rate is not None or min(spare) <= TOLERANCE_POINTS / 100

    def _most_widths(self, widths: Widths) -> int | None:
        """The largest number of widths of a group, where not all of them are looked at."""
        is_thinned = any(len(a.gone) > len(b.gone) for a, b in zip(self.full, widths.ladders, strict=True))
        return max(widths.sizes) if is_thinned else None

    def _loss(self, widths: Widths) -> dict[tuple[int, ...], np.ndarray]:
        loss = _LOSSES.get(self.how, _lost_scores)
        return {(axis,): loss(one, self.scores, self.curves) for axis, one in enumerate(widths.ladders)}

    def _options(self, widths: Widths, program: Program) -> tuple[np.ndarray, Solution]:
        rungs = _rungs(widths.ladders) if self.how == "uniform" else None
        try:
            if rungs is None:
                solution = program.solve(self.seconds)
                return solution.options, solution
            solution = _tied(program, rungs).solve(self.seconds)
            return rungs[int(solution.options[0])], solution
        except OutOfTime:
            raise _not_found(self.seconds) from None


@dataclasses.dataclass(frozen=True)
class _Use:
    """How much of something limited a choice uses.

    Attributes:
        most: what may be used.
        limit: what stood for it in the program.
        counted, exact: what is used, as the program counts it, and as it is.
        close: how near the limit is brought.
    """

    most: float
    limit: float
    counted: float
    exact: float
    close: float

    @property
    def ratio(self) -> float:
        """What is used, as a multiple of what the program counts."""
        return self.exact / self.counted if self.counted else 1.0

    @property
    def is_kept(self) -> bool:
        return self.exact <= self.most * (1 + 1e-9)

    @property
    def corrected(self) -> float:
        """The limit that would have let this choice use what may be used."""
        return self.most * min(max(self.counted / self.exact, 0.2), 5.0) if self.exact else self.most

    @property
    def is_settled(self) -> bool:
        """Whether a higher limit in the program would allow no more."""
        return self.corrected <= self.limit * (1 + self.close)

    def next_limit(self, all_kept: bool) -> float:
        """What is exceeded is lowered, by a little at least; if all is kept, what has room is raised."""
        if not self.is_kept:
            return min(self.corrected, self.limit * _LOWERED)
        return max(self.corrected, self.limit) if all_kept else self.limit


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What a program chose: options, bool [units of the graph] that stay, and how much of each limit that uses."""

    program: Program
    options: np.ndarray
    solution: Solution
    keep: np.ndarray
    uses: Sequence[_Use]

    @property
    def is_kept(self) -> bool:
        return all(use.is_kept for use in self.uses)

    @property
    def is_settled(self) -> bool:
        return all(use.is_settled for use in self.uses)


def _by_score(group: Group, scores: Scores) -> Vector:
    """The units of a group that may go, the least important first."""
    return group.free[np.argsort(scores[group.name][group.free], kind="stable")]


def _lost_scores(one: Ladder, scores: Scores, curves: Curves | None) -> np.ndarray:
    """Of each width, the sum of the scores of what goes."""
    return ~one.kept @ scores[one.group.name]


def _measured_rises(one: Ladder, scores: Scores, curves: Curves | None) -> np.ndarray:
    """Of each width, the rise of the measured loss, straight between the points; past the last, it goes on as before.

    Where it does not rise, a channel is worth a little all the same.
    """
    assert curves is not None
    if len(one.gone) == 1:
        return np.zeros(1)
    rates, rises = curves.loss_rise(one.group)
    rate = 1 - one.kept.mean(1)
    slope = (rises[-1] - rises[-2]) / (rates[-1] - rates[-2]) if len(rates) > 1 else 0.0
    worth = _WORTH * max(float(rises[-1]), 1e-6) * rate
    return np.interp(rate, rates, rises) + slope * np.maximum(rate - rates[-1], 0.0) + worth


# Allocation → the loss of each width of a group: what is least in the sum over all groups.
_LOSSES: dict[str, Callable[[Ladder, Scores, Curves | None], np.ndarray]] = {
    "global": _lost_scores,
    "sensitivity": _measured_rises,
}


def _rungs(ladders: Sequence[Ladder]) -> np.ndarray:
    """Options of all ladders, rung after rung down: int [rungs, ladders].

    Each rung narrows one group by one step, the one that then has lost the least fraction, counted at half of the step,
    so that a rate is rounded for all at once.
    """
    steps = sorted(
        ((one.gone[option - 1] + one.gone[option]) / 2 / one.group.size, index)
        for index, one in enumerate(ladders)
        for option in range(1, len(one.gone))
    )
    taken = np.zeros((len(steps) + 1, len(ladders)), int)
    for rung, (_, index) in enumerate(steps):
        taken[rung + 1 :, index] += 1
    return taken


def _tied(program: Program, rungs: np.ndarray) -> Program:
    """The program in which all groups go down together: its only axis are the rungs, and the highest is best."""

    def along(tables: Mapping[tuple[int, ...], np.ndarray]) -> dict[tuple[int, ...], np.ndarray]:
        return {(0,): np.array([evaluate(tables, program.sizes, options, program.totals) for options in rungs])}

    limits = [Limit(limit.name, tuple(along(cost) for cost in limit.costs), limit.most) for limit in program.limits]
    return Program([len(rungs)], {(0,): np.arange(len(rungs), dtype=float)}, limits)


class _OutOfReach(RecipeError):
    """No choice was found. ``excess``: what the nearest one uses at the tightest limit, as a multiple of that limit."""

    excess = math.inf


def _nothing_to_remove(ladders: Sequence[Ladder]) -> _OutOfReach:
    reasons = [f"{one.group.name}: {one.group.frozen or 'protected, or at its minimum'}" for one in ladders]
    return _OutOfReach(
        f"There are no filters to remove. {'; '.join(reasons[:5])}{'; …' if len(reasons) > 5 else '.'}",
        expected="a group of channels that is not frozen; `edgeprune inspect MODEL` lists them.",
        fix="protect fewer layers, lower min_channels, or prune weights ([weights]) instead.",
    )


def _not_found(seconds: float) -> _OutOfReach:
    return _OutOfReach(
        f"No choice of channels that keeps all limits was found in {seconds:.0f} seconds.",
        fix="limit fewer things at once, or use a coarser channel multiple (round_to).",
    )


def _counted_exactly(error: Infeasible, limits: Sequence[Limit], uses: Sequence[_Use]) -> Infeasible:
    """What the nearest choice, which uses this, comes to as it is, and the least as that suggests."""
    nearest = {limit.name: use.exact for limit, use in zip(limits, uses, strict=True)}
    least = {limit.name: error.least[limit.name] * use.ratio for limit, use in zip(limits, uses, strict=True)}
    return Infeasible(nearest, least)


def _unreachable(error: Infeasible, resources: Sequence[Resource], budget: Budget) -> _OutOfReach:
    what, fix = _words_of(error, resources, budget)
    found = _OutOfReach(what, fix=fix)
    found.excess = max(error.nearest[one.name] / max(one.most, 1e-12) for one in resources)
    return found


def _words_of(error: Infeasible, resources: Sequence[Resource], budget: Budget) -> tuple[str, str]:
    """What cannot be reached, and what to ask for instead."""
    by_name = {resource.name: resource for resource in resources}
    in_the_way = [name for name, least in error.least.items() if least > by_name[name].most * (1 + 1e-9)]
    asked = " and ".join(resource.told(resource.most) for resource in resources)
    if budget.rate is not None and len(resources) == 1:
        (resource,) = resources
        return (
            f"Removing {budget.rate:.1%} of the filters cannot be reached: the largest reachable reduction removes "
            f"{1 - error.least[resource.name] / resource.whole:.1%} of them.",
            ASK_FOR_LESS,
        )
    each = "; ".join(f"the least for {name} is {by_name[name].told(error.least[name])}" for name in in_the_way)
    together = " and ".join(by_name[name].told(value) for name, value in error.nearest.items())
    can = " and ".join(by_name[name].line(max(value, by_name[name].most)) for name, value in error.nearest.items())
    why = each or "each limit can be kept alone, not all together"
    return (
        f"Keeping {asked} cannot be reached: {why}. The nearest that can be had leaves {together}.",
        f"ask for what was found, {can}" + ASK_FOR_LESS.removeprefix("ask for less"),
    )
