"""What is to be kept of a model, and what its channels cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.target import ChannelSteps

if TYPE_CHECKING:
    from edgeprune.prune.choice.ladders import Ladder, Widths
    from edgeprune.prune.choice.program import Tables


ANY_NUMBER = ChannelSteps()


@dataclasses.dataclass(frozen=True)
class Resource:
    """Something of which at most so much may be used.

    Attributes:
        name: in the report, such as "macs".
        key: of the recipe that limits it, such as "max_macs"; "": it is not limited as a maximum.
        words: what a share of it is a share of, such as "MACs".
        most: what may be used.
        whole: what the unpruned model uses, in the same unit.
        tables: what it comes to, for a program; where several are given, the largest of them.
        exact: what it comes to if only the units stay that are given: bool [units] → the same unit.
        unit: of an amount that is told as such, such as "ms"; "": it is told as a share of the whole.
        close: how near to it, as a fraction, an approximated limit is brought: not too near where counting takes long.
    """

    name: str
    key: str
    words: str
    most: float
    whole: float
    tables: Callable[[Widths], tuple[Tables, ...]]
    exact: Callable[[np.ndarray], float]
    unit: str = ""
    close: float = 2e-3

    def limited(self, amount: float | str, of: float | None = None) -> Resource:
        """Of which at most so much may be used: in its unit, or such as "50%" of the whole or ``of`` an amount."""
        whole = self.whole if of is None else of
        most = float(amount.strip()[:-1]) / 100 * whole if isinstance(amount, str) else amount
        return dataclasses.replace(self, most=most)

    def told(self, amount: float) -> str:
        """An amount in words."""
        if not self.unit:
            return f"{amount / self.whole:.1%} of the {self.words}"
        return f"{amount:,.4g} {self.unit}" if amount < 1e4 else f"{amount:,.0f} {self.unit}"

    def line(self, amount: float) -> str:
        """The line of a recipe that allows an amount."""
        # Rounded up, so that the amount itself is allowed.
        if self.unit:
            return f"{self.key} = {math.ceil(amount * 1e3) / 1e3:.10g}"
        return f'{self.key} = "{math.ceil(amount / self.whole * 1e3) / 10:.1f}%"'


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

    def resources(self, graph: Graph, ladders: Sequence[Ladder]) -> list[Resource]:
        """What it limits; ``ladders``: one per group, with the widths that it may have."""
        found = [_counted(graph, what, limit) for what, limit in self.limits.items()]
        return found if self.rate is None else [_filters(ladders, self.rate), *found]


def _counted(graph: Graph, what: str, limit: float) -> Resource:
    terms, counted, words = {
        "params": (graph.params, graph.count_params, "parameters"),
        "macs": (graph.macs, graph.count_macs, "MACs"),
    }[what]
    whole = graph.totals[what]
    return Resource(what, f"max_{what}", words, limit * whole, whole, lambda widths: (widths.sum_of(terms),), counted)


def _filters(ladders: Sequence[Ladder], rate: float) -> Resource:
    """The channels of all groups that have a choice."""
    chosen = [axis for axis, one in enumerate(ladders) if len(one.gone) > 1 and not one.group.block]
    whole = sum(ladders[axis].group.size for axis in chosen)
    # A rate is met by the nearest number of filters: half of the smallest step may be missing.
    half = min((int(np.diff(ladders[axis].gone).min()) for axis in chosen), default=0) / 2

    def exact(keep: np.ndarray) -> float:
        return float(sum(np.count_nonzero(keep[ladders[axis].group.units]) for axis in chosen))

    def tables(widths: Widths) -> tuple[Tables, ...]:
        return ({(axis,): widths.ladders[axis].kept.sum(1).astype(float) for axis in chosen},)

    return Resource("filters", "", "filters", (1 - rate) * whole + half, whole, tables, exact)


@dataclasses.dataclass(frozen=True)
class Constraints:
    """What every allocation respects.

    Attributes:
        min_channels: kept in every layer.
        steps: the numbers of channels of every pruned layer, where the group allows it; finer ones are taken until the
            budget can be met.
        protect: shell patterns over names of groups and of the layers that make their channels; they are not pruned.
        layer_rates: shell pattern over the same → fraction of filters removed, instead of the overall rate.
        max_rate: no group loses more than this fraction.
    """

    min_channels: int = 1
    steps: ChannelSteps = ANY_NUMBER
    protect: tuple[str, ...] = ()
    layer_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    max_rate: float = 0.95


def kept_fractions(graph: Graph, keep: np.ndarray, budget: Budget) -> dict[str, float]:
    """The fraction that stays of everything that the budget limits."""
    counts = {"params": graph.count_params, "macs": graph.count_macs}
    return {what: counts[what](keep) / graph.totals[what] for what in budget.limits}


def unit_savings(graph: Graph, groups: Sequence[Group], what: str) -> dict[str, float]:
    """How many MACs ("macs") or parameters ("params") removing one unit of each group saves; 0 for a frozen group."""
    first = {g.name: int(g.units[g.free[0]]) for g in groups if len(g.free)}
    of_interest = np.zeros(len(graph.units), bool)
    of_interest[list(first.values())] = True
    saved = np.zeros(len(graph.units))
    for term in {"params": graph.params, "macs": graph.macs}[what]:
        whole = term.coefficient * math.prod(map(len, term.vectors))
        for unit in {int(unit) for vector in term.vectors for unit in vector[of_interest[vector]]}:
            left = term.coefficient * math.prod(int(np.count_nonzero(vector != unit)) for vector in term.vectors)
            saved[unit] += whole - left
    return {group.name: float(saved[first[group.name]]) if group.name in first else 0.0 for group in groups}
