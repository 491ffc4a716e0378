"""Which samples calibrate, how many, and how far their activations count."""

import numpy as np
import pytest

from edgeprune.calibration import choose_samples
from edgeprune.calibration.profiles import activation_profiles, converged_size, covering_order
from edgeprune.quantize.narrowing import mse_range, percentile_range
from edgeprune.recipe.config import CalibrationConfig


def test_profiles_are_the_extremes_of_every_channel(tiny_model, tiny_data):
    """The input's and the last layer's columns equal what NumPy finds."""
    indices = np.array([5, 3, 40])
    lows, highs = activation_profiles(tiny_model, tiny_data.train, indices)
    x = np.concatenate([x for x, _ in tiny_data.train.batches(8, indices=indices).as_numpy_iterator()])
    np.testing.assert_allclose(highs[:, 0], x.max((1, 2, 3)))
    np.testing.assert_allclose(lows[:, 0], x.min((1, 2, 3)))
    np.testing.assert_allclose(highs[:, -10:], tiny_model(x).numpy(), atol=1e-5)


def test_coverage_reaches_further_than_chance(tiny_model, tiny_data):
    """As many samples chosen by coverage drive channels further; all are distinct positions of the split."""
    by_chance, by_coverage = (
        choose_samples(tiny_data.train, CalibrationConfig(samples=24, strategy=name), tiny_model)
        for name in ("stratified", "coverage")
    )
    assert len(set(by_coverage.tolist())) == len(by_coverage) == 24
    reach = [activation_profiles(tiny_model, tiny_data.train, i)[1].max(0).sum() for i in (by_chance, by_coverage)]
    assert reach[1] > reach[0]


def test_auto_stops_where_ranges_stop_growing(tiny_model, tiny_data):
    """Between 32 and 1,024 samples, a head of the draw with a fixed number."""
    chosen = choose_samples(tiny_data.train, CalibrationConfig(samples="auto"), tiny_model)
    assert 32 <= len(chosen) <= 1024
    fixed = choose_samples(tiny_data.train, CalibrationConfig(samples=1024), tiny_model)
    assert chosen.tolist() == fixed[: len(chosen)].tolist()


def test_sizes_double_until_ranges_settle():
    """Ranges that are complete after 70 samples need 128; ranges that never settle take all there are."""
    highs = np.minimum(np.arange(512), 70)[:, None].astype(float)
    assert converged_size(np.zeros((512, 1)), highs, start=32, growth=0.02) == 128
    highs = np.arange(500)[:, None].astype(float)
    assert converged_size(np.zeros((500, 1)), highs, start=32, growth=0.02) == 500


def test_the_greedy_order_covers_each_channel_first():
    """One sample per channel that only it drives comes before samples that add nothing."""
    highs = np.array([[0.9, 0, 0], [1, 0, 0], [0, 5, 0], [0, 4, 0], [0, 0, 0.1]])
    order = covering_order(np.zeros((5, 3)), highs, 4)
    assert set(order[:3].tolist()) == {1, 2, 4}
    assert len(set(order.tolist())) == 4


@pytest.mark.parametrize("percentile", [99.0, 99.9, 100.0])
def test_percentiles_leave_the_share_outside_that_they_say(percentile):
    """On a histogram of a million normal values; 100 % is the whole range."""
    values = np.random.default_rng(0).normal(size=10**6)
    reached = (values.min(), values.max())
    counts = np.histogram(values, 2048, reached)[0]
    low, high = percentile_range(counts, reached, percentile)
    outside = np.mean((values < low) | (values > high)) * 100
    assert outside == pytest.approx(100 - percentile, abs=0.1)
    assert low >= reached[0] - 1e-9
    assert high <= reached[1] + 1e-9


def test_the_range_of_least_error_cuts_an_outlier_and_keeps_an_even_spread():
    """The error of what int8 makes of the values is smaller than with the full range, never larger."""
    rng = np.random.default_rng(0)
    spread, outlier = rng.uniform(0, 1, 10**5), np.append(rng.exponential(1, 10**6), 100.0)
    for values, cut in ((spread, False), (outlier, True)):
        reached = (0.0, float(values.max()))
        low, high = mse_range(np.histogram(values, 2048, reached)[0], reached)
        assert low == 0
        assert (high < 0.5 * reached[1]) == cut

        def error(top, values=values):
            step = top / 255
            return np.mean((np.clip(np.round(values / step), 0, 255) * step - values) ** 2)

        assert error(high) <= error(reached[1]) * 1.01
