"""Least squares from moments."""

import numpy as np
import pytest

from edgeprune.reconstruction.moments import Moments, choose_ridge, fit
from edgeprune.reconstruction.rounding import Grid


@pytest.fixture
def rows():
    """x [1, 400, 6], y [1, 400, 3]: a product with a constant, and noise."""
    generator = np.random.default_rng(0)
    x = generator.normal(1, 2, [1, 400, 6])
    y = x @ generator.normal(size=[1, 6, 3]) + [1.0, -2.0, 3.0] + generator.normal(size=[1, 400, 3])
    return x, y


def moments_of(x, y, batches=7):
    found = Moments(x.shape[0], x.shape[2], y.shape[2])
    for part in zip(np.array_split(x, batches, 1), np.array_split(y, batches, 1), strict=True):
        found.add(*part)
    return found


@pytest.mark.parametrize("intercept", [False, True])
def test_a_fit_is_the_closed_form(rows, intercept):
    """Matrix, constant and error are those of numpy.linalg.lstsq over all rows at once."""
    x, y = rows
    found = fit(moments_of(x, y), np.zeros([1, 6, 3]), 1e-12, intercept=intercept)
    terms = np.concatenate([x[0], np.ones([400, 1])], 1) if intercept else x[0]
    expected, residual, *_ = np.linalg.lstsq(terms, y[0], rcond=None)
    np.testing.assert_allclose(found.matrix[0], expected[:6], rtol=1e-6)
    np.testing.assert_allclose(found.constant[0], expected[6] if intercept else 0, rtol=1e-6)
    energy = np.square(y - (y.mean(1) if intercept else 0)).sum()
    assert found.after == pytest.approx(residual.sum() / energy, rel=1e-6)
    assert found.after < found.before


def test_what_fits_stays(rows):
    """A matrix that gives the targets already comes back unchanged, whatever the ridge."""
    x, _ = rows
    start = np.random.default_rng(1).normal(size=[1, 6, 3])
    for ridge in (1e-6, 1e-2, 10.0):
        found = fit(moments_of(x, x @ start + 5), start, ridge, intercept=True)
        np.testing.assert_allclose(found.matrix, start, atol=1e-9)
        np.testing.assert_allclose(found.constant, 5, atol=1e-9)


def test_the_ridge_pulls_to_the_start(rows):
    """The stronger the ridge, the nearer the matrix is to where it started."""
    x, y = rows
    start = np.ones([1, 6, 3])
    distances = [
        np.linalg.norm(fit(moments_of(x, y), start, ridge, intercept=True).matrix - start)
        for ridge in (1e-9, 1e-1, 10, 1e6)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-3


@pytest.mark.parametrize("whole", [[], [1], [0, 1, 2]], ids=["none", "one", "all"])
def test_a_masked_fit_is_the_closed_form_of_each_column(rows, whole):
    """Under a mask each column is the least-squares fit of the terms that it may use; the others are zero."""
    x, y = rows
    mask = np.random.default_rng(2).random([1, 6, 3]) < 0.6
    mask[:, :, whole] = True
    found = fit(moments_of(x, y), np.ones([1, 6, 3]), 1e-12, intercept=True, mask=mask)
    centered = x[0] - x[0].mean(0), y[0] - y[0].mean(0)
    for column in range(3):
        chosen = mask[0, :, column]
        expected = np.linalg.lstsq(centered[0][:, chosen], centered[1][:, column], rcond=None)[0]
        np.testing.assert_allclose(found.matrix[0, chosen, column], expected, rtol=1e-4)
        assert not found.matrix[0, ~chosen, column].any()


def test_equal_and_empty_terms_are_no_obstacle():
    """Terms that are zero, equal to others, or more than the rows give a finite matrix that fits."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=[2, 5, 8])
    x[:, :, 3], x[:, :, 4] = 0, x[:, :, 2]
    y = generator.normal(size=[2, 5, 2])
    found = fit(moments_of(x, y), np.zeros([2, 8, 2]), 1e-6, intercept=True)
    assert np.isfinite(found.matrix).all()
    np.testing.assert_allclose(x @ found.matrix + found.constant[:, None], y, atol=1e-3)


@pytest.mark.parametrize("grid", [None, Grid(127)])
@pytest.mark.parametrize("same", [slice(None), slice(2)])
def test_terms_that_are_always_the_same_are_no_obstacle(rows, same, grid):
    """A layer behind a part that answers a constant: all or some of its terms, whose variance is below zero in parts of
    a rounding error. Its product is made up for by the constant."""
    x, y = rows
    x = x.copy()
    x[:, :, same] = np.float32(0.7 / 3)
    found = fit(moments_of(x, y), np.ones([1, 6, 3]), 1e-3, intercept=True, grid=grid)
    assert np.isfinite(found.matrix).all()
    np.testing.assert_allclose((x[0] @ found.matrix[0] + found.constant).mean(0), y[0].mean(0), rtol=1e-6)
    if grid is None:
        np.testing.assert_allclose(found.matrix[0, same], 1)


def test_few_rows_are_not_learned_by_heart():
    """With fewer rows than terms a strong ridge is taken, and the fit is better on other rows than what was there."""
    generator = np.random.default_rng(0)
    true = generator.normal(size=[1, 60, 4])
    start = true + 0.3 * generator.normal(size=true.shape)

    def rows(count):
        x = generator.normal(size=[1, count, 60])
        return x, x @ true + 2 * generator.normal(size=[1, count, 4])

    def error(matrix):
        return np.square(others[1] - others[0] @ matrix).mean()

    others = rows(2000)
    halves = [moments_of(*rows(40)), moments_of(*rows(40))]
    ridge = choose_ridge(halves, 40, start, 1e-4, intercept=True)
    assert ridge > 1e-2
    best = fit(halves[0] + halves[1], start, ridge, intercept=True)
    by_heart = fit(halves[0] + halves[1], start, 1e-4, intercept=True)
    assert error(best.matrix) < error(start) < error(by_heart.matrix)


def test_rows_of_few_samples_are_not_learned_by_heart():
    """Where rows of a sample are alike, many of them do not stand for many samples; enough samples are trusted."""
    generator = np.random.default_rng(0)
    true = generator.normal(size=[1, 40, 4])
    start = true + 0.1 * generator.normal(size=true.shape)

    def rows(samples, each=50):
        x = np.repeat(generator.normal(size=[1, samples, 40]), each, 1) + 0.1 * generator.normal(
            size=[1, samples * each, 40]
        )
        noise = np.repeat(generator.normal(size=[1, samples, 4]), each, 1)
        return x, x @ true + 2 * noise

    def error(matrix):
        return np.square(others[1] - others[0] @ matrix).mean()

    others = rows(500)
    halves = [moments_of(*rows(30)), moments_of(*rows(30))]
    ridge = choose_ridge(halves, 30, start, 1e-4, intercept=True)
    assert ridge > 1e-3
    found, by_heart = (fit(halves[0] + halves[1], start, value, intercept=True) for value in (ridge, 1e-4))
    assert error(found.matrix) < error(by_heart.matrix)
    assert choose_ridge(halves, 12 * 40, start, 1e-4, intercept=True) == 1e-4


def test_rows_that_say_nothing_change_nothing():
    """Targets that have nothing to do with the rows leave the matrix, and set the constant."""
    generator = np.random.default_rng(0)
    halves = [moments_of(generator.normal(size=[1, 30, 20]), 50 + generator.normal(size=[1, 30, 2])) for _ in range(2)]
    start = np.zeros([1, 20, 2])
    ridge = choose_ridge(halves, 30, start, 1e-4, intercept=True)
    assert ridge >= 1
    found = fit(halves[0] + halves[1], start, np.inf, intercept=True)
    np.testing.assert_array_equal(found.matrix, start)
    np.testing.assert_allclose(found.constant, 50, atol=1)


@pytest.mark.parametrize("mean", [0, 100])
def test_what_differs_by_rounding_alone_is_fitted_to_nothing(mean):
    """Targets that the matrix gives already, but for single precision: no ridge is better by chance."""
    for seed in range(10):
        generator = np.random.default_rng(seed)
        start = generator.normal(size=[1, 20, 3]).astype(np.float32)
        halves = []
        for _ in range(2):
            x = generator.normal(mean, 1, size=[1, 500, 20]).astype(np.float32)
            halves.append(moments_of(x.astype(np.float64), (x @ start).astype(np.float64)))
        assert choose_ridge(halves, 30, start.astype(np.float64), 1e-4, intercept=True) == np.inf
