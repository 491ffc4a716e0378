"""Why every group got its width: the steps around it are what they say, and the prices of the limits explain them."""

import dataclasses

import numpy as np
import pytest

from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.choice.allocation import allocate
from edgeprune.prune.choice.budget import Budget, Constraints
from edgeprune.target import ChannelSteps


@pytest.fixture(scope="module")
def graph(L):
    import tf_keras

    i = L.image(size=8)
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="a")(i)
    x = L.Conv2D(48, 3, padding="same", strides=2, activation="relu", name="b")(x)
    x = L.Dense(24, activation="relu", name="c")(L.Flatten()(x))
    return analyse(tf_keras.Model(i, L.Dense(10, name="head")(x)))


@pytest.fixture(scope="module")
def scores(graph):
    random = np.random.default_rng(0)
    return {group.name: np.exp(random.normal(size=group.size)) for group in graph.groups}


def _chosen(graph, scores, constraints=None, resources=(), how="global", **budget):
    return allocate(graph, scores, Budget(**budget), how, constraints or Constraints(), resources=resources)


def _with_kept(graph, scores, keep, name, count):
    """The same units, but of one group the most important ``count``."""
    group = next(group for group in graph.groups if group.name == name)
    changed = keep.copy()
    changed[group.units] = np.isin(np.arange(group.size), np.argsort(scores[name], kind="stable")[group.size - count :])
    return changed


@pytest.mark.parametrize("multiple", [1, 8])
def test_steps_are_counted_on_the_model(graph, scores, multiple):
    """A step's loss is that of the channels that go, and what it saves is the difference of two models' counts."""
    found = _chosen(graph, scores, Constraints(steps=ChannelSteps(multiple)), max_macs=0.5, max_params=0.6)
    assert [reason.name for reason in found.reasons] == ["a", "b", "c"]  # the head has no choice
    for reason in found.reasons:
        ranked = np.sort(scores[reason.name])
        gone = reason.channels - reason.kept
        assert found.keep[next(g for g in graph.groups if g.name == reason.name).units].sum() == reason.kept
        assert reason.loss == pytest.approx(ranked[:gone].sum())
        for step, is_next in ((reason.last, False), (reason.next, True)):
            if step is None:
                continue
            start = gone if is_next else gone - step.channels
            stop = start + step.channels
            assert step.loss == pytest.approx(ranked[start:stop].sum())
            wide, narrow = (
                _with_kept(graph, scores, found.keep, reason.name, reason.channels - count) for count in (start, stop)
            )
            counted = {"macs": graph.count_macs, "params": graph.count_params}
            assert step.saved == pytest.approx({what: of(wide) - of(narrow) for what, of in counted.items()})
            paid = sum(found.prices[name] * 100 * step.saved[name] / most for name, (_, most) in found.costs.items())
            assert step.worth == pytest.approx(paid)


def test_the_price_divides_steps_taken_from_steps_not_taken(graph, scores):
    """Where every channel costs the same, each last step was worth it, and no next one is."""
    found = _chosen(graph, scores, rate=0.4)
    for reason in found.reasons:
        assert reason.last.loss <= reason.last.worth * (1 + 1e-6)
        assert reason.next.loss >= reason.next.worth * (1 - 1e-6)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_no_single_step_beats_the_choice_by_more_than_the_gap(graph, scores, share):
    """Layers share MACs: a step may gain at the price at most what separates the choice from the relaxation, which is
    less than a tenth of the loss here."""
    found = _chosen(graph, scores, max_macs=share)
    for reason in found.reasons:
        if reason.last:
            assert reason.last.loss - reason.last.worth <= 0.1 * found.loss
        if reason.next:
            assert reason.next.worth - reason.next.loss <= 0.1 * found.loss


def test_ends_have_no_step(graph, scores):
    """A group that kept all has no last step; one that is as narrow as allowed has no next one."""
    scores = {**scores, "a": scores["a"] * 1e-6, "c": scores["c"] * 1e6}
    by_name = {
        reason.name: reason for reason in _chosen(graph, scores, Constraints(min_channels=6), max_macs=0.3).reasons
    }
    assert by_name["a"].kept == 6
    assert (by_name["a"].next, by_name["c"].last) == (None, None)
    assert by_name["a"].last.channels == by_name["c"].next.channels == 1


def test_curves_are_short_and_hold_the_choice(graph, scores):
    """From all channels to the fewest, the loss rising, at a dozen widths at most."""
    for reason in _chosen(graph, scores, max_params=0.5).reasons:
        channels, losses = list(reason.curve), list(reason.curve.values())
        assert len(channels) <= 12
        assert channels == sorted(channels, reverse=True)
        assert channels[0] == reason.channels
        assert losses == sorted(losses)
        assert reason.curve[reason.kept] == reason.loss


def test_what_a_program_approximates_is_told_in_the_unit_of_the_limit(graph, scores):
    """A table that has three times the cost it stands for: what a step saves is the cost itself."""
    (macs,) = Budget(max_macs=0.5).resources(graph, [])

    def tripled(widths):
        return tuple({axes: 3 * values for axes, values in tables.items()} for tables in macs.tables(widths))

    found = _chosen(graph, scores, resources=[dataclasses.replace(macs, tables=tripled)])
    for reason in found.reasons:
        gone = reason.channels - reason.kept
        for step, start in ((reason.last, gone - 1), (reason.next, gone)):
            if step:
                wide, narrow = (
                    graph.count_macs(_with_kept(graph, scores, found.keep, reason.name, reason.channels - count))
                    for count in (start, start + 1)
                )
                assert step.saved["macs"] == pytest.approx(wide - narrow)


def test_a_uniform_choice_needs_no_reasons(graph, scores):
    """All groups lose the same fraction; nothing was weighed."""
    assert _chosen(graph, scores, how="uniform", rate=0.5).reasons == ()
