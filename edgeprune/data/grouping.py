"""Hold a part of the samples out without tearing apart what belongs together: groups, and stretches of time."""

from __future__ import annotations

import zlib

import numpy as np

from edgeprune.errors import DataError


def hold_out_groups(
    groups: np.ndarray, labels: np.ndarray | None, count: int, *, seed: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Split samples in two so that no group is in both, with about the same share of each class in both.

    Groups are looked at in a random order; one is held out if that brings the held-out samples of each class nearer to
    their share. There is always one in each part.

    Args:
        groups: (samples,).
        labels: int array (samples,), or None.
        count: number of samples to hold out, which is met as nearly as the groups allow.
        seed: decides which groups.
        where: names the data in errors.

    Returns:
        (kept, held): sorted int64 arrays of positions, disjoint, together all samples.

    Raises:
        DataError: there is a single group.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"All {len(groups)} samples of {where} that a part is to be taken from are of one group, "
            f"{str(names[0])!r}: they cannot be split.",
            expected="at least three groups, one for each of train, validation and test, or splits of their own.",
            fix="correct group in the recipe, or leave it out.",
        )
    classes, label = np.unique(np.zeros(len(groups)) if labels is None else labels, return_inverse=True)
    sizes = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(sizes, (group, label), 1)
    missing = sizes.sum(0) * (count / len(groups))
    order = np.random.default_rng([seed, zlib.crc32(b"hold_out_groups")]).permutation(len(names))
    held = np.zeros(len(names), bool)
    for one in order:
        after = missing - sizes[one]
        if held.sum() < len(names) - 1 and np.abs(after).sum() < np.abs(missing).sum():
            held[one], missing = True, after
    if not held.any():
        held[order[sizes[order].sum(1).argmin()]] = True
    return np.flatnonzero(~held[group]), np.flatnonzero(held[group])


def hold_out_last(begins: np.ndarray, ends: np.ndarray, count: int, *, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Split windows of time in two: the last ones are held out, and those that reach into them are in neither part.

    Args:
        begins, ends: int64 [windows], first row of each and the row after its last, rising.
        count: number of windows to hold out.
        where: names the data in errors.

    Returns:
        (kept, held): sorted int64 arrays of positions, disjoint.

    Raises:
        DataError: no window ends before the held ones begin.
    """
    held = np.arange(len(begins) - count, len(begins))
    kept = np.flatnonzero(ends <= begins[held[0]])
    if not len(kept):
        raise DataError(
            f"The windows of {where} overlap so much that none is left beside the {count} last ones.",
            expected="more rows, or groups of rows, of which some are held out.",
            fix="set [data.table] group, give a file for each split, or make window smaller.",
        )
    return kept, held
