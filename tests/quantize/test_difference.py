"""How far outputs are from those of the model as it was."""

import numpy as np
import pytest

from edgeprune.quantize.difference import OutputDifference


@pytest.fixture
def outputs():
    generator = np.random.default_rng(0)
    wanted = [generator.normal(size=(12, 5)).astype("float32"), 100 * generator.normal(size=(12, 4, 4, 2))]
    return wanted, [array + 0.1 * generator.normal(size=array.shape) for array in wanted]


def test_each_output_is_measured_against_its_own_mean_square(outputs):
    """So that a large one does not hide a small one; by the definition."""
    wanted, given = outputs
    difference = OutputDifference()
    difference.add(wanted, given)
    shares = [np.square(a - b).sum() / np.square(a).sum() for a, b in zip(wanted, given, strict=True)]
    assert difference.mean() == pytest.approx(np.mean(shares), rel=1e-5)


def test_batches_do_not_matter(outputs):
    """All samples at once give what single ones give."""
    at_once, singly = OutputDifference(), OutputDifference()
    at_once.add(*outputs)
    for row in range(12):
        singly.add(*([array[row : row + 1] for array in arrays] for arrays in outputs))
    assert singly.of_samples() == pytest.approx(at_once.of_samples())


def test_integers_are_left_out(outputs):
    """The number of a class is no quantity; where there is nothing else, nothing differs."""
    wanted, given = outputs
    with_class, without = OutputDifference(), OutputDifference()
    with_class.add([*wanted, np.arange(12)], [*given, np.zeros(12, int)])
    without.add(wanted, given)
    assert with_class.mean() == without.mean()
    only = OutputDifference()
    only.add([np.arange(12)], [np.zeros(12, int)])
    assert only.mean() == 0
