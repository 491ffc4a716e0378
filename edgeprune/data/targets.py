"""Facts about targets: what the labels of a whole source are, from which the task is told."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

import numpy as np

from edgeprune.models.types import Structure

MOST_VALUES = 4096  # distinct integers that are kept
CHUNK_BYTES = 16 * 2**20  # looked at at a time
ROW_SUM_TOLERANCE = 1e-3

Rows = Literal["one_hot", "multi_hot", "distribution"]


@dataclasses.dataclass(frozen=True)
class TargetFacts:
    """What is known of one array of targets, over all samples of a store.

    Attributes:
        shape: without the axis of the samples; None where samples differ.
        dtype: NumPy's name.
        low, high: smallest and largest value.
        whole: whether every value is an integer; floats such as 3.0 count.
        values: the distinct integers; None if not ``whole``, or if there are more than 4,096.
        rows: what the last axis of a sample holds, if it is longer than 1. ``one_hot``: exactly one 1 among zeros in
            every row; else ``multi_hot``: zeros and ones; else ``distribution``: non-negative rows that sum to 1
            (within 1e-3); else None.
    """

    shape: tuple[int | None, ...]
    dtype: str
    low: float
    high: float
    whole: bool
    values: frozenset[int] | None
    rows: Rows | None

    def merged(self, other: TargetFacts) -> TargetFacts:
        """The facts of the samples of both.

        Raises:
            ValueError: targets with different numbers of axes.
        """
        values = None if self.values is None or other.values is None else self.values | other.values
        return TargetFacts(
            shape=tuple(a if a == b else None for a, b in zip(self.shape, other.shape, strict=True)),
            dtype=np.promote_types(self.dtype, other.dtype).name,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            whole=self.whole and other.whole,
            values=values if values is not None and len(values) <= MOST_VALUES else None,
            rows=_merged_rows(self.rows, other.rows),
        )


def target_facts(array: np.ndarray) -> TargetFacts:
    """The facts of targets [samples, ...], finite numbers of at least one sample, in bounded memory."""
    return functools.reduce(TargetFacts.merged, (_facts(chunk) for (chunk,) in chunks(array)))


def chunks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Consecutive samples of arrays [samples, ...], as views of 16 MiB or one sample."""
    samples = len(arrays[0])
    rows = max(CHUNK_BYTES * samples // max(sum(array.nbytes for array in arrays), 1), 1)
    for start in range(0, samples, rows):
        yield tuple(array[start : start + rows] for array in arrays)


def _facts(array: np.ndarray) -> TargetFacts:
    whole = array.dtype.kind in "biu" or bool((np.floor(array) == array).all())
    distinct = np.unique(array) if whole else None
    few = distinct is not None and len(distinct) <= MOST_VALUES
    return TargetFacts(
        shape=array.shape[1:],
        dtype=array.dtype.name,
        low=float(array.min()),
        high=float(array.max()),
        whole=whole,
        values=frozenset(int(value) for value in distinct) if few and distinct is not None else None,
        rows=_rows(array, distinct),
    )


def _rows(array: np.ndarray, distinct: np.ndarray | None) -> Rows | None:
    if array.ndim < 2 or array.shape[-1] < 2:
        return None
    if distinct is not None and set(distinct[:3].tolist()) <= {0, 1}:
        return "one_hot" if (np.count_nonzero(array, axis=-1) == 1).all() else "multi_hot"
    sums_to_one = np.abs(array.sum(axis=-1, dtype=np.float64) - 1) <= ROW_SUM_TOLERANCE
    return "distribution" if array.min() >= 0 and sums_to_one.all() else None


def _merged_rows(a: Rows | None, b: Rows | None) -> Rows | None:
    """One-hot rows are both multi-hot and distributions."""
    if a == b or a is None or b is None:
        return a if a == b else None
    other = {a, b} - {"one_hot"}
    return other.pop() if len(other) == 1 else None


def merge_targets(*targets: Structure) -> Structure:
    """Structures of facts, merged leaf by leaf.

    Raises:
        ValueError, TypeError: they differ in structure, or a target in its number of axes.
    """
    import tensorflow as tf

    return functools.reduce(functools.partial(tf.nest.map_structure, TargetFacts.merged), targets)
