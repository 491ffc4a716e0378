"""Schedules: where they begin, where they end, and that they never go back."""

import pytest

from edgeprune.prune.weights.schedule import SCHEDULES, Exponential, OneCycle, final_epoch, updates
from edgeprune.recipe.config import WeightsConfig
from edgeprune.target import ChannelSteps


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("final", [0.1, 0.5, 0.95])
def test_every_schedule_rises_to_exactly_the_final_sparsity(name, final):
    """Fractions lie in [0, 1], never fall, and end at 1."""
    curve = SCHEDULES[name](final, 2.0)
    fractions = [curve.fraction(step / 100) for step in range(101)]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0
    assert fractions[-1] == pytest.approx(1, abs=1e-12)


def test_gradual_schedules_begin_at_nothing_and_the_others_with_everything():
    """One cycle starts within one percent of zero, as its logistic curve does."""
    start = {name: SCHEDULES[name](0.5, 3.0).fraction(0) for name in SCHEDULES}
    assert (start["constant"], start["one_shot"]) == (1, 1)
    assert (start["polynomial"], start["cubic"], start["exponential"]) == (0, 0, 0)
    assert 0 < start["one_cycle"] < 0.01


def test_curves_as_published():
    """Cubic: 1 - (1/2)^3 at half time. Exponential: half way to 75 % is 50 %. One cycle: steepest at beta / alpha."""
    assert SCHEDULES["cubic"](0.5, 9.0).fraction(0.5) == pytest.approx(0.875)
    assert SCHEDULES["polynomial"](0.5, 2.0).fraction(0.5) == pytest.approx(0.75)
    assert 0.75 * Exponential(0.75).fraction(0.5) == pytest.approx(0.5)
    curve = OneCycle()
    steps = [curve.fraction((i + 1) / 100) - curve.fraction(i / 100) for i in range(100)]
    assert steps.index(max(steps)) / 100 == pytest.approx(5 / 14, abs=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total_steps", [2, 3, 7, 36, 99, 5000])
def test_updates_fall_into_training_and_the_last_is_at_full_progress(schedule, total_steps):
    """At most 50 or so updates, the last one within training, and one update alone for one_shot."""
    when = updates(WeightsConfig(schedule=schedule, begin=0.1, end=0.9), total_steps)
    due = [step for step in range(1, total_steps + 1) if when.at(step)]
    assert due
    assert len(due) < 101
    assert when.progress(due[-1]) == 1
    assert due[-1] == when.end
    if schedule == "one_shot":
        assert len(due) == 1


def test_the_final_epoch_has_the_last_update_in_it():
    """The best epoch is never chosen from before the sparsity is reached."""
    for schedule in ("cubic", "one_shot"):
        for epochs in (1, 2, 5, 8):
            for begin, end in ((0.0, 0.5), (0.3, 0.75), (0.5, 1.0)):
                config = WeightsConfig(schedule=schedule, begin=begin, end=end)
                last = updates(config, epochs * 10).end
                assert last <= 10 * (final_epoch(config, epochs) + 1)
                assert final_epoch(config, epochs) < epochs


def test_filters_follow_a_schedule_step_by_step():
    """By default every step keeps the same share of what is left; a polynomial of power 1 removes equal amounts."""
    from edgeprune.recipe.config import FiltersConfig
    from edgeprune.stages.filters import FiltersStageConfig, _step_budget

    def kept(**settings):
        left = [1.0]
        for number in (1, 2, 3):
            config = FiltersStageConfig(filters=FiltersConfig(steps=3, **settings), number=number, steps=ChannelSteps())
            if "rate" in settings:
                left.append(left[-1] * (1 - _step_budget(config, {}, {}).rate))
            else:
                left.append(left[-1] * _step_budget(config, {"macs": 100}, {"macs": 100 * left[-1]}).max_macs)
        return left

    for budget in ({"rate": 0.5}, {"max_macs": 0.5}):
        assert kept(**budget) == pytest.approx([1, 0.5 ** (1 / 3), 0.5 ** (2 / 3), 0.5])
        assert kept(**budget, schedule="polynomial", power=1.0) == pytest.approx([1, 5 / 6, 4 / 6, 0.5])
