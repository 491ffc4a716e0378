"""Stratification."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.data.labels import class_labels, hold_out, stratified_order

CLASS_SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@given(CLASS_SIZES, st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_hold_out_keeps_the_share_of_every_class(sizes, share, seed):
    """Both parts are disjoint and complete, the count is exact, and no class is off its share by more than one."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 3 - 5, sizes))
    count = round(len(labels) * share)
    kept, held = hold_out(len(labels), labels, count, seed=seed)
    assert len(held) == count
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label, size in zip(np.unique(labels), sizes, strict=True):
        assert abs((labels[held] == label).sum() - size * count / len(labels)) <= 1


@given(CLASS_SIZES, st.integers(0, 1000))
def test_every_prefix_covers_the_classes(sizes, seed):
    """The first samples hold one of each class; the order is a permutation."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = stratified_order(labels, seed=seed)
    assert sorted(order) == list(range(len(labels)))
    assert set(labels[order[: len(sizes)]]) == set(range(len(sizes)))


def test_hold_out_depends_on_the_seed_alone():
    """The same seed holds out the same samples, another seed others, with and without labels."""
    labels = np.arange(100) % 4
    for known in (labels, None):
        first, again, other = (hold_out(100, known, 20, seed=seed)[1].tolist() for seed in (0, 0, 1))
        assert first == again
        assert first != other


def test_last_sample_of_a_class_stays():
    """Classes with a single sample are not held out while others can give."""
    labels = np.array([0] * 50 + [1] * 50 + [2, 3, 4])
    _, held = hold_out(103, labels, 30, seed=0)
    assert set(labels[held]) == {0, 1}


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.array([3, 1]), [3, 1]),
        (np.array([[True], [False]]), [1, 0]),
        (np.array([[0, 1], [1, 0]], np.float32), [1, 0]),
        (np.array([0.0, 1.0]), [0, 1]),
        (np.array([0.5, 1.0]), None),
        (np.array([[1, 1], [0, 1]]), None),
        (np.zeros((2, 3, 3), int), None),
        (np.array([2.0, 0.0, 7.0]), [2, 0, 7]),
        (np.array([2.0, 1e300]), None),
        ({"box": np.zeros((2, 4)) + 0.5, "class": np.array([0, 1]), "other": np.array([1, 1])}, [0, 1]),
        ((np.array([0.5, 1.0]), np.eye(2)), [0, 1]),
        ((), None),
    ],
)
def test_class_labels(y, expected):
    """Whole numbers, booleans and one-hot rows are classes, of several outputs the first; nothing else is."""
    labels = class_labels(y)
    assert (None if labels is None else labels.tolist()) == expected


def test_many_different_numbers_are_not_classes():
    """Up to 1,000 distinct numbers are classes; more are counts or the like, by which nothing is stratified."""
    assert len(np.unique(class_labels(np.arange(3000) % 1000))) == 1000
    assert class_labels(np.arange(3000) % 1001) is None
