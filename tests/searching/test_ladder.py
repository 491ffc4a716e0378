"""The ladder: what is built on each rung, and which trials go on."""

import types

import pytest

from edgeprune.recipe.config import Recipe
from edgeprune.recipe.load import builtin_names, load_recipe, parse_recipe
from edgeprune.searching.goal import Goal
from edgeprune.searching.ladder import ENOUGH, RUNGS, Climb, following, ladder, least_drop, may_reach
from edgeprune.selection import Limits

FRACTION = types.SimpleNamespace(higher_is_better=True, points=100.0)


def figures(drop, ms=2.0, size=1000):
    return {"value": 0.9 - drop / 100, "drop": drop, "latency_ms": ms, "bytes": size, "gzip_bytes": size // 2}


def goal(**limits):
    return Goal(("accuracy", "latency", "size"), Limits(**limits), FRACTION, 0.9)


@pytest.mark.parametrize("name", builtin_names())
def test_every_rung_of_every_builtin_recipe_is_a_recipe(name):
    """They end with the recipe in full, differ from each other, and train no less from rung to rung."""
    recipe = load_recipe(name)
    rungs = ladder(recipe)
    assert rungs[-1][0].name == "full"
    assert len({made.to_toml() for _, made in rungs}) == len(rungs)
    for _, made in rungs:
        assert Recipe.model_validate(made.model_dump()) == made
    epochs = [made.finetune.epochs for _, made in rungs]
    assert epochs == sorted(epochs)


def test_the_cheapest_rung_trains_nothing_and_forgets_what_training_needs():
    """Trials that differ in nothing but training share it."""
    trained = {"extends": "filters-qat", "finetune": {"epochs": 8, "learning_rate": 0.01}, "augment": {"flip": True}}
    one, other = (ladder(parse_recipe(table, "x"))[0][1] for table in (trained, {"extends": "filters-int8"}))
    assert one.finetune.epochs == 0
    assert (one.qat, one.distill) == (None, None)
    assert one == other
    few = ladder(parse_recipe(trained, "x"))[1][1]
    assert few.finetune.epochs == 2
    assert few.qat.epochs == 1


def test_a_recipe_that_changes_nothing_is_not_trained():
    """Epochs and a teacher make no other file of a model as it is."""
    plain, taught = ({"extends": "int8", **more} for more in ({}, {"finetune": {"epochs": 8}, "distill": {}}))
    (one,), (other,) = (ladder(parse_recipe(table, "x.toml")) for table in (plain, taught))
    assert one == other


def test_a_repair_matches_answers_at_the_top_only():
    """What takes most of the time of a trial without training is left to those that reach the top; a recipe without
    it, and without training, has one rung."""
    assert [(rung.name, made.reconstruct.match) for rung, made in ladder(load_recipe("oneshot"))] == [
        ("reconstructed", "layers"),
        ("full", "answers"),
    ]
    trained = ladder(parse_recipe({"extends": "filters-int8", "finetune": {"epochs": 8}}, "x"))
    assert [made.reconstruct.match for _, made in trained] == ["layers", "layers", "answers"]
    quick = parse_recipe({"extends": "oneshot", "reconstruct": {"match": "layers"}}, "x")
    assert [rung.name for rung, _ in ladder(quick)] == ["full"]


@pytest.mark.parametrize(("epochs", "trained"), [(1, [0, 1]), (2, [0, 2]), (3, [0, 1, 3]), (8, [0, 2, 8])])
def test_a_rung_trains_for_less_than_half(epochs, trained):
    """A quarter, rounded up; where that is half of all or more, it is left out."""
    recipe = parse_recipe({"extends": "filters-int8", "finetune": {"epochs": epochs}}, "x")
    assert [made.finetune.epochs for _, made in ladder(recipe)] == trained


def test_what_a_repair_matches_is_nothing_where_nothing_is_repaired():
    """A recipe that rounds only has one rung, whatever it says of repairs."""
    one, other = ({"extends": "int8", "reconstruct": {"match": match}} for match in ("layers", "answers"))
    (a,), (b,) = (ladder(parse_recipe(table, "x.toml")) for table in (one, other))
    assert a == b


def test_training_cannot_cure_latency_and_size():
    """A trial that misses one of them ends on the first rung."""
    going, why = may_reach("reconstructed", figures(0.0, ms=6.0), goal(max_latency=5), [], [])
    assert not going
    assert "max_latency" in why
    assert may_reach("reconstructed", figures(50.0, ms=4.0), goal(max_latency=5), [], [])[0]


CLIMBS = [Climb({"reconstructed": 10.0 + number}, 5.0) for number in range(ENOUGH)]


def test_a_trial_stops_where_another_file_is_expected_to_stay_better():
    """Before enough trials climbed, those go on that could be on the front with the best known accuracy; then, those
    whose hopes lie above what is known."""
    fast, accurate = figures(4.0, ms=1.0), figures(1.0, ms=3.0)
    hopeless, hopeful = figures(60.0, ms=2.0), figures(60.0, ms=0.5)
    slow = [Climb({"reconstructed": 60.0 + number}, 50.0) for number in range(ENOUGH)]
    assert may_reach("reconstructed", hopeless, goal(), [fast, accurate], slow[1:])[0]
    assert not may_reach("reconstructed", hopeless, goal(), [fast], slow[1:])[0]
    assert not may_reach("reconstructed", figures(60.0, ms=3.5), goal(), [fast, accurate], slow[1:])[0]
    going, why = may_reach("reconstructed", hopeless, goal(), [fast], slow)
    assert not going
    assert "stay better" in why
    assert may_reach("reconstructed", hopeful, goal(), [fast], slow)[0]


def test_few_epochs_are_trained_only_where_they_may_spare_more():
    """Until enough trials climbed to the top, nothing stops one on its way, and it goes there at once; trials that have
    one rung teach nothing of it."""
    _, few, full = RUNGS
    one, climbs = Climb({"full": 3.0}, 3.0), [Climb({"reconstructed": 9.0, "full": 3.0}, 3.0)] * ENOUGH
    assert following([few, full], [*climbs[1:], one], lambda rung: True) == full
    assert following([few, full], climbs, lambda rung: True) == few
    assert following([full], climbs, lambda rung: True) == full


def test_a_rung_that_would_not_end_in_time_gives_way_to_the_one_below_it():
    """None is left where neither would."""
    _, few, full = RUNGS
    assert following([few, full], [], lambda rung: rung != full) == few
    assert following([few, full], [], lambda rung: False) is None
    assert following([full], [], lambda rung: rung != full) is None


def test_where_the_goal_is_met_already_a_trial_must_be_able_to_meet_it():
    """A faster file that will lose too much is of no use to anybody then."""
    met, fast = figures(1.0, ms=1.0), figures(60.0, ms=0.5)
    slow = [Climb({"reconstructed": 60.0 + number}, 50.0) for number in range(ENOUGH)]
    assert not may_reach("reconstructed", fast, goal(max_drop=2), [met], slow)[0]
    assert may_reach("reconstructed", fast, goal(max_drop=2), [figures(3.0)], slow)[0]


def test_hopes_come_from_the_trials_that_were_nearest():
    """They are never better than the best known, nor worse than what the trial has."""
    assert least_drop("reconstructed", 10.0, [figures(1.0)], CLIMBS) == pytest.approx(10 - 9 * 7 / 11)
    assert least_drop("reconstructed", 3.0, [figures(4.0)], CLIMBS) == 3.0
    assert least_drop("few epochs", 10.0, [figures(1.0)], CLIMBS) == 1.0
