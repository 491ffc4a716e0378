"""Units: the smallest sets of channels that can only be removed together.

Every channel that a layer makes starts as a unit of its own. Where the graph ties channels together (the two sides of
an addition, say) their units are united. A unit may be frozen, with the reason why it has to stay.
"""

from __future__ import annotations

import numpy as np

Vector = np.ndarray[tuple[int, ...], np.dtype[np.int64]]  # [size]: the unit of each position along one axis of a tensor

# The unit of positions that nothing can remove, such as the channels of the model's input.
FIXED = 0


class Units:
    """Union-find over units, with reasons for those that are frozen."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.int64)
        self._size = 1
        self._reasons: dict[int, str] = {}

    def new(self, count: int) -> Vector:
        """``count`` fresh units."""
        if self._size + count > len(self._parent):
            self._parent = np.resize(self._parent, 2 * (self._size + count))
        fresh = np.arange(self._size, self._size + count)
        self._parent[fresh] = fresh
        self._size += count
        return fresh

    def find(self, vector: Vector) -> Vector:
        """The representative of each unit; equal where units were united. Representatives are the smallest members."""
        roots = self._parent[vector]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = self._parent[above]
        self._parent[vector] = roots
        return roots

    def unite(self, a: Vector, b: Vector, reason: str) -> None:
        """Tie ``a[i]`` to ``b[i]`` for every i; a unit tied to a fixed position is frozen for ``reason``."""
        for left, right in zip(self.find(a).tolist(), self.find(b).tolist(), strict=True):
            low, high = sorted((self._root(left), self._root(right)))
            if low == high:
                continue
            if low == FIXED:
                self._reasons.setdefault(high, reason)
                continue
            self._parent[high] = low
            if high in self._reasons:
                self._reasons.setdefault(low, self._reasons.pop(high))

    def freeze(self, vector: Vector, reason: str) -> None:
        """Mark these units as not removable; the first reason given stays."""
        for root in np.unique(self.find(vector)).tolist():
            if root != FIXED:
                self._reasons.setdefault(root, reason)

    def reason(self, unit: int) -> str | None:
        """Why a unit is frozen, or None."""
        root = self._root(unit)
        return "not prunable" if root == FIXED else self._reasons.get(root)

    def __len__(self) -> int:
        return self._size

    def _root(self, unit: int) -> int:
        while self._parent[unit] != unit:
            unit = int(self._parent[unit])
        return unit
