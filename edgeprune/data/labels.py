"""Class labels: recognise them, hold out a stratified part, order samples so that every prefix is stratified."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

import numpy as np

from edgeprune.models.types import Structure

MOST_CLASSES = 1000


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names that are sorted as texts, in the order of their numbers: sorted as numbers if all are whole numbers."""
    listed = list(names)
    if all(re.fullmatch(r"-?[0-9]+", name) for name in listed):
        listed.sort(key=int)
    return tuple(listed)


def class_labels(y: Structure) -> np.ndarray | None:
    """The class of each sample, for stratification, or None when no array of ``y`` is one class per sample.

    Classes are whole numbers or booleans of shape (samples,) or (samples, 1), with at most 1,000 distinct values, and
    one-hot rows (samples, classes). Of a dict or tuple of arrays, the first that holds classes counts.

    Args:
        y: an array with samples first, or a dict or tuple of arrays.

    Returns:
        int64 array of shape (samples,), or None.
    """
    found = (as_classes(leaf_classes(leaf)) for leaf in leaves(y))
    return next((labels for labels in found if labels is not None), None)


def leaf_classes(array: np.ndarray) -> np.ndarray | None:
    """Whole numbers or one-hot rows as int64 (samples,), whatever their number of distinct values; else None."""
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        return None
    if array.ndim == 1 or array.shape[1] == 1:
        exact = array.dtype.kind in "biu" or bool(((np.floor(array) == array) & (np.abs(array) < 2**53)).all())
        return array.reshape(-1).astype(np.int64) if exact else None
    one_hot = bool(np.isin(array, (0, 1)).all()) and bool((array.sum(axis=1) == 1).all())
    return array.argmax(axis=1).astype(np.int64) if one_hot else None


def as_classes(labels: np.ndarray | None) -> np.ndarray | None:
    """``labels``, or None if they are too many different numbers to be classes: counts, years, identities."""
    return None if labels is None or len(np.unique(labels)) > MOST_CLASSES else labels


def leaves(structure: Structure) -> list[np.ndarray]:
    """The arrays of a structure of dicts and tuples, in its own order."""
    if isinstance(structure, dict):
        structure = tuple(structure.values())
    return [leaf for item in structure for leaf in leaves(item)] if isinstance(structure, tuple) else [structure]


def hold_out(size: int, labels: np.ndarray | None, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the samples 0..size-1 in two, the same share of each class in both.

    Every class gives its share of ``count``, rounded down; the largest remainders give one more. The last sample of a
    class is given only when nothing else is left.

    Args:
        labels: int array (size,), or None for a random split.
        count: number of samples to hold out.
        seed: decides which samples.

    Returns:
        (kept, held): sorted int64 arrays of indices, disjoint, together all of 0..size-1.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"hold_out")])
    groups = np.zeros(size, np.int64) if labels is None else np.unique(labels, return_inverse=True)[1].reshape(-1)
    class_sizes = np.bincount(groups, minlength=1)
    quota = class_sizes * (count / max(size, 1))
    take = np.floor(quota + 1e-9).astype(np.int64)
    remainder = quota - take
    last_one = class_sizes - take <= 1
    neediest = np.lexsort((rng.random(len(take)), -remainder, last_one, remainder <= 1e-9))
    take[neediest[: count - take.sum()]] += 1
    order = rng.permutation(size)
    rank = _rank_in_group(groups[order])
    held = np.sort(order[rank < take[groups[order]]])
    return np.setdiff1d(np.arange(size), held), held


def stratified_order(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """All samples in an order whose every prefix covers the classes: one of each class first, then in proportion.

    Args:
        labels: int array (samples,).

    Returns:
        int64 array (samples,), a permutation.
    """
    order = np.random.default_rng([seed, zlib.crc32(b"stratified_order")]).permutation(len(labels))
    groups = np.unique(labels[order], return_inverse=True)[1].reshape(-1)
    share = _rank_in_group(groups) / np.bincount(groups, minlength=1)[groups]
    return order[np.argsort(share, kind="stable")]


def _rank_in_group(groups: np.ndarray) -> np.ndarray:
    """For each position, how many earlier positions hold the same group."""
    by_group = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=1)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(groups), np.int64)
    rank[by_group] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return rank
