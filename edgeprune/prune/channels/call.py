"""One call of one layer, as a channel rule sees it: the units that come in, and what the rule may say about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from edgeprune.models.types import Layer, Node, Variable
from edgeprune.prune.channels.graph import Axes, Binding, Edit, Graph, LayerPlan, Path, Role, Term
from edgeprune.prune.channels.units import FIXED, Vector


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
    layer: Layer
    owner: Layer
    node: Node
    call_index: int
    inputs: list[Axes]
    input_shapes: list[tuple[int | None, ...]]
    output_shapes: list[tuple[int | None, ...]]
    path: Path = ()
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

    def bind(self, variable: Variable | None, role_by_axis: dict[int, tuple[Vector | None, Role]]) -> None:
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

    def size(self, key: str | Path, vector: Vector | None) -> None:
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
            self.graph.masks.setdefault((self.name, self.call_index), []).append((tensor, axis, vector))

    def edit(self, *edits: Edit) -> None:
        """Constants among the call's arguments change with the units."""
        self.graph.edits.setdefault((self.name, self.call_index), []).extend(edits)

    def count_macs(self, coefficient: float, *vectors: Vector | int | None) -> None:
        """Count ``coefficient`` × (positions of each vector) multiply-accumulates; an int stands for a fixed length."""
        fixed = [v for v in vectors if isinstance(v, int)]
        moving = tuple(v for v in vectors if isinstance(v, np.ndarray))
        self.graph.macs.append(Term(self.name, self.repeat * coefficient * float(np.prod(fixed or [1])), moving))
