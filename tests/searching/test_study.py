"""The study on disk: what was asked and found is there again, whenever the search ended."""

import itertools
import types

import pytest
from matrix import representatives

from edgeprune.errors import OutputError, UsageError
from edgeprune.recipe.load import parse_recipe
from edgeprune.recipe.space import Varies
from edgeprune.searching.goal import Goal
from edgeprune.searching.search import EXHAUSTED
from edgeprune.searching.space import Space
from edgeprune.searching.study import Study
from edgeprune.selection import Limits

FRACTION = types.SimpleNamespace(higher_is_better=True, points=100.0)
BASE = parse_recipe({"extends": "int8"}, "base").model_dump(mode="json", exclude_none=True)
BASE.pop("search", None)


def study(folder, limits=None, **changes):
    varies = {
        "finetune.epochs": Varies(choices=(0, 4)),
        "filters.max_macs": Varies(low=0.3, high=0.9, step=0.1),
        "distill": Varies(choices=(True, False)),
    }
    space = Space(BASE, varies, ({"finetune.epochs": 0, "filters.max_macs": 0.5},))
    goal = Goal(("accuracy", "latency"), limits or Limits(max_drop=2), FRACTION, 0.9)
    return Study(folder, "rpi4", space, goal, **{"seed": 0, "sampler": "tpe", "inputs": {}, **changes})


def made(value, ms):
    return {"figures": {"value": value, "latency_ms": ms, "bytes": 10, "gzip_bytes": 5}, "stages": [], "seconds": 1.0}


def climb(one, record):
    """Give every rung of a trial figures that follow from its recipe."""
    while record.state == "running" and record.left:
        rung, recipe = next(iter(record.left.items()))
        share = recipe.filters.max_macs
        one.note(record, rung.name, made(0.5 + 0.4 * share + 0.02 * recipe.finetune.epochs, share))
    if record.state == "running":
        one.end(record, "complete")


def outline(one):
    return [(record.number, record.state, record.params, record.rungs) for record in one.records]


def test_the_first_trial_is_the_one_that_was_given(tmp_path):
    """The others are Optuna's; what builds the same as an earlier one is not built again, and does not count."""
    one = study(tmp_path)
    for _ in range(40):
        climb(one, one.ask())
    assert one.records[0].params == {"finetune.epochs": 0, "filters.max_macs": 0.5}
    states = [record.state for record in one.records]
    assert states.count("repeated") > 5
    built = [record.built for record in one.records if record.state == "complete"]
    assert len(set(built)) == len(built) == one.counted
    again = next(record for record in one.records if record.state == "repeated")
    assert again.rungs == one.records[int(again.reason.split()[-1])].rungs
    assert set(one.importances()) <= {"finetune.epochs", "filters.max_macs", "distill"}


SAMPLERS = ("tpe", "nsga2", "random")


@pytest.mark.parametrize(
    ("sampler", "seed"),
    representatives(itertools.product(SAMPLERS, range(3)), ("tpe", 0), ("random", 0)),
)
def test_a_sampler_that_only_repeats_itself_does_not_end_a_search(tmp_path, sampler, seed):
    """Before thirty repetitions in a row, all that the space holds was tried: 14 recipes that train, 7 others."""
    one, in_a_row = study(tmp_path, sampler=sampler, seed=seed), 0
    while in_a_row < EXHAUSTED:
        climb(one, record := one.ask())
        in_a_row = in_a_row + 1 if record.state == "repeated" else 0
    assert one.counted == 21


def test_a_study_that_broke_off_anywhere_goes_on_as_if_it_had_not(tmp_path):
    """Trials, rungs and what is asked next are the same as of a study that was never interrupted."""
    (tmp_path / "whole").mkdir()
    whole = study(tmp_path / "whole")
    for _ in range(14):
        climb(whole, whole.ask())
    (tmp_path / "broken").mkdir()
    for number in range(14):
        one = study(tmp_path / "broken")
        assert outline(one) == outline(whole)[:number]
        record = one.ask()
        assert not record.is_left_over
        if record.state == "running" and len(record.steps) > 1 and number % 2:
            rung, recipe = next(iter(record.left.items()))
            share = recipe.filters.max_macs
            one.note(record, rung.name, made(0.5 + 0.4 * share + 0.02 * recipe.finetune.epochs, share))
        one = study(tmp_path / "broken")  # as after kill -9
        for record in one.unfinished:
            climb(one, record)
    assert outline(study(tmp_path / "broken")) == outline(whole)


def planned(folder, **changes):
    """A study of a space with plans, whose trials climb; the budgets of those with all of the training."""
    varies = {
        "finetune.epochs": Varies(choices=(0, 4)),
        "filters.max_macs": Varies(low=0.3, high=0.9, step=0.1),
        "filters.max_params": Varies(choices=(0.99, 0.7, 0.5)),
    }
    thorough = {"finetune.epochs": 4}
    first = tuple(
        {**thorough, "filters.max_macs": macs, "filters.max_params": p} for macs, p in ((0.8, 0.7), (0.4, 0.5))
    )
    then = ({**thorough, "filters.max_macs": 0.9, "filters.max_params": 0.99},)
    space = Space(BASE, varies, first, then, thorough)
    goal = Goal(("accuracy", "latency"), Limits(max_drop=2), FRACTION, 0.9)
    return Study(folder, "rpi4", space, goal, **{"seed": 0, "sampler": "tpe", "inputs": {}, **changes})


def trained(one, number, least=0.9):
    """The limits of so many trials in their order, where a file loses 20 points per share that goes below ``least``."""
    found = []
    for _ in range(number):
        record = one.ask()
        found.append((record.params["filters.max_macs"], record.params.get("filters.max_params")))
        while record.left:
            rung, recipe = next(iter(record.left.items()))
            share = recipe.filters.max_macs
            one.note(record, rung.name, made(0.9 - 0.2 * max(0, least - share), share))
        one.end(record, "complete")
    return found


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        # 0.4 misses two points, 0.8 keeps them: between them, and again between 0.6, which keeps them, and 0.4.
        (0.65, [(0.8, 0.7), (0.4, 0.5), (0.6, 0.7), (0.5, 0.7), (0.9, 0.99)]),
        # 0.4 keeps them: below.
        (0.45, [(0.8, 0.7), (0.4, 0.5), (0.9, 0.99)]),
        # Both miss them: above.
        (0.99, [(0.8, 0.7), (0.4, 0.5), (0.9, 0.99)]),
    ],
)
def test_the_fastest_file_that_keeps_the_goal_is_closed_in_on(tmp_path, least, expected):
    """Between the widest budget that misses the drop and the next one; then comes what was planned, then Optuna. A
    study that is opened again for every trial plans the same."""
    assert trained(planned(tmp_path), len(expected), least) == expected
    again = [one for _ in expected for one in trained(planned(tmp_path, seed=1), 1, least)]
    assert again == expected


def test_nothing_is_closed_in_on_while_nothing_is_known(tmp_path):
    """As long as the first trials are under way, what was planned comes next."""
    one = planned(tmp_path)
    budgets = [one.ask().params["filters.max_macs"] for _ in range(3)]
    assert budgets == [0.8, 0.4, 0.9]


def test_a_trial_that_was_stopped_says_nothing_of_the_goal(tmp_path):
    """Its figure is from before its training: budgets above one that misses the goal are tried, however 0.8 began."""
    one = planned(tmp_path)
    stopped = one.ask()
    one.note(stopped, "reconstructed", made(0.5, 0.8))
    one.end(stopped, "stopped", "its limits choose the same channels as those of trial 0")
    assert [macs for macs, _ in trained(one, 2, least=0.65)] == [0.4, 0.7]


def test_what_a_rung_takes_is_expected_by_its_epochs(tmp_path):
    """Nothing is expected of what trains nothing, or where nothing was trained yet."""
    one = planned(tmp_path)
    first, second = one.ask(), one.ask()
    rung, *_, full = first.left
    assert one.expected(first.left[full]) is None
    one.note(first, rung.name, made(0.8, 1.0))
    assert one.expected(second.left[full]) is None
    one.note(first, full.name, {**made(0.8, 1.0), "seconds": 40.0})
    assert one.expected(second.left[full]) == 40.0
    assert one.expected(second.left[rung]) is None


def test_a_line_that_was_not_written_to_its_end_is_no_obstacle(tmp_path):
    """A journal cut off anywhere in its last line, as by kill -9, is the journal without that line."""
    one = study(tmp_path)
    for _ in range(2):
        climb(one, one.ask())
    journal = tmp_path / "search.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-7])
    again = study(tmp_path)
    assert [record.state for record in again.records] == ["complete", "running"]
    assert [record.is_left_over for record in again.records] == [False, True]
    for record in again.unfinished:
        climb(again, record)
    assert outline(study(tmp_path)) == outline(one)
    assert not list(tmp_path.glob("*.lock"))


def test_a_twin_has_other_limits_and_the_same_file(tmp_path):
    """Not one that differs in anything else, or whose file does, or that failed; and only an earlier one."""
    one = study(tmp_path, inputs={"twins": True})
    trained = []
    while len(trained) < 4:
        record = one.ask()
        if record.state == "running" and record.recipe.finetune.epochs:
            one.note(record, "reconstructed", made(0.8, 1.0))
            trained.append(record)
    for number, record in enumerate(trained):
        alike = [
            other
            for other in trained[:number]
            if bool(other.recipe.distill) == bool(record.recipe.distill)
            and other.recipe.filters.max_macs != record.recipe.filters.max_macs
        ]
        assert one.twin(record) is (alike[0] if alike else None)
    assert any(one.twin(record) for record in trained)
    found = next(record for record in trained if one.twin(record))
    twin = one.twin(found)
    one.end(twin, "failed")
    assert one.twin(found) is not twin
    one.note(found, "reconstructed", made(0.7, 1.0))
    assert one.twin(found) is None


def test_another_goal_is_another_study(tmp_path):
    """What was learned for one set of limits says nothing about another one; the journal holds both."""
    one = study(tmp_path)
    climb(one, one.ask())
    assert study(tmp_path, Limits(max_drop=3)).records == []
    assert study(tmp_path, seed=1).records == []
    assert len(study(tmp_path).records) == 1


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_every_sampler_asks(tmp_path, sampler):
    """Failed trials are no obstacle."""
    one = study(tmp_path, sampler=sampler)
    for number in range(12):
        record = one.ask()
        if record.state == "running" and number % 3 == 0:
            one.end(record, "failed", "it does not fit")
        climb(one, record)
    assert {record.state for record in one.records} >= {"failed", "complete"}
    assert outline(study(tmp_path, sampler=sampler)) == outline(one)


def test_a_recipe_that_failed_is_not_tried_again(tmp_path):
    """It counts once, and all that the space holds is tried all the same; another start may try it anew."""
    one, tried, in_a_row = study(tmp_path), [], 0
    while in_a_row < EXHAUSTED:
        record = one.ask()
        in_a_row = in_a_row + 1 if record.state == "repeated" else 0
        if record.state == "running" and record.recipe.filters.max_macs < 0.65:
            tried.append(record.built)
            one.end(record, "failed", "it cannot be made")
        climb(one, record)
    assert len(set(tried)) == len(tried) == 12
    assert one.counted == 21
    again = study(tmp_path)
    assert outline(again) == outline(one)
    assert [record.reason for record in again.records] == [record.reason for record in one.records]


@pytest.mark.parametrize("line", [b"garbage", b"{}", b"[]", b"\0" * 80, b"\xff\xfe" * 9])
def test_a_damaged_journal_is_said_in_words(line, tmp_path):
    """With the way out: what was built is taken from the stages."""
    one = study(tmp_path)
    climb(one, one.ask())
    journal = tmp_path / "search.journal"
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(UsageError, match=r"search.journal, is damaged") as caught:
        study(tmp_path)
    assert "move it away" in str(caught.value)


def test_a_journal_that_cannot_be_written_is_said_in_words(tmp_path, monkeypatch):
    """A disk that is full, in the middle of a trial: nothing of what was told before is lost."""
    one = study(tmp_path)
    climb(one, one.ask())
    record = one.ask()

    def full(self, logs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("optuna.storages.journal.JournalFileBackend.append_logs", full)
        rung = next(iter(record.left))
        with pytest.raises(OutputError, match="no space left"):
            one.note(record, rung.name, made(0.9, 1.0))
    assert [record.state for record in study(tmp_path).records] == ["complete", "running"]
