"""What is to be kept of a model, and what its channels cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgeprune.prune.channels.graph import Graph, Group

# A budget counts as met within this many points of the whole.
TOLERANCE_POINTS = 2.0


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


def kept_fractions(graph: Graph, keep: np.ndarray, budget: Budget) -> dict[str, float]:
    """The fraction that stays of everything that the budget limits."""
    counts = {"params": graph.count_params, "macs": graph.count_macs}
    return {what: counts[what](keep) / graph.totals[what] for what in budget.limits}


def unit_costs(graph: Graph, groups: Sequence[Group], budget: Budget, balance: float = 0.5) -> dict[str, float]:
    """The share of the model that removing one unit of each group saves: of its MACs, of its parameters, or of both, as
    the budget limits them; ``balance``: the weight of parameters against MACs then, in [0, 1]."""
    weights = {"params": balance, "macs": 1 - balance} if len(budget.limits) > 1 else {}
    costs = dict.fromkeys((group.name for group in groups), 0.0)
    for what in budget.limits or ("macs",):
        for name, saved in unit_savings(graph, groups, what).items():
            costs[name] += weights.get(what, 1.0) * saved / graph.totals[what]
    return costs


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
