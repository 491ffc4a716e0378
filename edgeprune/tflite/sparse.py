"""The sparse encoding of weights in .tflite files, decoded.

A tensor is stored as a tree of levels, one per dimension in traversal order, block dimensions included. A level is
dense (every index present) or compressed (segments and indices, as in CSR). Format: ``SparsityParameters`` in
TensorFlow Lite's ``schema.fbs``, after Kjolstad et al. 2017, "The Tensor Algebra Compiler", doi:10.1145/3133901.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Limits on the elements of the dense tensor, far above those of real ones, so that a small hostile file cannot ask for
# much memory: in all, per element that the file stores, and what is allowed however few are stored.
_MAX_ELEMENTS = 2**28
_MAX_PER_STORED = 2**10
_ALWAYS_ALLOWED = 2**20


@dataclass(frozen=True, eq=False)
class Dimension:
    """One level: ``dense_size`` indices when ``segments`` is None, else the children of parent i are
    ``indices[segments[i]:segments[i + 1]]`` (int64 arrays)."""

    dense_size: int
    segments: np.ndarray | None
    indices: np.ndarray | None
    nbytes: int = 0  # of segments and indices in the file


@dataclass(frozen=True, eq=False)
class Sparsity:
    """How a sparse tensor is stored. ``block_map[j]`` is the dimension that block dimension j subdivides."""

    traversal_order: tuple[int, ...]
    block_map: tuple[int, ...]
    dimensions: tuple[Dimension, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the segments and indices in the file."""
        return sum(dimension.nbytes for dimension in self.dimensions)

    def check(self, shape: tuple[int, ...], stored: int) -> None:
        """Verify that the encoding is consistent.

        Args:
            shape: of the dense tensor.
            stored: number of elements that are stored.

        Raises:
            ValueError, IndexError: the encoding contradicts itself, the number of stored elements or the shape.
        """
        positions, _ = self._walk(shape, stored)
        if any(((axis < 0) | (axis >= size)).any() for axis, size in zip(positions, shape, strict=True)):
            raise ValueError("a sparse tensor has an index beyond its shape")

    def densify(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The dense array of ``shape``, with zeros where nothing is stored. :meth:`check` must have passed.

        Args:
            values: the stored elements, flat.
            shape: of the dense tensor.
        """
        positions, nodes = self._walk(shape, len(values))
        dense = np.zeros(shape, values.dtype)
        dense[tuple(positions)] = values[nodes]
        return dense

    def channels(self, shape: tuple[int, ...], stored: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """For each stored element of the tensor: its index along ``axis``, and its position in the store.

        Returns:
            Two int64 arrays of equal length.
        """
        positions, nodes = self._walk(shape, stored)
        return positions[axis], nodes

    def _walk(self, shape: tuple[int, ...], stored: int) -> tuple[list[np.ndarray], np.ndarray]:
        """For each stored element of the tensor: its index along each dimension, and its position in the store."""
        rank = len(shape)
        if sorted(self.traversal_order) != list(range(rank + len(self.block_map))):
            raise ValueError("the levels of a sparse tensor do not match its shape")
        # The nodes of a level are distinct rows of the next level's segments, or of the store.
        limit = max([stored, *(len(level.segments) for level in self.dimensions if level.segments is not None)])
        if math.prod(shape) > min(_MAX_ELEMENTS, max(_ALWAYS_ALLOWED, _MAX_PER_STORED * limit)):
            raise ValueError(f"a sparse tensor has {math.prod(shape)} elements, and {stored} are stored")
        nodes = np.zeros(1, np.int64)
        coordinates: dict[int, np.ndarray] = {}
        for axis, level in zip(self.traversal_order, self.dimensions, strict=True):
            parents, index, nodes = _expand(level, nodes, limit)
            coordinates = {known: values[parents] for known, values in coordinates.items()}
            coordinates[axis] = index
        if len(nodes) and nodes.max() >= stored:
            raise ValueError("a sparse tensor points beyond what it stores")
        positions = [coordinates[axis] for axis in range(rank)]
        for block, axis in enumerate(self.block_map):
            size = self.dimensions[self.traversal_order.index(rank + block)].dense_size
            positions[axis] = positions[axis] * size + coordinates[rank + block]
        return positions, nodes


def _expand(level: Dimension, nodes: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One level of the tree: for each child its parent's row, its index along the dimension, and its node number."""
    if level.segments is None or level.indices is None:
        counts = np.full(len(nodes), level.dense_size, np.int64)
        starts = nodes * level.dense_size
    else:
        starts, counts = level.segments[nodes], level.segments[nodes + 1] - level.segments[nodes]
    if (counts < 0).any() or (starts < 0).any() or counts.sum() > limit:
        raise ValueError("a level of a sparse tensor has more entries than the file")
    parents = np.repeat(np.arange(len(nodes)), counts)
    within = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
    children = starts[parents] + within
    index = within if level.indices is None else level.indices[children]
    return parents, index, children
