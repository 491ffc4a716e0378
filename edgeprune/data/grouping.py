"""Hold a part of the samples out without tearing apart what belongs together: groups, and stretches of time."""

from __future__ import annotations

import zlib

import numpy as np

from edgeprune.errors import DataError


def hold_out_groups(groups: np.ndarray, count: int, *, seed: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Split samples in two such that no group is in both.

    Groups are taken in random order as long as the number of samples comes closer to ``count``; at least one.

    Args:
        groups: int64 [samples], the group of each.
        count: number of samples to hold out, about.
        where: names the data in errors.

    Returns:
        (kept, held): sorted int64 arrays of positions, disjoint, together all.

    Raises:
        DataError: there is a single group.
    """
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 2:
        raise DataError(
            f"All rows of {where} that are to be split belong to one group.",
            expected="at least two groups: one to hold out, one to stay.",
            fix="take another column as [data.table] group, or give a file for each split.",
        )
    order = np.random.default_rng([seed, zlib.crc32(b"hold_out_groups")]).permutation(len(names))
    chosen: list[int] = []
    taken = 0
    for place in order:
        if len(chosen) < len(names) - 1 and abs(taken + sizes[place] - count) < abs(taken - count):
            chosen.append(place)
            taken += sizes[place]
    if not chosen:
        chosen = [int(sizes.argmin())]
    held = np.isin(groups, names[chosen])
    return np.flatnonzero(~held), np.flatnonzero(held)


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
