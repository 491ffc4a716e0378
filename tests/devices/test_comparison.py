"""The ratio of two files."""

import numpy as np
import pytest

from edgeprune.devices.comparison import ratio


def rounds(generator, factor, speed):
    """Times of 20 rounds of 10 runs, with noise, outliers, and a device whose speed drifts."""
    times = factor * speed[:, None] * generator.lognormal(0, 0.05, (20, 10))
    times[generator.integers(20), generator.integers(10)] *= 50
    return times.tolist()


def test_drift_cancels():
    """On a device that becomes three times slower, the ratio of what takes turns is still found."""
    generator = np.random.default_rng(0)
    speed = np.linspace(1, 3, 20)
    found = ratio(rounds(generator, 1.0, speed), rounds(generator, 0.7, speed))
    assert found["ratio"] == pytest.approx(0.7, rel=0.03)
    assert found["low"] < found["ratio"] < found["high"] < 0.75
    assert found["rounds"] == 20


def test_intervals_cover_the_truth():
    """The 95 % interval has the true ratio in at least 90 of 100 trials, and is not so wide that it says nothing."""
    generator = np.random.default_rng(1)
    found = [
        ratio(rounds(generator, 1.0, np.ones(20)), rounds(generator, 1.2, np.ones(20)), seed) for seed in range(100)
    ]
    assert sum(one["low"] <= 1.2 <= one["high"] for one in found) >= 90
    assert np.median([one["high"] / one["low"] for one in found]) < 1.1


def test_few_rounds_have_no_interval():
    """From fewer than 5 pairs, the ratio is given alone."""
    found = ratio([[2.0], [2.0]], [[1.0], [1.0], [1.0]])
    assert (found["ratio"], found["low"], found["high"], found["rounds"]) == (pytest.approx(0.5), None, None, 2)
