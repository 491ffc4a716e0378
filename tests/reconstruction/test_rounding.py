"""Rounding weights by their moments."""

import numpy as np
import pytest

from edgeprune.reconstruction.rounding import Grid, nearest, round_weights


def correlated(terms=40, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(500, terms)) @ (np.eye(terms) + generator.normal(size=(terms, terms)) / 3)
    return x.T @ x / len(x) + 1e-3 * np.eye(terms)


def error(squares, change):
    return float((change * (squares @ change)).sum())


@pytest.mark.parametrize("levels", [7, 127])
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_whole_multiples_of_a_scale_that_their_largest_gives(levels, seed):
    """What is on the grid is found again from the largest magnitude of each column, which is how converters do it."""
    squares = correlated(seed=seed)
    matrix = np.random.default_rng(seed).normal(size=(40, 9))
    mask = np.random.default_rng(seed + 9).random(matrix.shape) > 0.4
    found = round_weights(squares, matrix * mask, Grid(levels), mask)
    integers = found / (np.abs(found).max(0) / levels)
    np.testing.assert_allclose(integers, np.round(integers), atol=1e-9)
    assert not found[~mask].any()
    np.testing.assert_allclose(nearest(found[None], levels)[0], found, atol=1e-12)


@pytest.mark.parametrize("levels", [7, 127])
@pytest.mark.parametrize("seed", range(3))
def test_other_weights_make_up_for_what_one_loses(levels, seed):
    """The error of the outputs is far below that of rounding to nearest."""
    squares, matrix = correlated(seed=seed), np.random.default_rng(seed).normal(size=(40, 9))
    found = round_weights(squares, matrix, Grid(levels), None)
    assert error(squares, found - matrix) < 0.7 * error(squares, nearest(matrix[None], levels)[0] - matrix)


def test_weights_on_the_grid_stay():
    """What is a multiple of its scale already has nothing to lose."""
    generator = np.random.default_rng(0)
    integers = generator.integers(-7, 8, (40, 5))
    integers[0] = [7, -7, 7, 7, -7]
    matrix = integers * generator.uniform(0.1, 2, 5)
    np.testing.assert_allclose(round_weights(correlated(), matrix, Grid(7), None), matrix, atol=1e-9)


def test_a_column_of_zeros_stays_zero():
    matrix = np.random.default_rng(0).normal(size=(40, 3)) * [1, 0, 1]
    assert not round_weights(correlated(), matrix, Grid(7), matrix != 0)[:, 1].any()


def test_the_grid_ends_where_the_error_is_smallest():
    """One outlier among small weights is clipped where its term matters little, and kept where it matters."""
    matrix = np.random.default_rng(0).normal(size=(200, 1))
    matrix[3] = 8
    energy = np.ones(200)
    energy[3] = 1e-3
    clipped, kept = (round_weights(np.diag(some), matrix, Grid(7), None)[3, 0] for some in (energy, 1 / energy))
    assert clipped == pytest.approx(4)
    assert kept == pytest.approx(8)


def test_a_dead_zone_makes_zeros():
    """Weights below it become zero, the larger ones are rounded as ever, and fewer zeros remain without one."""
    matrix = np.random.default_rng(4).normal(size=(12, 3))
    counts = [(round_weights(np.eye(12), matrix, Grid(5, dead), None) == 0).sum() for dead in (0.5, 0.9, 1.5)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2]


def test_a_coarse_grid_is_spread_over_the_integers_of_a_file():
    """A file of eight bits stores each of its values as a whole number, with the scale of the largest weight."""
    matrix = np.random.default_rng(5).normal(size=(12, 3))
    found = round_weights(correlated(12), matrix, Grid(5, stored=127), None)
    integers = found / np.abs(found).max(0) * 127
    np.testing.assert_allclose(integers, np.round(integers), atol=1e-9)
    assert len(np.unique(np.abs(np.round(integers)))) <= 6
