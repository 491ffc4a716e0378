"""Samples in batches of other sizes."""

import numpy as np
import pytest

from edgeprune.reconstruction.forward import joined


@pytest.mark.parametrize(
    ("batches", "each", "size", "sizes"),
    [
        (63, 32, 10_000, [256, 256, 256, 256, 256, 256, 256, 224]),  # never more than 256
        (4, 50, 120, [100, 100]),
        (5, 50, 120, [100, 50, 50, 50]),
        (2, 32, 10_000, [32, 32]),  # halves of the samples are compared with each other
        (1, 32, 10_000, [32]),
        (3, 32, 20, [32, 32, 32]),  # none is split
    ],
)
def test_small_batches_are_joined_evenly(batches, each, size, sizes):
    """All samples are there, in their order, in an even number of batches of nearly one size where that can be."""
    samples = np.arange(batches * each).reshape(batches, each)
    found = joined([[part, -part] for part in samples], size)
    assert [len(batch[0]) for batch in found] == sizes
    for place, sign in enumerate((1, -1)):
        np.testing.assert_array_equal(np.concatenate([batch[place] for batch in found]), sign * samples.reshape(-1))
