"""The search for the operators that stay in float."""

import math

import pytest

from edgeprune.quantize.mixed import search

RANKED = [f"t{i}" for i in range(24)]


def drops(needed, worst=10.0):
    """Files within the limit once `needed` operators are in float; each operator costs bytes."""
    calls = []

    def measure(tensors):
        calls.append(tensors)
        assert tensors == tuple(RANKED[: len(tensors)])
        return (0.0 if len(tensors) >= needed else worst - len(tensors) / 100), 1000 + len(tensors)

    return measure, calls


@pytest.mark.parametrize("needed", [0, 1, 2, 5, 12, 23, 24])
def test_enough_steps_find_the_fewest_operators(needed):
    """With as many steps as a search needs, the answer is exact, and the limit is met."""
    measure, calls = drops(needed)
    trials = search(RANKED, measure, max_drop=1.0, steps=30)
    (chosen,) = [trial for trial in trials if trial.chosen]
    assert chosen.met
    assert len(chosen.tensors) == needed
    assert len(calls) == len(trials) <= 3 * math.log2(len(RANKED))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_no_more_files_are_measured_than_asked_for(steps):
    """Few steps still give an answer: the best of what was measured."""
    measure, calls = drops(20)
    trials = search(RANKED, measure, max_drop=1.0, steps=steps)
    assert len(calls) == len(trials) <= steps
    assert sum(trial.chosen for trial in trials) == 1


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_the_last_step_tries_all_operators_in_float(steps):
    """Where nothing less is enough; the limit is met if it can be."""
    measure, _ = drops(len(RANKED))
    trials = search(RANKED, measure, max_drop=1.0, steps=steps)
    assert len(trials) == steps
    assert trials[-1].met
    assert trials[-1].chosen


def test_where_nothing_is_enough_the_smallest_drop_is_chosen():
    """And it says that the limit is not met."""
    measure, _ = drops(99)
    trials = search(RANKED, measure, max_drop=1.0, steps=6)
    (chosen,) = [trial for trial in trials if trial.chosen]
    assert not chosen.met
    assert chosen.drop_points == min(trial.drop_points for trial in trials)


def test_a_file_that_computes_nothing_is_not_chosen():
    """Of trials beyond the limit, one whose drop is not a number is worse than any other."""
    drops = iter([math.nan, 5.0, 4.0, 3.0])
    trials = search(RANKED, lambda tensors: (next(drops), 1), max_drop=1.0, steps=4)
    (chosen,) = [trial for trial in trials if trial.chosen]
    assert chosen.drop_points == 3.0
