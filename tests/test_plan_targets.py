"""A plan for several targets has for each of them what a plan for it alone has, and what they share once."""

import dataclasses

import pytest

from edgeprune import stages
from edgeprune.plan import OF_BOARD, make_plan
from edgeprune.plan_targets import plan_for
from edgeprune.recipe.load import load_recipe, parse_recipe
from edgeprune.target import load_target, load_targets

RECIPES = [
    parse_recipe({"filters": {"max_macs": 0.5}, "quantize": {"modes": ["float32", "int8"]}}, "mine.toml"),
    load_recipe("magnitude-int8"),
]


def targets(*names):
    return [load_target(name) for name in names]


def what_is_done(steps, name, target):
    """The stages that lead to a step with their configs, and the boards of those that depend on one."""
    by_name = {step.name: step for step in steps}
    done = []
    while name in by_name:
        step = by_name[name]
        board = (step.target or target).name if step.stage in OF_BOARD else None
        done.append((step.stage, step.config, board))
        name = step.after
    return done


def test_one_target_is_planned_as_before():
    """With one target, no step is about a board of its own, and nothing is added."""
    (rpi4,) = targets("rpi4")
    assert plan_for(RECIPES, [rpi4]) == make_plan(RECIPES, rpi4)


@pytest.mark.parametrize("names", [("rpi4", "rpi3"), ("rpi4", "coral-usb", "coral-dev"), ("ethos-u55-128", "rpi5")])
def test_each_target_gets_what_a_build_for_it_alone_makes(names):
    """The variants of a target come out of the same stages, with the same configs, for the same board."""
    boards = targets(*names)
    plan = plan_for(RECIPES, boards)
    for board in plan.boards:
        alone = make_plan(RECIPES, board.target)
        expected = [what_is_done(alone.steps, variant.last, board.target) for variant in alone.variants]
        assert [what_is_done(plan.steps, board.last[name], boards[0]) for name in board.own] == expected


def test_boards_that_take_the_same_files_share_all_but_the_profiles():
    """Two boards of the same kind of processor need one more profile of each file, and nothing else."""
    plan = plan_for(RECIPES, targets("rpi3", "rpi-zero2w"))
    alone = make_plan(RECIPES, load_target("rpi3"))
    more = [step for step in plan.steps if step not in alone.steps]
    assert {(step.stage, step.target.name) for step in more} == {(stages.profile, "rpi-zero2w")}
    assert len(more) == len(alone.variants)


def test_what_differs_is_named_after_its_target():
    """The int8 file of an accelerator is another one than that of a processor; two accelerators share theirs."""
    plan = plan_for(RECIPES, targets("rpi4", "coral-usb", "coral-dev"))
    names = [variant.name for variant in plan.variants]
    assert "int8" in names
    assert "int8@coral-usb" in names
    assert not any("@coral-dev" in name for name in names)
    assert len({step.name for step in plan.steps}) == len(plan.steps)


def test_every_file_is_profiled_on_every_board():
    """The matrix of variants and boards has no hole."""
    plan = plan_for(RECIPES, targets("rpi4", "coral-usb", "rpi5"))
    steps = {step.name: step for step in plan.steps}
    for board in plan.boards:
        assert board.last.keys() == {variant.name for variant in plan.variants}
        profiled = [steps[name] for name in board.last.values()]
        assert {(step.target or plan.boards[0].target).name for step in profiled} == {board.target.name}


def test_limits_without_a_name_are_for_each_target():
    """A limit of latency that names no target is about the board whose file is made."""
    recipe = parse_recipe({"filters": {"max_latency": 2.0}, "quantize": {"modes": ["int8"]}}, "mine.toml")
    plan = plan_for([recipe], targets("rpi4", "rpi3"))
    limited = [limit.target.name for step in plan.steps if step.stage is stages.filters for limit in step.config.files]
    assert limited == ["rpi4", "rpi3"]


def test_a_step_that_failed_takes_its_boards_file_along():
    """A board without a file has one variant less, the others keep it."""
    plan = plan_for(RECIPES, targets("rpi3", "rpi-zero2w"))
    other = plan.boards[1]
    left = plan.without({other.last["int8"]})
    assert "int8" not in left.boards[1].own
    assert left.boards[0] == plan.boards[0]
    assert left.variants == plan.variants
    assert dataclasses.replace(left, boards=plan.boards, steps=plan.steps) == plan


def test_all_are_those_that_come_along():
    """ "all" stands for every target, in the order in which they are listed."""
    names = [target.name for target in load_targets("all")]
    assert names == sorted(names)
    assert {"android-arm64", "arduino-nano33", "coral-dev", "rpi4"} < set(names)
    assert len(load_targets(["all"])) == len(load_targets("all"))


def test_recipes_that_make_the_same_file_each_have_it_on_every_board():
    """Steps are shared, and a file is listed under the name of each recipe, for one target as for several."""
    alike = {"quantize": {"modes": ["int8"]}, "calibration": {"range": "mse"}, "filters": {"rate": 0.5}}
    recipes = [
        parse_recipe(table, f"{name}.toml")
        for name, table in (("a", alike | {"calibration": {}}), ("b", alike), ("c", alike))
    ]
    rpi4, coral = boards = targets("rpi4", "coral-usb")
    plan = plan_for(recipes, boards)
    listed = {variant.name for variant in plan.variants}
    for board, target in zip(plan.boards, (rpi4, coral), strict=True):
        alone = [variant.name for variant in make_plan(recipes, target).variants]
        assert {"b-filters-int8", "c-filters-int8"} <= set(alone)
        assert [name.partition("@")[0] for name in board.own] == alone
        assert set(board.own) <= listed == set(board.last)
