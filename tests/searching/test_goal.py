"""Fronts, picks, and what is said about a goal."""

import itertools
import types

import numpy as np
import pytest

from edgeprune.errors import UsageError
from edgeprune.recipe.config import Recipe
from edgeprune.searching.goal import Goal, parse_objectives
from edgeprune.searching.results import Found, verdict
from edgeprune.selection import Limits

FRACTION = types.SimpleNamespace(higher_is_better=True, points=100.0)


def goal(*objectives, **limits):
    return Goal(objectives or ("accuracy", "latency", "size"), Limits(**limits), FRACTION, 0.9)


def figures(drop, ms, size=1000):
    return {"value": 0.9 - drop / 100, "drop": drop, "latency_ms": ms, "bytes": size, "gzip_bytes": size // 2}


def itself(item):
    return item


def test_a_latency_that_is_not_known_is_lacked_only_where_it_is_asked_for():
    """By an objective or by a limit."""
    assert goal().lacks_latency(figures(1.0, None))
    assert goal("accuracy", "size", max_latency=3.0).lacks_latency(figures(1.0, None))
    assert not goal("accuracy", "size").lacks_latency(figures(1.0, None))
    assert not goal().lacks_latency(figures(1.0, 2.0))


def test_the_front_is_what_no_other_file_beats():
    """Against the definition, on random files of few different values; of equal files the first counts."""
    random = np.random.default_rng(0)
    for _ in range(30):
        items = [figures(*map(float, random.integers(0, 4, 2)), int(random.integers(1, 4))) for _ in range(12)]
        front = goal().front(items, itself)
        costs = [goal().costs(item) for item in items]
        for index, item in enumerate(items):
            beaten = any(all(np.less_equal(other, costs[index])) and other != costs[index] for other in costs)
            assert any(item is one for one in front) == (not beaten and costs.index(costs[index]) == index)
        assert len({goal().costs(item) for item in front}) == len(front)


@pytest.mark.parametrize(
    ("limits", "best"),
    [
        ({"max_drop": 2}, (1.5, 2.0)),  # the fastest that loses no more
        ({"max_latency": 3.0}, (0.5, 3.0)),  # the most accurate that is fast enough ... within the allowed drop
        ({"max_drop": 0.1}, (0.5, 3.0)),  # none: the one that misses least
    ],
)
def test_the_pick_is_best_in_what_the_goal_leaves_open(limits, best):
    """It keeps all limits; among those within a tenth of the best, the one that loses least."""
    items = [figures(0.5, 3.0, 900), figures(1.5, 2.0, 800), figures(1.9, 1.95, 800), figures(9.0, 1.0, 500)]
    objectives = ("accuracy", "latency") if "max_latency" in limits else ("accuracy", "latency", "size")
    found = goal(*objectives, **limits).best(items, itself)
    assert (found["drop"], found["latency_ms"]) == best


def test_no_file_no_pick():
    """Before a trial has ended there is nothing to hand over."""
    assert goal().best([], itself) is None
    assert verdict(goal(max_drop=1), None) == (False, "No trial has ended well yet.")


def test_a_missed_goal_says_by_how_much_and_which_limit_binds():
    """Limits that are kept are named beside it."""
    found = Found("rpi4", 3, "full", Recipe(), figures(3.3, 4.0))
    met, words = verdict(goal(max_drop=2, max_latency=5), found)
    assert not met
    assert "max_drop is missed by 1.30 points (3.30 points, at most 2.00 points), on validation data" in words
    assert "keeps max_latency with 4 ms of at most 5 ms" in words
    met, words = verdict(goal(max_drop=4, max_latency=5), found)
    assert met
    assert "trial 3 (full)" in words


def test_gates_on_test_data_decide():
    """What a file lost on validation does not count once it was tested."""
    gates = [{"name": "max_drop", "limit": 2.0, "value": 2.5, "passed": False}]
    met, words = verdict(goal(max_drop=2), Found("rpi4", 3, "full", Recipe(), figures(1.0, 4.0), gates=gates))
    assert not met
    assert "missed by 0.50 points" in words
    assert "on test data" in words


def test_objectives_are_read():
    """Each once; unknown names come with the nearest."""
    assert parse_objectives("latency, size,latency") == ("latency", "size")
    with pytest.raises(UsageError, match="did you mean 'latency'"):
        parse_objectives("latncy")


def test_constraints_are_negative_where_limits_are_kept():
    """As Optuna wants them, for every limit and for the drop that is allowed anyway."""
    limits = goal(max_latency=4.0, max_size=1000)
    for drop, ms, size in itertools.product((1.0, 3.0), (3.0, 5.0), (900, 1100)):
        excess = limits.excess(figures(drop, ms, size))
        assert {name: value > 0 for name, value in excess.items()} == {
            "max_drop": drop > 2, "max_latency": ms > 4, "max_size": size > 1000,
        }  # fmt: skip


def test_memory_of_microcontrollers_is_a_limit_and_an_objective():
    """Flash and RAM have to be kept; a file that has neither keeps no limit and is beaten by any that has."""
    chosen = goal("accuracy", "flash", max_flash=100, max_ram=50)
    kept = {**figures(1, None), "flash_bytes": 90, "ram_bytes": 50}
    assert chosen.met(kept)
    assert chosen.excess({**kept, "ram_bytes": 75})["max_ram"] == pytest.approx(0.5)
    assert not chosen.met(figures(1, None))
    assert chosen.front([figures(1, None), kept], itself) == [kept]
