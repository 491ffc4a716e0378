"""The fit: it finds what made the times, leans on its prior where nothing was measured, and knows its own error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.hardware.latency import prior
from edgeprune.hardware.latency.fit import (
    COVERED,
    Samples,
    covariance,
    fit,
    left_out,
    most_informative,
    predict,
    range_factor,
    uncertainty,
)
from edgeprune.target import load_target

RPI4 = load_target("rpi4")


def made(theta, count, seed, noise=0.0, threads=(1, 4)):
    """Samples that follow coefficients: each term gets between nothing and a few milliseconds."""
    rng = np.random.default_rng(seed)
    shares = rng.gamma(0.5, 1e-3, (count, len(theta) - 1))
    amounts = shares / np.exp(theta[:-1])
    parallel = np.arange(len(theta) - 1) % 2 == 0
    used = rng.choice(threads, count).astype(float)
    empty = Samples(amounts, parallel, used, np.ones(count), np.ones(count))
    seconds = predict(empty, theta) * np.exp(noise * rng.standard_normal(count))
    return Samples(amounts, parallel, used, seconds, np.ones(count))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_fit_recovers_the_coefficients(seed):
    """From exact times of many models, coefficients within 10 %, though it starts off by factors up to two."""
    rng = np.random.default_rng(seed)
    truth = np.log([1e-9, 3e-9, 2e-10, 5e-6, 4e-10, 0.1])
    samples = made(truth, 150, seed)
    found = fit(samples, truth + rng.uniform(-0.7, 0.7, len(truth)))
    assert np.abs(found - truth)[:-1].max() < 0.1
    assert np.abs(np.log(predict(samples, found) / samples.seconds)).max() < 0.05


def test_few_measurements_scale_the_base():
    """Three times from a board twice as fast: every coefficient moves, measured or not, and about alike."""
    base = np.log([1e-9, 3e-9, 2e-10, 5e-6, 4e-10, 0.1])
    faster = base - np.r_[np.full(5, np.log(2)), 0]
    samples = made(faster, 3, 1)
    amounts = samples.amounts.copy()
    amounts[:, 4] = 0  # never measured
    seconds = predict(Samples(amounts, samples.parallel, samples.threads, samples.seconds, samples.weights), faster)
    found = fit(Samples(amounts, samples.parallel, samples.threads, seconds, samples.weights), base)
    factors = np.exp(found - base)[:-1]
    assert 0.45 < factors.min() <= factors.max() < 0.75
    assert factors[4] < 0.75


def test_without_measurements_there_is_nothing_to_learn():
    """Nothing measured: the prior."""
    base = np.log([1e-9, 3e-9, 2e-10, 5e-6, 4e-10, 0.1])
    none = made(base, 5, 0).take(np.zeros(5, bool))
    assert fit(none, base) == pytest.approx(base)


def test_one_odd_measurement_does_not_bend_the_rest():
    """One time that is ten times off changes the others' predictions by less than 5 %."""
    truth = np.log([1e-9, 3e-9, 2e-10, 5e-6, 4e-10, 0.1])
    samples = made(truth, 30, 3)
    seconds = samples.seconds.copy()
    seconds[0] *= 10
    odd = Samples(samples.amounts, samples.parallel, samples.threads, seconds, samples.weights)
    found = fit(odd, truth)
    assert np.abs(np.log(predict(odd, found) / samples.seconds))[1:].max() < 0.05


def test_left_out_errors_are_larger_than_the_fits():
    """The error on what was left out is that of a prediction, not of a fit."""
    truth = np.log([1e-9, 3e-9, 2e-10, 5e-6, 4e-10, 0.1])
    samples = made(truth, 24, 5, noise=0.2)
    groups = np.repeat(np.arange(6), 4)
    outside = left_out(samples, truth + 0.3, groups)
    inside = np.log(predict(samples, fit(samples, truth + 0.3)) / samples.seconds)
    assert np.mean(outside**2) > np.mean(inside**2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), groups=st.integers(5, 40), size=st.integers(1, 6))
def test_ranges_cover_what_they_say(seed, groups, size):
    """At least 80 % of the groups that a range was made from lie in it, and it is never narrower than 5 %."""
    residuals = np.random.default_rng(seed).normal(0, 0.2, groups * size)
    names = np.repeat(np.arange(groups), size)
    factor = range_factor(residuals, names)
    assert factor >= 1.05
    assert np.mean(np.abs(residuals) <= np.log(factor) + 1e-12) >= COVERED


def test_coefficients_survive_the_way_through_a_table():
    """Logarithms → table → logarithms keeps four digits."""
    theta = prior.from_hardware(RPI4.cpu)
    seconds, serial = prior.cpu_seconds(theta)
    table = RPI4.latency.builtin.model_copy(update={"seconds_per": seconds, "serial_fraction": serial})
    assert prior.cpu_vector(table) == pytest.approx(theta, abs=1e-3)


def test_a_board_carried_to_itself_stays_and_a_faster_one_is_faster():
    """Scaling by the ratios of facts: none for the same processor; no coefficient grows on a better one."""
    theta = prior.cpu_vector(RPI4.latency.builtin)
    assert prior.scaled(theta, RPI4.cpu, RPI4.cpu) == pytest.approx(theta)
    assert (prior.scaled(theta, RPI4.cpu, load_target("rpi5").cpu) <= theta).all()
    assert (prior.scaled(theta, RPI4.cpu, load_target("rpi-zero2w").cpu)[:-1] > theta[:-1]).all()


def test_the_file_that_tells_most_is_proposed_first():
    """Of candidates, one whose work was never measured comes before repeats of what was."""
    truth = np.log([1e-9, 3e-9, 2e-10, 5e-6, 4e-10, 0.1])
    measured = made(truth, 20, 3)
    amounts = measured.amounts.copy()
    amounts[:, 4] = 0  # never measured
    known = Samples(
        amounts, measured.parallel, measured.threads, predict_of(amounts, measured, truth), measured.weights
    )
    alone = np.zeros_like(amounts[:1])
    alone[0, 4] = 1e7
    both = Samples(np.concatenate([amounts[:6], alone]), known.parallel, np.full(7, 4.0), np.ones(7), np.ones(7))
    theta = fit(known, truth)
    spread = covariance(known, theta)
    assert most_informative(both, theta, spread, 3)[0] == 6
    assert uncertainty(both, theta, spread)[6] > 2 * uncertainty(both, theta, spread)[:6].max()
    assert sorted(most_informative(both, theta, spread, 10)) == list(range(7))


def predict_of(amounts, samples, theta):
    return predict(Samples(amounts, samples.parallel, samples.threads, samples.seconds, samples.weights), theta)


def test_proposals_shrink_what_is_not_known_faster_than_chance():
    """After five proposed measurements, the candidates' times are known better than after five at random."""
    truth = np.log([1e-9, 3e-9, 2e-10, 5e-6, 4e-10, 0.1])
    pool = made(truth, 60, 5)
    chosen = most_informative(pool, truth, covariance(pool.take(np.zeros(60, bool)), truth), 5)

    def left(rows):
        return np.mean(uncertainty(pool, truth, covariance(pool.take(np.array(rows)), truth)))

    chance = [left(np.random.default_rng(seed).permutation(60)[:5]) for seed in range(20)]
    assert left(chosen) < np.median(chance)
