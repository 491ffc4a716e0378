"""Class labels: recognise them, hold out a stratified part, order samples so that every prefix is stratified."""

from __future__ import annotations

import zlib

import numpy as np

from edgeprune.errors import DataError
from edgeprune.models.types import Structure


def class_labels(y: Structure) -> np.ndarray | None:
    """The class of each sample, or None when ``y`` is not one class per sample.

    Classes are integers or booleans of shape (samples,) or (samples, 1), floats that are all 0 or 1, and one-hot rows
    (samples, classes). Anything else is a regression, multi-label or structured target.

    Args:
        y: an array with samples first, or a dict or tuple of arrays (never class labels).

    Returns:
        int64 array of shape (samples,), or None.
    """
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf" or y.ndim not in (1, 2):
        return None
    if y.ndim == 1 or y.shape[1] == 1:
        whole = y.dtype.kind in "biu" or bool(np.isin(y, (0, 1)).all())
        return y.reshape(-1).astype(np.int64) if whole else None
    one_hot = bool(np.isin(y, (0, 1)).all()) and bool((y.sum(axis=1) == 1).all())
    return y.argmax(axis=1).astype(np.int64) if one_hot else None


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


def check_targets(leaf: np.ndarray, where: str) -> None:
    """Raise DataError if an array of targets is not numeric or has NaN or infinite values."""
    if leaf.dtype.kind not in "biuf":
        raise DataError(
            f"The labels y of the {where} data are of type {leaf.dtype}.",
            expected="numbers: class indices, one-hot rows or regression targets.",
            fix="map class names to integers 0, 1, 2, ... in sorted order.",
        )
    if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        bad = int(np.argwhere(~np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1))[0, 0])
        raise DataError(
            f"The labels y of the {where} data have NaN or infinite values, first at sample {bad}.",
            expected="a finite number for every sample.",
            fix="remove or repair these samples.",
        )


def first_output(y: Structure) -> Structure:
    """Of the labels or outputs of several outputs, those of the first: the metric is computed on them."""
    if isinstance(y, dict):
        return next(iter(y.values()))
    return y[0] if isinstance(y, tuple | list) else y
