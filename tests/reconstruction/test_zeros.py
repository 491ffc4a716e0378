"""Choosing zeros that a refit can make up for."""

import itertools

import numpy as np
import pytest

from edgeprune.recipe.granularity import choose, parse
from edgeprune.reconstruction.moments import Moments, fit
from edgeprune.reconstruction.zeros import Layer, choose_zeros

RIDGE = 1e-4


def problem(terms=12, columns=3, seed=0, importance=None):
    """A layer that reads strongly correlated terms, and the moments of its rows and outputs."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(1, 600, terms)) @ (np.eye(terms) + generator.normal(size=(terms, terms)) / 2)
    matrix = generator.normal(size=(1, terms, columns))
    moments = Moments(1, terms, columns)
    moments.add(x, x @ matrix)
    squares, *_ = moments.centered(intercept=True)
    weights = np.ones((1, columns)) if importance is None else np.asarray([importance], float)
    layer = Layer(squares, matrix, weights, lambda m: np.moveaxis(m[0], 1, 0), lambda w: np.moveaxis(w, 0, 1)[None])
    return layer, moments


def refitted_error(layer, moments, kept):
    return fit(moments, layer.matrix, RIDGE, intercept=True, mask=layer.to_matrix(kept).astype(bool)).after


def chosen(layers, sparsity, pattern="weight", scope="layer"):
    return choose_zeros(layers, lambda scores: choose(scores, parse(pattern), sparsity, scope), RIDGE)


@pytest.mark.parametrize("pattern", ["weight", "2:4", "block:1x4", "block:3x1", "connection"])
@pytest.mark.parametrize("seed", range(3))
def test_the_refit_makes_up_for_them_better_than_for_the_smallest_weights(pattern, seed):
    """In every pattern as many weights go, and the refitted error is below that of pruning by magnitude."""
    layer, moments = problem(32, 12, seed)
    (kept,) = chosen([layer], 0.5, pattern)
    (smallest,) = choose([layer.to_weight(np.square(layer.matrix))], parse(pattern), 0.5)
    assert kept.sum() == smallest.sum()
    assert refitted_error(layer, moments, kept) < 0.8 * refitted_error(layer, moments, smallest)


def test_few_weights_are_chosen_nearly_as_well_as_by_trying_all():
    """Of seven terms of one column the best four are found up to a small loss, on average over twenty problems."""
    lost = []
    for seed in range(20):
        layer, moments = problem(7, 1, seed)
        (kept,) = chosen([layer], 3 / 7)
        masks = [np.isin(np.arange(7), some)[None] for some in itertools.combinations(range(7), 4)]
        best = min(refitted_error(layer, moments, mask) for mask in masks)
        lost.append(refitted_error(layer, moments, kept) / best)
    assert min(lost) >= 1 - 1e-9
    assert np.median(lost) < 1.05


def test_terms_that_do_not_depend_on_each_other_go_by_what_they_give():
    """With a diagonal of moments, the weights with the smallest share of the output's energy go: there is no other."""
    generator = np.random.default_rng(0)
    matrix, energy = generator.normal(size=(1, 20, 4)), generator.uniform(0.1, 10, 20)
    layer = Layer(np.diag(energy)[None], matrix, np.ones((1, 4)), lambda m: m[0].T, lambda w: w.T[None])
    (kept,) = chosen([layer], 0.5)
    given = (np.square(matrix[0]) * energy[:, None]).T
    assert given[kept].min() > given[~kept].max()


def test_weights_go_where_the_answers_feel_it_least():
    """Over all layers together, the layer whose outputs matter a thousandth as much loses nearly all of the zeros."""
    felt, unfelt = problem(seed=1)[0], problem(seed=2, importance=[1e-3] * 3)[0]
    kept = chosen([felt, unfelt], 0.4, scope="global")
    assert sum((~mask).sum() for mask in kept) == round(0.4 * 72)
    assert (~kept[1]).sum() > 4 * (~kept[0]).sum()
    assert all(mask.any() for mask in kept)
