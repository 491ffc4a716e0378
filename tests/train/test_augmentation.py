"""Augmentation: the same draw for the same seed, another for another; pixels move, none is invented."""

import numpy as np
import pytest

from edgeprune.errors import RecipeError
from edgeprune.recipe import AugmentConfig
from edgeprune.train.augmentation import augment


def batches(count=3, size=16):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(count * size, 8, 8, 2)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, np.arange(count * size))).batch(size)


def images(dataset):
    return np.concatenate([x for x, _ in dataset.as_numpy_iterator()])


def test_a_seed_decides_everything():
    """Resuming an epoch draws the same changes again; another epoch draws others."""
    config = AugmentConfig(flip=True, shift=2)
    first = images(augment(batches(), config, 1))
    np.testing.assert_array_equal(first, images(augment(batches(), config, 1)))
    assert not np.array_equal(first, images(augment(batches(), config, 2)))
    assert not np.array_equal(first[:16], first[16:32])


def test_flipped_images_are_mirror_images():
    """Each image is itself or its mirror image, and both occur."""
    before, after = images(batches()), images(augment(batches(), AugmentConfig(flip=True), 0))
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(before, after, strict=True)]
    assert all(s or m for s, m in zip(same, mirrored, strict=True))
    assert 0.2 < np.mean(mirrored) < 0.8


def test_shifted_images_are_windows_of_the_padded_image():
    """Every image is one of the (2 shift + 1)² windows, and labels stay with their images."""
    before, after = images(batches()), images(augment(batches(), AugmentConfig(shift=1), 0))
    found = set()
    for a, b in zip(before, after, strict=True):
        padded = np.pad(a, [(1, 1), (1, 1), (0, 0)], mode="reflect")
        matches = [(i, j) for i in range(3) for j in range(3) if np.array_equal(padded[i : i + 8, j : j + 8], b)]
        assert matches
        found.add(matches[0])
    assert len(found) > 4


def test_what_is_no_image_is_refused():
    """Vectors cannot be flipped."""
    import tensorflow as tf

    vectors = tf.data.Dataset.from_tensor_slices((np.zeros((4, 3), "float32"), np.zeros(4))).batch(2)
    with pytest.raises(RecipeError, match="images"):
        augment(vectors, AugmentConfig(flip=True), 0)
