"""The Lagrangian relaxation of allocations: what it says is true of every choice."""

import itertools

import numpy as np
import pytest

from edgeprune.prune.choice.relaxation import relaxed


def _random(seed):
    """Axes that hang together in random twos and threes, one or two costs."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 6, 5).tolist()

    def tables(count, own=1.0):
        found = {(axis,): own * np.sort(random.random(size))[::-1] for axis, size in enumerate(sizes)}
        for _ in range(count):
            key = tuple(sorted(random.choice(5, random.integers(2, 4), replace=False).tolist()))
            found[key] = random.random([sizes[axis] for axis in key])
        return {(): np.array(random.random()), **found}

    loss = {key: values if len(key) > 1 else values[..., ::-1] for key, values in tables(1).items() if key}
    costs = []
    for _ in range(random.integers(1, 3)):
        cost = tables(2)
        most = random.uniform(1.5, 4.0)
        costs.append({key: values / most for key, values in cost.items()})
    return sizes, loss, costs


def _value(tables, options):
    return sum(float(values[tuple(options[axis] for axis in key)]) for key, values in tables.items())


@pytest.mark.parametrize("seed", range(100))
def test_no_choice_is_below_the_bound_and_no_better_one_is_lost(seed):
    """The bound holds for all choices, the choice keeps the limits, and the best of all takes useful options only."""
    sizes, loss, costs = _random(seed)
    found = relaxed(sizes, loss, costs, 1e-4)
    every = itertools.product(*map(range, sizes))
    kept = [options for options in every if all(_value(cost, options) <= 1 for cost in costs)]
    if not kept:
        assert found.options is None
        return
    best = min(kept, key=lambda options: _value(loss, options))
    assert found.bound <= _value(loss, best) + 1e-9
    if found.options is not None:
        assert tuple(found.options.tolist()) in kept
        assert found.loss == pytest.approx(_value(loss, found.options))
    assert all(option in some for option, some in zip(best, found.useful, strict=True))


def test_without_costs_the_choice_is_the_best():
    """Nothing is limited: elimination gives the least sum, and the least of the choices with each option."""
    sizes, loss, _ = _random(3)
    found = relaxed(sizes, loss, [], 1e-4)
    least = min(_value(loss, options) for options in itertools.product(*map(range, sizes)))
    assert found.loss == pytest.approx(least)
    assert found.bound == pytest.approx(least)


def test_axes_that_all_hang_together_are_left_to_the_solver():
    """Twelve axes of thirty options in pairs of all with all would need tables of thirty to the twelfth."""
    pairs = {key: np.zeros((30, 30)) for key in itertools.combinations(range(12), 2)}
    assert relaxed([30] * 12, pairs, [], 1e-4) is None
