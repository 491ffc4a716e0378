"""Which channels of a model depend on each other: what :mod:`edgeprune.prune.channels.analyse` finds, as data."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprune.models.graph import CallKey, View
from edgeprune.prune.channels.units import Units, Vector

if TYPE_CHECKING:
    import tf_keras

Axes = tuple[Vector | None, ...]  # one entry per axis but the batch
Path = tuple[str | int, ...]  # keys and positions that lead to a value in nested dicts and lists
# produced: the channels that the weight makes; consumed: summed over; followed: one value per channel, passed through;
# matched: produced, and summed over by the layer itself in a product with another tensor (queries with keys)
Role = Literal["produced", "consumed", "followed", "matched"]


@dataclasses.dataclass(frozen=True)
class Binding:
    """One axis of one weight follows a vector of units."""

    weight: int  # position in ``layer.weights``
    axis: int
    vector: Vector
    role: Role


@dataclasses.dataclass(frozen=True)
class Edit:
    """A constant in a call's arguments that changes with the units: ``path`` leads to it from (args, kwargs).

    ``count``: becomes the number of positions kept in ``vector``. ``take``: an array, sliced along ``axis``.
    """

    path: Path
    vector: Vector
    kind: Literal["count", "take"] = "count"
    axis: int = 0


@dataclasses.dataclass
class LayerPlan:
    """How one layer follows the units.

    Attributes:
        bindings: which weight axes are sliced.
        sizes: config keys (paths, for nested configs) that hold a number of channels.
        scale_queries: head-size vector of an attention layer, whose queries are divided by the root of its length.
    """

    bindings: list[Binding] = dataclasses.field(default_factory=list)
    sizes: dict[Path, Vector] = dataclasses.field(default_factory=dict)
    scale_queries: Vector | None = None


@dataclasses.dataclass(frozen=True)
class Term:
    """A layer's ``coefficient`` multiply-accumulates, or weights, for each combination of positions in ``vectors``."""

    layer: str
    coefficient: float
    vectors: tuple[Vector, ...]


@dataclasses.dataclass(frozen=True)
class Member:
    """One axis of one weight that a group reaches.

    ``index`` [positions along the axis]: number of the unit within the group, or -1 for positions of other groups.
    """

    layer: str
    weight: str
    axis: int
    role: Role
    index: Vector


@dataclasses.dataclass(frozen=True)
class Group:
    """Channels that one or several layers make together.

    Attributes:
        name: the first layer that makes them.
        units: representatives of its units, in the order of that layer's channels.
        members: every weight axis that shrinks when units are removed.
        reasons: why a unit is frozen, by its number; units that are not in it can be removed.
        block: the layers that vanish with its one unit, if that is a block
            (:mod:`edgeprune.prune.channels.block_units`).
    """

    name: str
    units: Vector
    members: tuple[Member, ...]
    reasons: dict[int, str]
    block: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.units)

    @property
    def free(self) -> Vector:
        """int [units that can be removed]: their numbers within the group."""
        return np.array([number for number in range(self.size) if number not in self.reasons], int)

    @property
    def frozen(self) -> str | None:
        """Why nothing can be removed from the group, or None."""
        return next(iter(self.reasons.values())) if len(self.reasons) == self.size else None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose weights make these channels."""
        return tuple(dict.fromkeys(m.layer for m in self.members if m.role == "produced"))


class Graph:
    """What the walk found out about a model. Vectors hold representatives once the walk is over.

    Attributes:
        model: flat functional tf_keras model; ``view``: its calls.
        units: everything that can be removed; a *vector* is an int array of their numbers, one per channel.
        sharing: layer → another layer that holds the same weights.
        layers: layer → how its weights and config follow the units.
        edits: call → arguments of the call that shrink with the units.
        macs, params: terms whose sums are the model's multiply-accumulates and weights.
        masks: call → (input tensor, its axis, vector): where the oracle zeroes.
        axes: id of a tensor between layers → a vector, or None, for each axis but the batch.
        producers: (name for the group, layer, vector) of all weights that make channels.
        produced: (layer, key in its config) → the vector it makes; the same at every call of a shared layer.
        nonempty: vectors of which something must stay.
        groups: the channels that can only be removed together.
    """

    def __init__(self, model: tf_keras.Model):
        self.model = model
        self.view = View(model)
        self.units = Units()
        self.sharing = _sharing(model)
        self.layers: dict[str, LayerPlan] = {layer.name: LayerPlan() for layer in model.layers}
        self.edits: dict[CallKey, list[Edit]] = {}
        self.macs: list[Term] = []
        self.params: list[Term] = []
        self.masks: dict[CallKey, list[tuple[int, int, Vector]]] = {}
        self.axes: dict[int, Axes] = {}  # by the id of the tensor between layers
        self.producers: list[tuple[str, str, Vector]] = []
        self.produced: dict[tuple[str, str], Vector] = {}
        self.nonempty: list[Vector] = []
        self.groups: tuple[Group, ...] = ()

    def count(self, vector: Vector, keep: np.ndarray) -> int:
        """Positions of ``vector`` that stay; ``keep`` [units] says which units do."""
        return int(np.count_nonzero(keep[vector]))

    def count_macs(self, keep: np.ndarray) -> float:
        """MACs for one sample if only the units in ``keep`` stay."""
        return self._total(self.macs, keep)

    def count_params(self, keep: np.ndarray) -> int:
        """Weights of the model if only the units in ``keep`` stay."""
        return round(self._total(self.params, keep))

    def kept_outputs(self, keep: np.ndarray) -> dict[str, Vector]:
        """Layer → int, the channels that stay of what it gives; layers that lose none are left out."""
        found: dict[str, Vector] = {}
        for node in self.view.nodes:
            axes = self.axes.get(id(node.outputs))
            if axes and axes[-1] is not None and not keep[axes[-1]].all():
                found[node.layer.name] = np.flatnonzero(keep[axes[-1]])
        return found

    @functools.cached_property
    def totals(self) -> dict[str, float]:
        """ "macs" and "params" of the whole model; to be asked for once the walk is over."""
        everything = np.ones(len(self.units), bool)
        return {"macs": self.count_macs(everything), "params": self.count_params(everything)}

    def _total(self, terms: Iterable[Term], keep: np.ndarray) -> float:
        return sum(t.coefficient * math.prod(self.count(v, keep) for v in t.vectors) for t in terms)


def _sharing(model: tf_keras.Model) -> dict[str, str]:
    """Layers that hold weights of another layer (a wrapper, and what it wraps), each with one such layer."""
    holders: dict[int, list[str]] = {}
    for layer in model.layers:
        for weight in layer.weights:
            holders.setdefault(id(weight), []).append(layer.name)
    pairs = [names for names in holders.values() if len(names) > 1]
    return {name: next(other for other in names if other != name) for names in pairs for name in names}
