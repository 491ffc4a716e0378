"""How good the boxes of one image are."""

import numpy as np
import pytest

from edgeprune.tasks.box_answers import quality

A, B = [0, 0, 10, 10], [20, 20, 30, 30]
NEAR = [0, 0, 10, 14]  # overlaps A by 10/14
FAR = [0, 0, 10, 21]  # by 10/21
FILL = [0, 0, 0, 0, -1, 0]


def truth(*rows):
    return np.array([[*box, number, kind] for box, number, kind in rows] + [FILL], np.float32)


def found(*rows):
    boxes, scores, classes = zip(*rows, strict=True) if rows else ((), (), ())
    return np.reshape(boxes, (-1, 4)).astype(float), np.array(scores), np.array(classes)


@pytest.mark.parametrize(
    ("boxes", "rows", "share"),
    [
        ([(A, 0.9, 0)], [(A, 0, 0)], 1),
        ([(NEAR, 0.9, 0)], [(A, 0, 0)], 10 / 14),
        ([(FAR, 0.9, 0)], [(A, 0, 0)], 0),
        ([(A, 0.9, 1)], [(A, 0, 0)], 0),
        ([(A, 0.4, 0)], [(A, 0, 0)], 0),
        ([(A, 0.9, 0), (NEAR, 0.8, 0)], [(A, 0, 0)], 2 / 3),
        ([(A, 0.9, 0)], [(A, 0, 0), (B, 0, 0)], 2 / 3),
        ([], [], 1),
        ([(A, 0.9, 0)], [], 0),
        ([], [(A, 0, 0)], 0),
    ],
)
def test_it_is_the_overlap_of_right_boxes_over_all_that_are_sure_or_wanted(boxes, rows, share):
    """A box of the truth is found once, by a box of its class that overlaps it by half."""
    assert quality(found(*boxes), truth(*rows)) == pytest.approx(share)


@pytest.mark.parametrize("kind", [1, 2])
def test_crowds_and_difficult_objects_do_not_count(kind):
    """They need not be found, and what overlaps them is not wrong."""
    rows = [(A, 0, 0), (B, 0, kind)]
    assert quality(found((A, 0.9, 0)), truth(*rows)) == 1
    assert quality(found((A, 0.9, 0), (B, 0.8, 0)), truth(*rows)) == 1
    assert quality(found((A, 0.9, 0), (B, 0.8, 1)), truth(*rows)) == pytest.approx(2 / 3)


def test_a_found_box_takes_the_one_that_it_overlaps_most():
    rows = truth((A, 0, 0), (NEAR, 0, 0))
    assert quality(found((NEAR, 0.9, 0), (A, 0.8, 0)), rows) == 1
