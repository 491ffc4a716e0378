"""What is zeroed together: single weights, blocks, n of every m, or whole connections. Pure numpy.

Arrays here have the layout of TFLite, output channels first and input channels last: [out, in] for dense layers,
[out, height, width, in] for convolutions. That is how kernels read weights: blocks and n:m groups run along the input
channels of one output at one position, where they lie side by side in memory.

A *unit* is what is zeroed together; its score is the mean of the scores of its weights.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

Scope = Literal["layer", "global"]


@dataclasses.dataclass(frozen=True)
class Weight:
    """Every weight by itself."""

    def units(self, shape: Sequence[int]) -> np.ndarray:
        """The number of each weight's unit, int64 [shape], counted from 0."""
        return np.arange(np.prod(shape), dtype=np.int64).reshape(shape)


@dataclasses.dataclass(frozen=True)
class Block:
    """``rows`` neighbouring outputs × ``columns`` neighbouring inputs at one position; smaller at the edges."""

    rows: int
    columns: int

    def units(self, shape: Sequence[int]) -> np.ndarray:
        return _number(shape, rows=self.rows, columns=self.columns)


@dataclasses.dataclass(frozen=True)
class Connection:
    """All weights from one input channel to one output channel: a whole k×k slice of a convolution, one weight of a
    dense layer."""

    def units(self, shape: Sequence[int]) -> np.ndarray:
        slices = np.arange(shape[0] * shape[-1], dtype=np.int64)
        return np.broadcast_to(slices.reshape(shape[0], *[1] * (len(shape) - 2), shape[-1]), shape)


@dataclasses.dataclass(frozen=True)
class NofM:
    """At most ``n`` of every ``m`` neighbouring inputs stay (Zhou et al. 2021, arXiv:2102.04010). In the last,
    incomplete group at most ``n`` stay too."""

    n: int
    m: int

    def units(self, shape: Sequence[int]) -> np.ndarray:
        return Weight().units(shape)

    @property
    def sparsity(self) -> float:
        """Of complete groups."""
        return 1 - self.n / self.m

    def surplus(self, scores: np.ndarray) -> np.ndarray:
        """The weights that must go for the pattern to hold, bool [shape of scores]: of each group, all but the best."""
        groups = _number(scores.shape, rows=1, columns=self.m).ravel()
        order = np.lexsort((-scores.ravel(), groups))  # groups one after the other, the best of each first
        starts = np.searchsorted(groups[order], groups[order])
        surplus = np.zeros(scores.size, bool)
        surplus[order] = np.arange(scores.size) - starts >= self.n
        return surplus.reshape(scores.shape)


Granularity = Weight | Block | Connection | NofM


def parse(text: str) -> Granularity:
    """``"weight"``, ``"block:RxC"``, ``"n:m"`` such as ``"2:4"``, or ``"connection"``.

    Raises:
        ValueError: anything else.
    """
    if size := re.fullmatch(r"block:([1-9]\d*)x([1-9]\d*)", text):
        return Block(int(size[1]), int(size[2]))
    if (ratio := re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)) and int(ratio[1]) < int(ratio[2]):
        return NofM(int(ratio[1]), int(ratio[2]))
    simple: dict[str, Granularity] = {"weight": Weight(), "connection": Connection()}
    if text not in simple:
        raise ValueError(f"granularity {text!r} is not one of weight, block:RxC (block:1x4), n:m (2:4), connection")
    return simple[text]


def choose(
    scores: Sequence[np.ndarray], granularity: Granularity, sparsity: float, scope: Scope = "layer"
) -> list[np.ndarray]:
    """The weights that stay.

    From the lowest score up, whole units are removed as long as no more than ``round(sparsity × weights)`` weights are
    gone; so single weights meet the number exactly, larger units miss it by less than one unit. For n:m the pattern
    decides where weights may go, and ``sparsity`` below that of the pattern removes that share of them.
    One unit of every layer stays always, so that no layer is cut through.

    Args:
        scores: one array per kernel; -inf for what is to go first.
        sparsity: fraction of the weights, in [0, 1).
        scope: each kernel by itself, or one ranking over all of them.

    Returns:
        One bool array per kernel, True where a weight stays.
    """
    if scope == "layer":
        return [_choose([array], granularity, sparsity)[0] for array in scores]
    return _choose(scores, granularity, sparsity)


def regrow(
    kept: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    growth: Sequence[np.ndarray],
    granularity: Granularity,
    fraction: float,
    scope: Scope = "layer",
) -> list[np.ndarray]:
    """Exchange a fraction of what is kept: the lowest scores go, the highest growth comes (Evci et al. 2020,
    arXiv:1911.11134, RigL). What was just dropped may come back. As many weights come as go.

    Args:
        kept: as :func:`choose` gives it.
        growth: one array per kernel: how much each weight is wanted.
        fraction: of the kept weights, in [0, 1].
    """
    if scope == "layer":
        return [_regrow([k], [s], [g], granularity, fraction)[0] for k, s, g in zip(kept, scores, growth, strict=True)]
    return _regrow(kept, scores, growth, granularity, fraction)


@dataclasses.dataclass(frozen=True)
class _Partition:
    """All units of several kernels under one numbering; ``sizes`` in weights, ``kernel`` the kernel of each unit."""

    ids: list[np.ndarray]
    sizes: np.ndarray
    kernel: np.ndarray

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray], granularity: Granularity) -> _Partition:
        ids, kernel, total = [], [], 0
        for number, array in enumerate(arrays):
            units = granularity.units(array.shape) + total
            ids.append(units)
            count = int(units.max()) + 1 - total
            kernel.append(np.full(count, number))
            total += count
        return cls(ids, np.bincount(np.concatenate([i.ravel() for i in ids])), np.concatenate(kernel))

    def mean(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        flat = np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])
        return np.bincount(np.concatenate([i.ravel() for i in self.ids]), flat) / self.sizes

    def spread(self, units: np.ndarray) -> list[np.ndarray]:
        return [units[i] for i in self.ids]

    def best(self, pooled: np.ndarray) -> np.ndarray:
        """The unit of the highest score of each kernel, as a bool array over units."""
        order = np.lexsort((pooled, self.kernel))
        last = np.append(np.flatnonzero(np.diff(self.kernel[order])), len(order) - 1)
        best = np.zeros(len(pooled), bool)
        best[order[last]] = True
        return best

    def take(self, order: np.ndarray, weights: int) -> np.ndarray:
        """The longest beginning of ``order`` that has no more than ``weights`` weights."""
        return order[: np.searchsorted(np.cumsum(self.sizes[order]), weights, side="right")]


def _choose(scores: Sequence[np.ndarray], granularity: Granularity, sparsity: float) -> list[np.ndarray]:
    if isinstance(granularity, NofM):
        return _choose_n_of_m(scores, granularity, sparsity)
    units = _Partition.of(scores, granularity)
    pooled = units.mean(scores)
    order = np.argsort(pooled, kind="stable")
    order = order[~units.best(pooled)[order]]
    kept = np.ones(len(pooled), bool)
    kept[units.take(order, round(sparsity * int(units.sizes.sum())))] = False
    return units.spread(kept)


def _choose_n_of_m(scores: Sequence[np.ndarray], granularity: NofM, sparsity: float) -> list[np.ndarray]:
    """Of the weights that the pattern has no place for, the lowest first."""
    masks = []
    for array in scores:
        surplus = np.flatnonzero(granularity.surplus(array))
        order = surplus[np.argsort(array.ravel()[surplus], kind="stable")]
        kept = np.ones(array.size, bool)
        kept[order[: round(min(sparsity / granularity.sparsity, 1.0) * len(order))]] = False
        masks.append(kept.reshape(array.shape))
    return masks


def _regrow(
    kept: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    growth: Sequence[np.ndarray],
    granularity: Granularity,
    fraction: float,
) -> list[np.ndarray]:
    units = _Partition.of(scores, granularity)
    active, pooled, wanted = units.mean(kept) > 0.5, units.mean(scores), units.mean(growth)
    pooled[~active] = -np.inf
    order = np.argsort(pooled, kind="stable")
    order = order[(active & ~units.best(pooled))[order]]
    dropped = units.take(order, round(fraction * int(units.sizes[active].sum())))
    active[dropped] = False
    candidates = np.argsort(-wanted, kind="stable")
    candidates = candidates[~active[candidates]]
    active[units.take(candidates, int(units.sizes[dropped].sum()))] = True
    return units.spread(active)


def _number(shape: Sequence[int], rows: int, columns: int) -> np.ndarray:
    """Blocks of ``rows`` × ``columns`` over the first and the last axis, counted from 0 at every position."""
    grid = np.indices(shape, dtype=np.int64, sparse=True)
    blocks = [grid[0] // rows, *grid[1:-1], grid[-1] // columns]
    counts = [-(-shape[0] // rows), *shape[1:-1], -(-shape[-1] // columns)]
    number = np.zeros(shape, np.int64)
    for block, count in zip(blocks, counts, strict=True):
        number = number * count + block
    return number
