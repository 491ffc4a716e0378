"""Which channels of a model hang together.

The walk goes through the layer calls of a functional model once, in order. For every tensor it knows, per axis, the
unit of each position (:mod:`edgeprune.prune.channels.units`), or None for an axis that nothing removes anything from.
A rule per layer class (:mod:`edgeprune.prune.channels.rules`) says how units pass through a call and along which axes
its weights follow them. What has no rule freezes the units that reach it, with a reason.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.graph import call_of, flat, numbered_nodes, with_shapes
from edgeprune.models.macs import UnknownShape, layer_macs
from edgeprune.prune.channels.units import FIXED, Units, Vector

if TYPE_CHECKING:
    import tf_keras

Axes = tuple[Vector | None, ...]  # one entry per axis but the batch
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

    path: tuple[Any, ...]
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
    sizes: dict[tuple[Any, ...], Vector] = dataclasses.field(default_factory=dict)
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
    index: np.ndarray


@dataclasses.dataclass(frozen=True)
class Group:
    """Channels that one or several layers make together.

    Attributes:
        name: the first layer that makes them.
        units: representatives of its units, in the order of that layer's channels.
        members: every weight axis that shrinks when units are removed.
        reasons: why a unit is frozen, by its number; units that are not in it can be removed.
    """

    name: str
    units: np.ndarray
    members: tuple[Member, ...]
    reasons: dict[int, str]

    @property
    def size(self) -> int:
        return len(self.units)

    @property
    def free(self) -> np.ndarray:
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
        model: flat functional tf_keras model.
        units: everything that can be removed; a *vector* is an int array of their numbers, one per channel.
        sharing: layer → another layer that holds the same weights.
        layers: layer → how its weights and config follow the units.
        edits: (layer, number of its call) → arguments of the call that shrink with the units.
        macs, params: terms whose sums are the model's multiply-accumulates and weights.
        masks: (layer, number of its call) → (input tensor, its axis, vector): where the oracle zeroes.
        axes: id of a tensor between layers → a vector, or None, for each axis but the batch.
        producers: (name of the group to be, layer, vector) of all weights that make channels.
        produced: (layer, key in its config) → the vector it makes; the same at every call of a shared layer.
        nonempty: vectors of which something must stay.
        groups: the channels that can only be removed together.
    """

    def __init__(self, model: tf_keras.Model):
        self.model = model
        self.units = Units()
        self.sharing = _sharing(model)
        self.layers: dict[str, LayerPlan] = {layer.name: LayerPlan() for layer in model.layers}
        self.edits: dict[tuple[str, int], list[Edit]] = {}
        self.macs: list[Term] = []
        self.params: list[Term] = []
        self.masks: dict[tuple[str, int], list[tuple[int, int, Vector]]] = {}
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


@dataclasses.dataclass
class Call:
    """One call of one layer, as a rule sees it.

    Attributes:
        layer: the layer whose rule runs; inside a wrapper, the wrapped layer.
        owner: the layer of the model, which holds the weights and the config.
        inputs: axes of each tensor that goes in; ``input_shapes`` and ``output_shapes`` are without the batch.
        path: where the rule's layer stands in the owner's config.
    """

    graph: Graph
    layer: Any
    owner: Any
    node: Any
    node_index: int
    inputs: list[Axes]
    input_shapes: list[tuple[int | None, ...]]
    output_shapes: list[tuple[int | None, ...]]
    path: tuple[Any, ...] = ()
    repeat: float = 1.0  # a TimeDistributed wrapper calls its layer this many times

    @property
    def name(self) -> str:
        return self.owner.name

    @property
    def plan(self) -> LayerPlan:
        return self.graph.layers[self.name]

    def produce(self, size: int, key: str = "filters") -> Vector:
        """The units that the layer makes; the same ones at every call of a shared layer."""
        known = (self.name, ".".join(map(str, (*self.path, key))))
        if known not in self.graph.produced:
            self.graph.produced[known] = vector = self.graph.units.new(size)
            label = self.name if key == "filters" else f"{self.name}/{key}"
            self.graph.producers.append((label, self.name, vector))
        return self.graph.produced[known]

    def bind(self, variable: Any, role_by_axis: dict[int, tuple[Vector | None, Role]]) -> None:
        """Let axes of a weight follow vectors. A shared layer's later calls are tied to the first one."""
        if variable is None:
            return
        weight = next(i for i, w in enumerate(self.owner.weights) if w is variable)
        rank = len(variable.shape)
        for axis, (vector, role) in role_by_axis.items():
            positive = axis % rank
            if vector is None:
                vector = np.full(variable.shape[positive], FIXED)
            before = [b for b in self.plan.bindings if b.weight == weight and b.axis == positive]
            if before:
                self.unite(before[0].vector, vector, f"shared layer {self.name!r} is also called on channels that stay")
            else:
                self.plan.bindings.append(Binding(weight, positive, vector, role))

    def size(self, key: str | tuple[Any, ...], vector: Vector | None) -> None:
        """A config key holds the number of positions in ``vector``; the same number at every call of a shared layer."""
        if vector is None:
            return
        path = (*self.path, *(key if isinstance(key, tuple) else (key,)))
        known = self.plan.sizes.setdefault(path, vector)
        if known is not vector:
            self.unite(known, vector, f"shared layer {self.name!r} is also called on channels that stay")

    def unite(self, a: Vector, b: Vector, reason: str) -> None:
        self.graph.units.unite(a, b, reason)

    def freeze(self, vectors: Iterable[Vector | None], reason: str) -> None:
        for vector in vectors:
            if vector is not None:
                self.graph.units.freeze(vector, reason)

    def mask(self, tensor: int, axis: int, vector: Vector | None) -> None:
        """The call sums over ``axis`` of input number ``tensor`` without weights: the oracle zeroes it there."""
        if vector is not None:
            self.graph.masks.setdefault((self.name, self.node_index), []).append((tensor, axis, vector))

    def edit(self, *edits: Edit) -> None:
        """Constants among the call's arguments change with the units."""
        self.graph.edits.setdefault((self.name, self.node_index), []).extend(edits)

    def count_macs(self, coefficient: float, *vectors: Vector | int | None) -> None:
        """Count ``coefficient`` × (positions of each vector) multiply-accumulates; an int stands for a fixed length."""
        fixed = [v for v in vectors if isinstance(v, int)]
        moving = tuple(v for v in vectors if isinstance(v, np.ndarray))
        self.graph.macs.append(Term(self.name, self.repeat * coefficient * float(np.prod(fixed or [1])), moving))


def analyse(model: tf_keras.Model) -> Graph:
    """Find out which channels of ``model`` hang together.

    Args:
        model: flat functional tf_keras model (nested models have no rule, and freeze what reaches them).
    """
    from edgeprune.prune.channels.rules.basic import apply_rule

    graph = Graph(model)
    axes, shapes = graph.axes, dict[int, tuple[int | None, ...]]()
    twins = dict(numbered_nodes(with_shapes(model)))  # the same calls, whose shapes may be better known
    for key, node in numbered_nodes(model):
        outputs = flat(node.outputs)
        shapes.update(zip(map(id, outputs), map(_shape, flat(twins[key].outputs)), strict=True))
        if node.is_input:
            axes.update({id(tensor): (None,) * (len(tensor.shape) - 1) for tensor in outputs})
            continue
        inputs = list(node.keras_inputs)
        call = Call(
            graph,
            node.layer,
            node.layer,
            node,
            key[1],
            [axes[id(tensor)] for tensor in inputs],
            [shapes[id(tensor)] for tensor in inputs],
            [shapes[id(tensor)] for tensor in outputs],
        )
        counted = len(graph.macs)
        found = apply_rule(call)
        if len(graph.macs) == counted:
            call.count_macs(fixed_macs(twins[key]))
        for tensor, tensor_axes in zip(outputs, found, strict=True):
            _check(call, shapes[id(tensor)], tensor_axes)
            axes[id(tensor)] = tensor_axes
    for tensor in model.outputs:
        for vector in axes[id(tensor)]:
            if vector is not None:
                graph.units.freeze(vector, "output of the model")
    _finish(graph)
    return graph


def fixed_macs(node: Any) -> float:
    """MACs of a call whose rule counts none: they stay, whatever is removed."""
    try:
        return float(layer_macs(node.layer, call_of(node)) or 0)
    except UnknownShape:
        return 0.0


def _shape(tensor: Any) -> tuple[int | None, ...]:
    if tensor.shape.rank is None:
        raise ModelError(
            f"The layer {tensor.node.layer.name!r} makes a tensor whose number of axes is not known before it runs.",
            expected="a model whose tensors all have a known number of axes",
            fix="name the axes that it drops or makes, as in tf.squeeze(x, axis=1).",
        )
    return tuple(tensor.shape[1:])


def _check(call: Call, shape: tuple[int | None, ...], axes: Axes) -> None:
    lengths = tuple(size if vector is None else len(vector) for vector, size in zip(axes, shape, strict=True))
    assert lengths == shape, f"rule for {type(call.layer).__name__}: {lengths} != {shape}"


def _finish(graph: Graph) -> None:
    """Resolve every vector to representatives, and collect the groups."""
    find = graph.units.find
    for plan in graph.layers.values():
        plan.bindings = [dataclasses.replace(b, vector=find(b.vector)) for b in plan.bindings]
        plan.sizes = {key: find(vector) for key, vector in plan.sizes.items()}
        plan.scale_queries = None if plan.scale_queries is None else find(plan.scale_queries)
    graph.edits = {
        key: [dataclasses.replace(e, vector=find(e.vector)) for e in edits] for key, edits in graph.edits.items()
    }
    graph.macs = [dataclasses.replace(t, vectors=tuple(find(v) for v in t.vectors)) for t in graph.macs]
    graph.masks = {key: [(t, axis, find(v)) for t, axis, v in rows] for key, rows in graph.masks.items()}
    graph.params = [term for layer in graph.model.layers for term in _weight_terms(layer, graph.layers[layer.name])]
    graph.axes = {key: tuple(None if v is None else find(v) for v in axes) for key, axes in graph.axes.items()}
    graph.producers = [(label, layer, find(vector)) for label, layer, vector in graph.producers]
    graph.nonempty = [find(v) for v in graph.nonempty] + [vector for _, _, vector in graph.producers]
    graph.groups = tuple(_groups(graph))


def _weight_terms(layer: Any, plan: LayerPlan) -> Iterator[Term]:
    """One term per weight: the axes that follow units move, the others are fixed."""
    for number, weight in enumerate(layer.weights):
        moving = {binding.axis: binding.vector for binding in plan.bindings if binding.weight == number}
        fixed = math.prod(size for axis, size in enumerate(weight.shape) if axis not in moving)
        yield Term(layer.name, float(fixed), tuple(moving.values()))


def _groups(graph: Graph) -> list[Group]:
    """Producers that share a unit make one group, named after the first of them."""
    home = np.full(len(graph.units), -1)  # unit → number of its set of producers
    merged: list[list[int]] = []
    for number, (_, _, vector) in enumerate(graph.producers):
        touched = [int(n) for n in np.unique(home[vector]) if n >= 0]
        if not touched:
            touched = [len(merged)]
            merged.append([])
        for other in touched[1:]:
            merged[touched[0]] += merged[other]
            merged[other] = []
            home[home == other] = touched[0]
        merged[touched[0]].append(number)
        home[vector] = touched[0]
    bindings: list[list[tuple[str, Any, Binding]]] = [[] for _ in merged]
    for layer in graph.model.layers:
        weights = layer.weights
        for binding in graph.layers[layer.name].bindings:
            for target in np.unique(home[binding.vector]).tolist():
                if target >= 0:
                    bindings[target].append((layer.name, weights[binding.weight], binding))
    number_of = np.full(len(graph.units), -1)
    return [
        _group(graph, [graph.producers[n] for n in sorted(numbers)], found, number_of)
        for numbers, found in zip(merged, bindings, strict=True)
        if numbers
    ]


def _group(
    graph: Graph,
    producers: Sequence[tuple[str, str, Vector]],
    bindings: Sequence[tuple[str, Any, Binding]],
    number_of: np.ndarray,
) -> Group:
    """``number_of`` [units] is scratch space, -1 everywhere before and after."""
    everything = np.concatenate([vector for _, _, vector in producers])
    units = everything[np.sort(np.unique(everything, return_index=True)[1])]
    number_of[units] = np.arange(len(units))
    members = tuple(Member(layer, weight.name, b.axis, b.role, number_of[b.vector]) for layer, weight, b in bindings)
    number_of[units] = -1
    found = {i: graph.units.reason(unit) for i, unit in enumerate(units.tolist())}
    return Group(producers[0][0], units, members, {i: reason for i, reason in found.items() if reason})
