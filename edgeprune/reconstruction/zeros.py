"""Which weights a model can do without, if those that are left are refitted: all layers as one problem.

The error that zeros make in a layer's output is a quadratic form of the weights, (W - W0)' S (W - W0), with the second
moments S of what it reads. Its minimum under a number of zeros is looked for by the alternating directions method of
multipliers, as ALPS does for one layer (Meng et al. 2024, arXiv:2406.07831): a copy D of the weights holds the zeros,
and W follows it by a penalty that grows until the places of the zeros stay. Here every layer is scaled so that a weight
of size one costs an error of one where it goes alone, weighted by what the model's answers feel of it; so weights of
all layers can be ranked together. What may be zero is up to a projection, which any pattern of zeros has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import scipy.linalg

from edgeprune.progress import Progress
from edgeprune.reconstruction.moments import with_ridge
from edgeprune.reconstruction.threads import one_thread

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
# From how much each weight counts (one array per layer, in its own layout) to which weights stay.
Projection: TypeAlias = Callable[[list[Array]], list[np.ndarray]]

# The penalty at the start, in units of the error of a weight of size one; what it is multiplied by, by the share of
# places that still change (ibid., appendix B.1); and the most steps.
_PENALTY = 0.1
_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
_EVERY, _STEPS = 3, 300


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of the problem.

    Attributes:
        squares: mean of x x' over the rows that it reads, centered where a constant follows; [parts, terms, terms].
        matrix: its weights [parts, terms, columns].
        importance: of an error in each column, [parts, columns].
        to_weight, to_matrix: between [parts, terms, columns] and the layout that the projection takes.
    """

    squares: Array
    matrix: Array
    importance: Array
    to_weight: Callable[[np.ndarray], np.ndarray]
    to_matrix: Callable[[np.ndarray], np.ndarray]


def choose_zeros(
    layers: Sequence[Layer], project: Projection, ridge: float, progress: Progress | None = None
) -> list[np.ndarray]:
    """The weights that stay, bool in the layout of each layer.

    Args:
        layers: whose weights the projection ranks together.
        project: which weights stay, by how much each counts.
        ridge: added to the diagonal of the moments, in units of their mean.
        progress: is told of each layer.
    """
    progress = progress or Progress()
    progress.begin("choosing zeros", len(layers))
    problems = []
    for layer in layers:
        problems.append(_Problem(layer, ridge))
        progress.advance(1)
    kept = project([problem.scores(problem.start) for problem in problems])
    penalty = _PENALTY
    for step in range(_STEPS):
        for problem, mask in zip(problems, kept, strict=True):
            problem.step(mask, penalty)
        before, kept = kept, project([problem.scores(problem.wanted(penalty)) for problem in problems])
        if (step + 1) % _EVERY == 0:
            changed = sum(int((a & ~b).sum()) for a, b in zip(kept, before, strict=True))
            share = changed / max(sum(int(mask.sum()) for mask in kept), 1)
            if not changed and step > 10 * _EVERY:
                break
            penalty *= next(factor for limit, factor in _GROWTH if share >= limit)
    progress.end()
    return kept


class _Problem:
    """A layer with its terms and columns scaled, its moments as eigenvectors, and the state of the iteration."""

    def __init__(self, layer: Layer, ridge: float):
        self.layer = layer
        squares = with_ridge(layer.squares, ridge)
        unit = np.sqrt(np.diagonal(squares, axis1=1, axis2=2))
        self.scale = unit[:, :, None] * np.sqrt(layer.importance)[:, None]
        scaled = squares / (unit[:, :, None] * unit[:, None])
        with one_thread():
            pairs = [scipy.linalg.eigh(part, check_finite=False, driver="evd") for part in scaled]
        self.values = np.stack([pair[0] for pair in pairs])[:, :, None]
        self.vectors = np.stack([pair[1] for pair in pairs])
        self.start = layer.matrix * self.scale
        self.pull = self.vectors @ (self.values * self._turned(self.start))
        self.weights, self.dual = self.start, np.zeros_like(self.start)

    def _turned(self, value: Array) -> Array:
        return self.vectors.transpose(0, 2, 1) @ value

    def scores(self, value: Array) -> Array:
        return self.layer.to_weight(np.square(value))

    def wanted(self, penalty: float) -> Array:
        """What the copy with zeros is the projection of."""
        return self.weights + self.dual / penalty

    def step(self, kept: np.ndarray, penalty: float) -> None:
        zeroed = self.wanted(penalty) * self.layer.to_matrix(kept)
        right = self.pull + penalty * zeroed - self.dual
        self.weights = self.vectors @ (self._turned(right) / (self.values + penalty))
        self.dual = self.dual + penalty * (self.weights - zeroed)
