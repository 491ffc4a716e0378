"""Whether two models compute the same: what counts as a difference."""

import numpy as np
import pytest

from edgeprune.models.verify import largest_difference

ONE = np.array([[1.0, -4.0]])


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        ([[1.0, -4.0]], 0.0),
        ([[1.0, -3.0]], 0.25),
        ([[1.0, np.nan]], np.inf),
        ([[1.0, np.inf]], np.inf),
        ([[1.0, -4.0, 0.0]], np.inf),
    ],
    ids=str,
)
def test_differences_are_relative_to_the_largest_value(found, difference):
    """A number that is none in one of both only, or another shape, is an infinite difference, on either side."""
    assert largest_difference([ONE], [np.array(found)]) == difference
    if difference in (0.0, np.inf):
        assert largest_difference([np.array(found)], [ONE]) == difference


def test_numbers_that_are_none_must_be_the_same():
    """NaN equals NaN, and infinities of one sign each other; the rest is still compared."""
    odd = np.array([np.nan, np.inf, 2.0])
    assert largest_difference([odd], [odd]) == 0.0
    assert largest_difference([odd], [np.array([np.inf, np.inf, 2.0])]) == np.inf
    assert largest_difference([odd], [np.array([np.nan, -np.inf, 2.0])]) == np.inf
    assert largest_difference([odd, ONE], [odd, ONE * 0.5]) == 0.5
