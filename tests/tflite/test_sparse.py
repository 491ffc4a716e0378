import numpy as np
import pytest

from edgeprune.tflite.sparse import Dimension, Sparsity


def csr(segments, indices):
    return Dimension(0, np.asarray(segments), np.asarray(indices))


def test_compressed_rows():
    """A dense level over compressed columns is an ordinary CSR matrix."""
    sparsity = Sparsity((0, 1), (), (Dimension(3, None, None), csr([0, 1, 1, 3], [2, 0, 3])))
    sparsity.check((3, 4), 3)
    expected = [[0, 0, 7, 0], [0, 0, 0, 0], [8, 0, 0, 9]]
    np.testing.assert_array_equal(sparsity.densify(np.array([7, 8, 9]), (3, 4)), expected)


def test_blocks():
    """Block dimensions subdivide the dimension that the block map names."""
    sparsity = Sparsity((0, 1, 2), (1,), (Dimension(2, None, None), csr([0, 1, 2], [1, 0]), Dimension(2, None, None)))
    dense = sparsity.densify(np.array([1, 2, 3, 4]), (2, 4))
    np.testing.assert_array_equal(dense, [[0, 0, 1, 2], [3, 4, 0, 0]])


@pytest.mark.parametrize(
    ("sparsity", "stored"),
    [
        (Sparsity((0, 0), (), (Dimension(3, None, None), csr([0, 1, 1, 3], [2, 0, 3]))), 3),
        (Sparsity((0, 1), (), (Dimension(3, None, None), csr([0, 1, 1, 3], [2, 0, 4]))), 3),
        (Sparsity((0, 1), (), (Dimension(3, None, None), csr([0, 1, 1, 3], [2, 0, -1]))), 3),
        (Sparsity((0, 1), (), (Dimension(3, None, None), csr([0, 1, 1, 3], [2, 0, 3]))), 2),
        (Sparsity((0, 1), (), (Dimension(9, None, None), csr([0, 1, 1, 3], [2, 0, 3]))), 3),
        (Sparsity((0, 1), (), (Dimension(2**40, None, None), csr([0, 1, 1, 3], [2, 0, 3]))), 3),
        (Sparsity((0, 1), (), (Dimension(3, None, None), csr([3, 1, 1, 0], [2, 0, 3]))), 3),
    ],
)
def test_contradictions_are_refused(sparsity, stored):
    """Levels that do not match the shape, the stored values or each other do not pass the check."""
    with pytest.raises((ValueError, IndexError)):
        sparsity.check((3, 4), stored)
