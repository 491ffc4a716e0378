"""Allocations as integer programs: the least loss under every limit, as trying everything finds it."""

import dataclasses
import itertools

import numpy as np
import pytest
from matrix import representatives

from edgeprune.prune.choice.program import Infeasible, Limit, Program, Total, evaluate


def _random_program(seed):
    """Two to four axes, tables over one and two of them, one or two limits, of which some are maxima of two costs."""
    random = np.random.default_rng(seed)
    sizes = random.integers(2, 6, random.integers(2, 5)).tolist()
    pairs = list(itertools.combinations(range(len(sizes)), 2))

    def cost():
        tables = {(): np.array(random.random())}
        for axis, size in enumerate(sizes):
            tables[axis,] = np.sort(random.random(size))[::-1]
        for index in random.permutation(len(pairs))[: random.integers(len(pairs) + 1)]:
            tables[pairs[index]] = random.random([sizes[axis] for axis in pairs[index]])
        return tables

    limits = [
        Limit(name, tuple(cost() for _ in range(random.integers(1, 3))), float(random.uniform(0.8, 3.0)))
        for name in ("a", "b")[: random.integers(1, 3)]
    ]
    return Program(sizes, {(axis,): np.sort(random.random(size)) for axis, size in enumerate(sizes)}, limits)


def _tried(program):
    """Every choice, its loss, and its share of every limit."""
    for options in itertools.product(*map(range, program.sizes)):
        chosen = np.array(options)
        shares = [
            max(evaluate(cost, program.sizes, chosen, program.totals) for cost in limit.costs) / limit.most
            for limit in program.limits
        ]
        yield evaluate(program.loss, program.sizes, chosen, program.totals), shares


@pytest.mark.parametrize("start", representatives(range(0, 200, 25), 0))
def test_the_choice_is_the_best_of_all(start):
    """On twenty-five random programs, the loss is that of the best choice, and what cannot be had is refused."""
    solved = 0
    for seed in range(start, start + 25):
        program = _random_program(seed)
        tried = list(_tried(program))
        best = min((loss for loss, shares in tried if max(shares) <= 1), default=None)
        if best is None:
            with pytest.raises(Infeasible) as caught:
                program.solve(gap=0)
            share = max(caught.value.nearest[limit.name] / limit.most for limit in program.limits)
            assert share == pytest.approx(min(max(shares) for _, shares in tried), rel=2e-3), seed
            continue
        solution = program.solve(gap=0)
        solved += 1
        assert solution.loss == pytest.approx(best, abs=1e-6), seed
        assert solution.bound <= solution.loss
        assert solution.gap <= 1e-6
    assert 5 < solved < 25


@pytest.mark.parametrize("seed", range(5))
def test_options_that_nobody_would_take_cost_no_precision(seed):
    """With one option of every axis far worse than all others, the choice is as good as with a moderate loss there."""
    random = np.random.default_rng(seed)
    sizes = [30] * 12
    costs = {(axis,): np.linspace(random.uniform(1, 2), 0, 30) for axis in range(12)}
    curves = {(axis,): np.cumsum(random.random(30) * np.linspace(0, 1, 30) ** 2) for axis in range(12)}
    limits = [Limit("a", (costs,), 0.6 * sum(float(table[0]) for table in costs.values()))]

    def solved(worst):
        loss = {axes: np.append(curve[:-1], worst) for axes, curve in curves.items()}
        return Program(sizes, loss, limits).solve()

    expected, found = solved(100.0), solved(1e11)
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    assert found.gap < 1e-3


def test_a_total_is_exact_where_costs_are_linear_in_it():
    """A sum of five axes times a sixth costs, over one axis for the sum, what a table over all six says."""
    random = np.random.default_rng(0)
    parts = {(axis,): np.arange(1.0, 5.0)[::-1] for axis in range(5)}
    total = Total(parts, np.array([5.0, 20.0]))
    times = np.array([3.0, 2.0, 1.0])
    loss = {(axis,): np.sort(random.random(size)) for axis, size in enumerate([4] * 5 + [3])}
    cost = {(5, 6): np.outer(times, total.points)}
    program = Program([4] * 5 + [3], loss, [Limit("a", (cost,), 22.0)], [total])
    best = min(
        sum(loss[axis,][option] for axis, option in enumerate(options))
        for options in itertools.product(*map(range, program.sizes))
        if sum(parts[axis,][options[axis]] for axis in range(5)) * times[options[5]] <= 22.0
    )
    assert program.solve(gap=0).loss == pytest.approx(best, abs=1e-6)


def test_prices_tell_what_a_limit_costs():
    """The price of a limit that binds is the slope of the loss, that of one that does not bind is nothing."""
    loss = {(0,): 10 - np.linspace(10, 0, 101)}
    cost = {(0,): np.linspace(100, 0, 101)}
    program = Program([101], loss, [Limit("tight", (cost,), 50.0), Limit("loose", (cost,), 90.0)])
    prices = program.solve().prices
    assert prices["tight"] == pytest.approx(0.05)
    assert prices["loose"] == pytest.approx(0.0)


def test_a_choice_without_rivals_is_the_best():
    """Where the relaxation leaves every axis one option, its choice is returned, and the bound is its loss."""
    loss = {(0,): np.array([0.0, 1.0]), (1,): np.array([0.0, 2.0])}
    cost = {(0,): np.array([2.0, 1.0]), (1,): np.array([2.0, 1.0])}
    program = Program([2, 2], loss, [Limit("macs", (cost,), 3.0)])
    best = dataclasses.replace(program.solve(), bound=-1.0)
    found = program._searched(best, [np.array([], int)] * 2, 1.0, 1e-3)
    assert (found.options.tolist(), found.loss, found.bound) == ([1, 0], 1.0, 1.0)


def test_a_limit_of_nothing_is_kept():
    """As of filters, where every group has a rate of its own: what costs anything is out, and nothing divides by it."""
    costs = {(0,): np.array([2.0, 1.0, 0.0]), (1,): np.zeros(2)}
    loss = {(0,): np.array([0.0, 1.0, 2.0]), (1,): np.array([0.0, 1.0])}
    assert Program([3, 2], loss, [Limit("a", (costs,), 0.0)]).solve().options.tolist() == [2, 0]
    free = {(0,): np.zeros(3), (1,): np.zeros(2)}
    assert Program([3, 2], loss, [Limit("a", (free,), 0.0)]).solve().options.tolist() == [0, 0]
