"""How good the boxes found in one image are: a figure per image, where average precision is one of all images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.tasks.decoding import overlap

if TYPE_CHECKING:
    from edgeprune.tasks.decoding import Found

SURE = 0.5  # the score from which a box is an answer; for average precision, all of them count by their order
SAME = 0.5  # overlap from which a box found is one of the truth


def answered(found: Found) -> Found:
    """The boxes with a score of at least one half."""
    boxes, scores, classes = found
    sure = scores >= SURE
    return boxes[sure], scores[sure], classes[sure]


def quality(found: Found, truth: np.ndarray) -> float:
    """Twice the overlaps of the boxes that are right with their truth, over all boxes found and demanded; 1 where
    there are none. It is the panoptic quality (Kirillov et al. 2019, arXiv:1801.00868), of all classes together.

    Each box of the truth is found once, by the best box of its class that overlaps it by half. Crowds and difficult
    objects are neither demanded nor counted against what overlaps them.

    Args:
        found: in pixels of the image, the best first; those with a score below one half do not count.
        truth: float [n, 6] as those of :class:`edgeprune.data.images.boxes.BoxStore`.
    """
    rows = truth[truth[:, 4] >= 0]
    demanded = rows[:, 5] == 0
    left = demanded.copy()
    overlaps, wrong = [], 0
    for box, _, number in zip(*answered(found), strict=True):
        same = (rows[:, 4] == number) & (overlap(box, rows[:, :4].T) >= SAME)
        if (same & left).any():
            shares = np.where(same & left, overlap(box, rows[:, :4].T), -1)
            left[int(shares.argmax())] = False
            overlaps.append(float(shares.max()))
        elif not (same & ~demanded).any():
            wrong += 1
    total = int(demanded.sum()) + len(overlaps) + wrong
    return 2 * sum(overlaps) / total if total else 1.0
