"""How the sizes of a file's tensors follow the channels of the model that it is converted from.

The converter folds, fuses and renames, so that what became of a channel is not read off names. The model is converted
as it is and with channels missing, in numbers by which they can be told apart; every size that differs is a multiple of
the only count of channels that differs in the same way. Which operators a residual block becomes shows in the file of
the model without it.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.rebuild import copy_model
from edgeprune.prune.channels.block_units import without_blocks
from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.prune.channels.units import Vector
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.graph import Operator, Subgraph
from edgeprune.tflite.resize import resized

if TYPE_CHECKING:
    import tf_keras

# Conversions with channels missing, at most, and selections of which the best is taken for each.
_MARKS, _DRAWN = 4, 32
# From a model to the .tflite that it is converted to.
Convert = Callable[["tf_keras.Model"], bytes]


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
        content: the .tflite of the model as it is.
        base: its main subgraph.
        dimensions: by tensor.
        blocks: by operator, the unit of the block that it vanishes with, [1].
    """

    def __init__(self, graph: Graph, convert: Convert, content: bytes, dimensions: Sequence[Dimension]):
        self.graph, self.content, self._convert = graph, content, convert
        self.base = parse(content).subgraphs[0]
        self.blocks: dict[int, Vector] = {}
        self._shorter: dict[tuple[str, ...], FileShapes] = {}
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

        vectors = _vectors(graph)
        keeps = _marks(graph, vectors)
        models = [copy_model(graph.model), *(surgery.remove(graph, keep) for keep in keeps)]
        content, *changed = [convert(_with_constants_apart(model)) for model in models]
        base, *others = [parse(one).subgraphs[0] for one in (content, *changed)]
        for other in others:
            _require_alike(base, other)
        counts = [np.ones(len(graph.units), bool), *keeps]
        known = {tuple(len(vector[keep[vector]]) for keep in counts): vector for vector in reversed(vectors)}
        found = []
        for tensor in base.tensors:
            shapes = [tensor.shape, *(other.tensors[tensor.index].shape for other in others)]
            for axis, sizes in enumerate(zip(*shapes, strict=True)):
                if len(set(sizes)) > 1:
                    vector, times = _follows(sizes, known, tensor.name)
                    found.append(Dimension(tensor.index, axis, vector, times))
        file = cls(graph, convert, content, found)
        file.blocks = {
            operator.index: group.units
            for group in graph.groups
            if group.block
            for operator in _missing(base, file._without([group]).base)
        }
        return file

    def of_tensor(self, index: int) -> Vector | None:
        """The unit of the block that a tensor vanishes with, [1]; None: it stays."""
        nearby = [each for each in self.base.operators if index in (*each.inputs, *each.outputs)]
        units = [self.blocks.get(each.index) for each in nearby]
        return units[0] if units and all(unit is not None and unit is units[0] for unit in units) else None

    def _without(self, blocks: Sequence[Group]) -> FileShapes:
        """The file of the model without some blocks."""
        names = tuple(group.name for group in blocks)
        if names not in self._shorter:
            keep = np.ones(len(self.graph.units), bool)
            keep[[group.units[0] for group in blocks]] = False
            self._shorter[names] = FileShapes.of(without_blocks(self.graph, keep)[0], self._convert)
        return self._shorter[names]

    def at(self, keep: np.ndarray) -> Subgraph:
        """The file with the sizes that it has if only some units stay: bool [units]. Constants keep their bytes."""
        if gone := self._gone(keep):
            return self._without(gone).at(without_blocks(self.graph, keep)[1])
        tensors = list(self.base.tensors)
        for index, dimensions in self.dimensions.items():
            shape = list(tensors[index].shape)
            for one in dimensions:
                shape[one.axis] = one.times * self.graph.count(one.vector, keep)
            tensors[index] = dataclasses.replace(tensors[index], shape=tuple(shape))
        return dataclasses.replace(self.base, tensors=tuple(tensors))

    def file(self, keep: np.ndarray) -> bytes:
        """The .tflite of that graph, with weights that mean nothing, see :func:`edgeprune.tflite.resize.resized`."""
        if gone := self._gone(keep):
            return self._without(gone).file(without_blocks(self.graph, keep)[1])
        return resized(self.content, self.at(keep))

    def _gone(self, keep: np.ndarray) -> list[Group]:
        """The blocks that go."""
        return [group for group in self.graph.groups if group.block and not keep[group.units[0]]]


def _with_constants_apart(model: tf_keras.Model) -> tf_keras.Model:
    """The model, changed so that no two of its vectors of one length are equal.

    The converter keeps equal constants once, such as biases that are zero still; with channels missing, others are
    equal, and the files would differ in more than sizes.
    """
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1 and weight.dtype.is_floating:
            weight.assign_add(random.uniform(1e-3, 1e-2, weight.shape).astype(weight.dtype.as_numpy_dtype))
    return model


def _marks(graph: Graph, vectors: Sequence[Vector]) -> list[np.ndarray]:
    """Selections of units under which every two vectors of one length have different counts in at least one of them.

    Drawn at random, the best of several each time.
    """
    random = np.random.default_rng(0)
    keeps: list[np.ndarray] = []
    # What differs only in units that cannot go need not be told apart.
    free = np.zeros(len(graph.units), int)
    for group in graph.groups:
        free[group.units[group.free]] = random.integers(1, 1 << 40, len(group.free))
    apart, wanted = 0, _told_apart(vectors, [free])
    while apart < wanted and len(keeps) < _MARKS:
        drawn = [_drawn(graph, random) for _ in range(_DRAWN)]
        best = max(drawn, key=lambda keep: _told_apart(vectors, [*keeps, keep]))
        apart = _told_apart(vectors, [*keeps, best])
        keeps.append(best)
    return keeps


def _told_apart(vectors: Sequence[Vector], values: Sequence[np.ndarray]) -> int:
    """How many vectors differ in their length or in a sum of the values of their units."""
    return len({(len(vector), *(int(each[vector].sum()) for each in values)) for vector in vectors})


def _drawn(graph: Graph, random: np.random.Generator) -> np.ndarray:
    """A selection of units: of every group, some are missing, but of no layer all."""
    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        most = min(len(group.free), group.size // 2)
        if most:
            keep[group.units[random.permutation(group.free)[: random.integers(1, most + 1)]]] = False
    for vector in (*graph.nonempty, *(vector for _, _, vector in graph.producers)):
        if len(vector) and not keep[vector].any():
            keep[vector[0]] = True
    return keep


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


def _missing(base: Subgraph, shorter: Subgraph) -> list[Operator]:
    """The operators that a shorter file has not; what it has in their place is left to the count of a choice."""
    ours, theirs = ([_signature(graph, operator) for operator in graph.operators] for graph in (base, shorter))
    missing = set(range(len(ours)))
    for match in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        missing -= set(range(match.a, match.a + match.size))
    return [base.operators[number] for number in sorted(missing)]


def _signature(graph: Subgraph, operator: Operator) -> tuple[object, ...]:
    """By what an operator is known in another file: its name, what it makes, and its kernel."""
    inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
    kernels = [hashlib.sha256(each.stored).digest() for each in inputs if each.constant and len(each.shape) > 1]
    return operator.name, *(graph.tensors[index].shape for index in operator.outputs if index >= 0), *kernels


def _require_alike(base: Subgraph, other: Subgraph) -> None:
    ours, theirs = ([operator.name for operator in graph.operators] for graph in (base, other))
    ranks = [[len(tensor.shape) for tensor in graph.tensors] for graph in (base, other)]
    if ours != theirs or ranks[0] != ranks[1]:
        differs = next((f"{a} and {b}" for a, b in zip(ours, theirs, strict=False) if a != b), "their tensors")
        raise ModelError(
            f"The converter makes other operators of the model when channels are missing: {differs}.",
            fix="limit max_macs or max_params instead.",
        )
