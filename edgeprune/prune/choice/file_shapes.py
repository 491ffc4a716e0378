"""How the sizes of a file's tensors follow the channels of the model that it is converted from.

The converter folds, fuses and renames, so that what became of a channel is not read off names: the model is converted
as it is and with channels missing, in numbers by which groups can be told apart, and every size that differs is a
multiple of the only count of channels that differs in the same way.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.prune.channels.units import Vector
from edgeprune.tflite.graph import Subgraph

if TYPE_CHECKING:
    import tf_keras

# From a model to the main subgraph of the file that it is converted to.
Convert = Callable[["tf_keras.Model"], Subgraph]


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One size of a tensor: ``times`` the positions of ``vector`` that stay."""

    tensor: int
    axis: int
    vector: Vector
    times: int


class FileShapes:
    """A file, and the sizes in it that follow channels.

    Attributes:
        base: of the model as it is.
        dimensions: by tensor.
    """

    def __init__(self, graph: Graph, base: Subgraph, dimensions: Sequence[Dimension]):
        self.graph, self.base = graph, base
        self.dimensions: dict[int, list[Dimension]] = {}
        for one in dimensions:
            self.dimensions.setdefault(one.tensor, []).append(one)

    @classmethod
    def of(cls, graph: Graph, convert: Convert) -> FileShapes:
        """Convert the model several times, and compare.

        Raises:
            ModelError: the files differ in more than sizes, or a size follows no count of channels.
        """
        from edgeprune.prune.channels import surgery

        keeps = _marks(graph)
        base, *others = [convert(graph.model), *(convert(surgery.remove(graph, keep)) for keep in keeps)]
        for other in others:
            _require_alike(base, other)
        counts = [np.ones(len(graph.units), bool), *keeps]
        known = {tuple(len(vector[keep[vector]]) for keep in counts): vector for vector in reversed(_vectors(graph))}
        found = []
        for tensor in base.tensors:
            shapes = [tensor.shape, *(other.tensors[tensor.index].shape for other in others)]
            for axis, sizes in enumerate(zip(*shapes, strict=True)):
                if len(set(sizes)) > 1:
                    vector, times = _follows(sizes, known, tensor.name)
                    found.append(Dimension(tensor.index, axis, vector, times))
        return cls(graph, base, found)

    def at(self, keep: np.ndarray) -> Subgraph:
        """The file with the sizes that it has if only some units stay: bool [units]. Constants keep their bytes."""
        tensors = list(self.base.tensors)
        for index, dimensions in self.dimensions.items():
            shape = list(tensors[index].shape)
            for one in dimensions:
                shape[one.axis] = one.times * self.graph.count(one.vector, keep)
            tensors[index] = dataclasses.replace(tensors[index], shape=tuple(shape))
        return dataclasses.replace(self.base, tensors=tuple(tensors))


def _marks(graph: Graph) -> list[np.ndarray]:
    """Selections of units: groups of the same size lose different numbers of channels in at least one of them."""
    alike: dict[tuple[int, int], list[Group]] = {}
    for group in graph.groups:
        most = min(len(group.free), group.size // 2)
        if most:
            alike.setdefault((group.size, most), []).append(group)
    digits = max((_digits(len(groups), most) for (_, most), groups in alike.items()), default=1)
    keeps = [np.ones(len(graph.units), bool) for _ in range(digits)]
    for (_, most), groups in alike.items():
        for number, group in enumerate(groups):
            rest = number
            for keep in keeps:
                rest, digit = divmod(rest, most)
                keep[group.units[group.free[: digit + 1]]] = False
    for keep, (vector, least) in itertools.product(keeps, _least(graph)):
        missing = min(least, len(vector)) - int(keep[vector].sum())
        if missing > 0:
            keep[vector[~keep[vector]][:missing]] = True
    return keeps


def _least(graph: Graph) -> list[tuple[Vector, int]]:
    return [(vector, 1) for vector in (*graph.nonempty, *(vector for _, _, vector in graph.producers))]


def _digits(count: int, base: int) -> int:
    """How many digits of a base number ``count`` things apart."""
    return 1 if count <= 1 else count if base == 1 else math.ceil(math.log(count, base) - 1e-9)


def _vectors(graph: Graph) -> list[Vector]:
    """Every vector of channels along an axis of a weight or a tensor, each once, those of single groups first."""
    found: dict[bytes, Vector] = {}
    for vector in (
        *(vector for _, _, vector in graph.producers),
        *(binding.vector for plan in graph.layers.values() for binding in plan.bindings),
        *(vector for axes in graph.axes.values() if axes for vector in axes if vector is not None),
    ):
        found.setdefault(vector.tobytes(), vector)
    return list(found.values())


def _follows(sizes: tuple[int, ...], known: dict[tuple[int, ...], Vector], name: str) -> tuple[Vector, int]:
    for times in sorted(_divisors(math.gcd(*sizes))):
        vector = known.get(tuple(size // times for size in sizes))
        if vector is not None:
            return vector, times
    raise ModelError(
        f"What the size {sizes[0]} of the tensor {name!r} in the converted file has to do with the channels of the "
        "model is not known, so that its costs cannot be limited.",
        fix="limit max_macs or max_params instead.",
    )


def _divisors(number: int) -> set[int]:
    small = [part for part in range(1, math.isqrt(number) + 1) if number % part == 0]
    return {*small, *(number // part for part in small)}


def _require_alike(base: Subgraph, other: Subgraph) -> None:
    ours, theirs = ([operator.name for operator in graph.operators] for graph in (base, other))
    ranks = [[len(tensor.shape) for tensor in graph.tensors] for graph in (base, other)]
    if ours != theirs or ranks[0] != ranks[1]:
        differs = next((f"{a} and {b}" for a, b in zip(ours, theirs, strict=False) if a != b), "their tensors")
        raise ModelError(
            f"The converter makes other operators of the model when channels are missing: {differs}.",
            fix="limit max_macs or max_params instead.",
        )
