"""The digits and their model."""

import numpy as np
import pytest

from edgeprune.data import InputSpec, demo_model, load_data
from edgeprune.data.demo import _enlarge
from edgeprune.models import load_model
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((16, 16, 1),))


def _all(split):
    return next(split.batches(2000).as_numpy_iterator())


def test_splits_are_fixed_disjoint_and_stratified():
    """1,147 / 150 / 500 real digits, the same for every seed, no picture in two splits."""
    a, b = (load_data("demo", DataConfig(), SPEC, seed=seed) for seed in (0, 1))
    splits = [_all(split) for split in (a.train, a.validation, a.test)]
    assert [len(y) for _, y in splits] == [1147, 150, 500]
    np.testing.assert_array_equal(splits[2][0], _all(b.test)[0])
    pictures = [{image.tobytes() for image in x} for x, _ in splits]
    assert len(set.union(*pictures)) == sum(map(len, pictures))
    for _, y in splits:
        assert np.ptp(np.bincount(y, minlength=10)) <= 0.1 * len(y) / 10 + 2
    assert a.class_names == tuple("0123456789")


def test_pixels_use_the_range_of_images():
    """16x16x1 float32, whole values from 0 to 255."""
    x, _ = _all(load_data("demo", DataConfig(), SPEC).train)
    assert (x.shape[1:], x.dtype, x.min(), x.max()) == ((16, 16, 1), np.float32, 0, 255)
    assert (x == np.round(x)).all()


def test_enlarging_is_bilinear():
    """Whole-number enlarging agrees with TensorFlow's bilinear resize to half a pixel value."""
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8), np.uint8)
    reference = tf.image.resize(images[..., None] / 16 * 255, (16, 16)).numpy()[..., 0]
    assert np.abs(_enlarge(images) - reference).max() <= 0.51


def test_initial_weights_follow_the_seed():
    """The same seed gives the same weights whatever happened before, another seed others."""
    import tf_keras

    tf_keras.utils.set_random_seed(5)
    first = demo_model(1).get_weights()
    tf_keras.utils.set_random_seed(6)
    assert all((a == b).all() for a, b in zip(first, demo_model(1).get_weights(), strict=True))
    assert not np.array_equal(first[0], demo_model(2).get_weights()[0])


def test_trained_model_knows_digits(begin_demo, tmp_path):
    """Above 96 % on the validation split, compiled, with 15,000 to 25,000 parameters."""
    begin_demo(tmp_path)
    model = load_model(tmp_path / "stages" / "model" / "model.keras")
    data = load_data("demo", DataConfig(), InputSpec.of(model))
    _, accuracy = model.evaluate(data.validation.batches(50), verbose=0)
    assert accuracy > 0.96
    assert 15_000 < model.count_params() < 25_000


@pytest.mark.slow  # of builds, tests/test_build.py shows the same
def test_deterministic_training_repeats_byte_for_byte():
    """With ``deterministic`` two trainings end with the same weights (in a process of its own: the mode stays on)."""
    import subprocess
    import sys

    code = (
        "import edgeprune.data.demo as demo\n"
        "demo.LEARNING_RATES = (3e-3,)\n"
        "a, b = (demo.train_demo_model(3, deterministic=True).get_weights() for _ in range(2))\n"
        "assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
