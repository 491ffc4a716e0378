"""How much every group loses: budgets, rates, multiples, protection."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import RecipeError
from edgeprune.models.count import count
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.block_units import with_blocks
from edgeprune.prune.choice.allocation import allocate
from edgeprune.prune.choice.budget import Budget, Constraints
from edgeprune.prune.choice.criteria import CRITERIA, Evidence, scores_of_blocks
from edgeprune.prune.choice.ladders import ladder
from edgeprune.target import ChannelSteps


@pytest.fixture
def graph(L, randomize):
    import tf_keras

    i = L.image(size=8)
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="a")(i)
    y = L.Conv2D(64, 3, padding="same", strides=2, activation="relu", name="b")(x)
    z = L.BatchNormalization(name="norm")(L.Conv2D(64, 1, name="c")(y))
    x = L.DepthwiseConv2D(3, name="deep")(L.Add()([y, z]))
    x = L.Dense(24, activation="relu", name="d")(L.Flatten()(x))
    return analyse(randomize(tf_keras.Model(i, L.Dense(10, name="head")(x))))


def _allocate(graph, how="global", constraints=None, criterion="l2", **budget):
    chosen = CRITERIA[criterion]
    scores = chosen.score(graph, Evidence())
    return allocate(graph, scores, Budget(**budget), how, constraints or Constraints()).keep


def _kept(graph, keep):
    return {group.name: int(keep[group.units].sum()) for group in graph.groups}


@pytest.mark.parametrize(
    ("how", "fraction", "kind"),
    representatives(
        itertools.product(["uniform", "global"], [0.3, 0.5, 0.8], ["max_macs", "max_params"]),
        ("uniform", 0.3, "max_macs"), ("uniform", 0.8, "max_params"),
        ("global", 0.8, "max_macs"), ("global", 0.3, "max_params"),
    ),
)  # fmt: skip
def test_budgets_are_met(graph, how, fraction, kind):
    """The pruned model's own count is at most the budget, not far below, and equals what the graph predicted."""
    keep = _allocate(graph, how, **{kind: fraction})
    before, after = count(graph.model), count(surgery.remove(graph, keep))
    assert (graph.count_macs(keep), graph.count_params(keep)) == (after.macs, after.params)
    share = after.macs / before.macs if kind == "max_macs" else after.params / before.params
    assert fraction - {"uniform": 0.05, "global": 0.03}[how] <= share <= fraction


@pytest.mark.parametrize(
    ("how", "limits"),
    representatives(
        itertools.product(["uniform", "global"], [(0.5, 0.6), (0.5, 0.3), (0.3, 0.9), (0.9, 0.3)]),
        ("uniform", (0.5, 0.6)), ("global", (0.3, 0.9)), ("global", (0.9, 0.3)),
    ),
)  # fmt: skip
def test_two_budgets_are_met_together(graph, how, limits):
    """Neither parameters nor MACs exceed their limit, and one of them is near to it."""
    keep = _allocate(graph, how, max_params=limits[0], max_macs=limits[1])
    before, after = count(graph.model), count(surgery.remove(graph, keep))
    excess = after.params / before.params - limits[0], after.macs / before.macs - limits[1]
    assert -0.05 <= max(excess) <= 0


@pytest.mark.parametrize("limits", [{"max_macs": 0.5}, {"max_params": 0.3}, {"max_params": 0.5, "max_macs": 0.65}])
def test_no_room_is_left(graph, limits):
    """No group could keep one channel more without a limit being passed."""
    keep = _allocate(graph, **limits)
    before = {"max_macs": graph.count_macs, "max_params": graph.count_params}

    def fits(keep):
        return all(before[what](keep) <= limit * before[what](np.ones_like(keep)) for what, limit in limits.items())

    for group in graph.groups:
        for unit in group.units[~keep[group.units]][:1]:
            more = keep.copy()
            more[unit] = True
            assert not fits(more), group.name


@pytest.mark.parametrize("fraction", [0.3, 0.4, 0.5, 0.6, 0.7])
@pytest.mark.parametrize("kind", ["max_macs", "max_params"])
def test_coarse_multiples_keep_the_limit(graph, kind, fraction):
    """With coarse multiples, a limit is not passed, and nearly used."""
    keep = _allocate(graph, "global", Constraints(steps=ChannelSteps(4)), **{kind: fraction})
    total = {"max_macs": graph.count_macs, "max_params": graph.count_params}[kind]
    assert fraction - 0.05 <= total(keep) / total(np.ones_like(keep)) <= fraction


@pytest.mark.parametrize("limits", [{"max_macs": 0.5}, {"max_params": 0.5}, {"max_params": 0.5, "max_macs": 0.6}])
@pytest.mark.parametrize("seed", range(4))
def test_the_most_importance_stays(graph, limits, seed):
    """With multiples of 8, as much importance stays as in the best of all choices that meet the budget."""
    generator = np.random.default_rng(seed)
    scores = {group.name: np.sort(generator.random(group.size))[::-1] for group in graph.groups}
    totals = {"max_macs": graph.count_macs, "max_params": graph.count_params}

    def kept(keep):
        return sum(scores[group.name][keep[group.units]].sum() for group in graph.groups)

    def possible():
        for sizes in itertools.product(range(8, 17, 8), range(8, 65, 8), range(8, 25, 8)):
            keep = np.ones(len(graph.units), bool)
            for group, size in zip(graph.groups, sizes, strict=False):
                keep[group.units[size:]] = False
            if all(totals[what](keep) <= limit * totals[what](np.ones_like(keep)) for what, limit in limits.items()):
                yield kept(keep)

    found = allocate(graph, scores, Budget(**limits), "global", Constraints(steps=ChannelSteps(8)))
    assert found.steps.multiple == 8
    assert kept(found.keep) == pytest.approx(max(possible()))
    assert found.bound <= found.loss == pytest.approx(kept(np.ones_like(found.keep)) - kept(found.keep))


def test_uniform_removes_the_same_fraction_everywhere(graph):
    """A rate of a quarter leaves three quarters of every group; outputs stay."""
    assert _kept(graph, _allocate(graph, "uniform", rate=0.25)) == {"a": 12, "b": 48, "d": 18, "head": 10}


def test_global_removes_the_fraction_over_all_groups(graph):
    """One ranking: a quarter of all prunable channels goes, those of the lowest scores."""
    scores = CRITERIA["l2"].score(graph, Evidence())
    keep = _allocate(graph, "global", rate=0.25)
    free = [group for group in graph.groups if not group.frozen]
    gone = np.concatenate([scores[group.name][~keep[group.units]] for group in free])
    stay = np.concatenate([scores[group.name][keep[group.units]] for group in free])
    assert len(gone) == 26
    assert gone.max() <= stay.min()


def test_the_least_important_go(graph):
    """Within a group, every channel that goes has a score at most that of every channel that stays."""
    scores = CRITERIA["l1"].score(graph, Evidence())
    keep = _allocate(graph, "uniform", criterion="l1", rate=0.5)
    for group in graph.groups:
        gone, stay = scores[group.name][~keep[group.units]], scores[group.name][keep[group.units]]
        assert not len(gone) or gone.max() <= stay.min()


def test_rates_of_groups(graph):
    """A group with a rate of its own loses that, whatever the rest does."""
    constraints = Constraints(layer_rates={"b*": 0.5, "d": 0.0})
    assert _kept(graph, _allocate(graph, "uniform", constraints, rate=0.25)) == {"a": 12, "b": 32, "d": 24, "head": 10}
    kept = _kept(graph, _allocate(graph, "global", constraints, max_macs=0.4))
    assert (kept["b"], kept["d"]) == (32, 24)
    # c makes the channels of b, too
    assert _kept(graph, _allocate(graph, "uniform", Constraints(layer_rates={"c": 0.5}), rate=0.25))["b"] == 32


def test_protected_layers_keep_everything(graph):
    """A pattern protects every group that one of its layers belongs to."""
    kept = _kept(graph, _allocate(graph, "uniform", Constraints(protect=("c", "?ead")), rate=0.5))
    assert kept == {"a": 8, "b": 64, "d": 12, "head": 10}


def test_min_channels_stay(graph):
    """No group falls below the minimum, and the largest rate is respected."""
    kept = _kept(graph, _allocate(graph, "uniform", Constraints(min_channels=14), rate=0.6))
    assert kept == {"a": 14, "b": 14, "d": 14, "head": 10}
    kept = _kept(graph, _allocate(graph, "uniform", Constraints(max_rate=0.5), rate=0.5))
    assert kept == {"a": 8, "b": 32, "d": 12, "head": 10}


@pytest.mark.parametrize("how", ["uniform", "global"])
@pytest.mark.parametrize("constraints", [{"min_channels": 14}, {"max_rate": 0.5}], ids=str)
def test_unreachable_rates_are_errors(graph, how, constraints):
    """A rate that the constraints do not allow is an error that says how far one can go."""
    with pytest.raises(RecipeError, match=r"Removing 90.0% .* largest reachable reduction removes \d+\.\d%"):
        _allocate(graph, how, Constraints(**constraints), rate=0.9)


def test_a_model_without_filters_to_remove(graph):
    """If nothing can go, the error says why, group by group."""
    with pytest.raises(RecipeError, match=r"no filters to remove. a: protected.*; head: output of the model"):
        _allocate(graph, constraints=Constraints(protect=("*",)), rate=0.5)


@pytest.mark.parametrize("rate", [0.1, 0.35, 0.4, 0.6])
def test_rates_of_small_groups_are_rounded_together(rate, L):
    """Two groups of four lose together what is nearest to the rate of eight."""
    import tf_keras

    i = L.image()
    x = L.Conv2D(4, 1, name="b")(L.Conv2D(4, 1, name="a")(i))
    graph = analyse(tf_keras.Model(i, L.head(x)))
    kept = _kept(graph, _allocate(graph, "uniform", rate=rate))
    assert 8 - kept["a"] - kept["b"] == round(8 * rate)
    assert abs(kept["a"] - kept["b"]) <= 1


def test_min_channels_stay_in_every_layer_of_a_group(L, randomize):
    """A layer that makes some channels of a group keeps the minimum of its own, the best ones."""
    import tf_keras

    i = L.image()
    parts = L.Concatenate()([L.Conv2D(4, 1, name="a")(i), L.Conv2D(12, 1, name="b")(i)])
    graph = analyse(randomize(tf_keras.Model(i, L.head(L.Add()([parts, L.Conv2D(16, 1, name="c")(i)])))))
    scores = {group.name: np.arange(group.size, dtype=float) for group in graph.groups}
    keep = allocate(graph, scores, Budget(rate=0.5), "uniform", Constraints(min_channels=3)).keep
    kept = {label: keep[vector].tolist() for label, _, vector in graph.producers}
    assert kept["a"] == [False, True, True, True]
    assert sum(kept["b"]) == 5  # makes up for it


def test_patterns_that_match_nothing(graph):
    """A pattern that names no layer is an error that offers names like it."""
    for constraints in (Constraints(protect=("haed",)), Constraints(layer_rates={"haed": 0.5})):
        with pytest.raises(RecipeError, match=r"'haed' .* matches no layer(.|\n)*as head"):
            _allocate(graph, constraints=constraints, rate=0.5)


@pytest.mark.parametrize("how", ["uniform", "global"])
@pytest.mark.parametrize("multiple", [4, 8, 16])
def test_multiples(graph, how, multiple):
    """Numbers of channels kept are multiples of the target's; a group narrower than two vectors may be halved."""
    kept = _kept(graph, _allocate(graph, how, Constraints(steps=ChannelSteps(multiple)), rate=0.4))
    assert kept["b"] % multiple == 0
    assert kept["b"] < 64
    assert kept["a"] % min(multiple, 8) == 0


def test_wide_layers_keep_whole_blocks(L, randomize):
    """Up to a block, multiples; above it, blocks only: on an array of 64 columns, 80 channels cost as much as 128."""
    import tf_keras

    i = L.image(size=8)
    x = L.Conv2D(256, 1, name="a")(i)
    graph = analyse(randomize(tf_keras.Model(i, L.Dense(10)(L.GlobalAveragePooling2D()(x)))))
    group = graph.groups[0]
    rungs = ladder(graph, group, group.free, Constraints(steps=ChannelSteps(16, 64)))
    assert (group.size - rungs.gone).tolist() == [256, 192, 128, 64, 48, 32, 16]


def test_a_multiple_gives_way_to_the_budget(L, randomize):
    """Layers too narrow for the multiple to meet the budget are cut finer."""
    import tf_keras

    i = L.image(size=8)
    x = L.Conv2D(8, 3, padding="same", name="a")(i)
    x = L.Conv2D(8, 3, padding="same", name="b")(x)
    graph = analyse(randomize(tf_keras.Model(i, L.Dense(10)(L.GlobalAveragePooling2D()(x)))))
    keep = _allocate(graph, "global", Constraints(steps=ChannelSteps(16)), max_macs=0.7)
    assert 0.6 <= graph.count_macs(keep) / graph.count_macs(np.ones_like(keep)) <= 0.72


def test_unreachable_budgets_name_the_largest_reduction(graph):
    """An impossible budget is an error that says how far one can go; going there then works."""
    constraints = Constraints(protect=("a", "d"), max_rate=0.5)
    with pytest.raises(RecipeError, match=r"the least for macs is (\d+\.\d)%") as caught:
        _allocate(graph, "global", constraints, max_macs=0.05)
    advised = float(re.search(r'max_macs = "([\d.]+)%"', caught.value.fix)[1]) / 100
    keep = _allocate(graph, "global", constraints, max_macs=advised)
    assert _kept(graph, keep) == {"a": 16, "b": 32, "d": 24, "head": 10}


def test_something_of_every_part_stays(L, randomize):
    """A part that was split off keeps at least one channel, even if all of them are the least important."""
    import tensorflow as tf
    import tf_keras

    i = L.image()
    x, y = tf.split(L.Conv2D(12, 1, name="a")(i), [2, 10], axis=-1)
    model = randomize(tf_keras.Model(i, L.head(L.Concatenate()([L.Conv2D(3, 1)(x), y]))))
    kernel = model.get_layer("a").kernel
    kernel.assign(kernel * np.array([1e-3] * 2 + [1] * 10))
    graph = analyse(model)
    keep = _allocate(graph, "uniform", rate=0.5)
    group = next(group for group in graph.groups if group.name == "a")
    assert keep[group.units[:2]].sum() == 1
    surgery.verify(surgery.remove(graph, keep), surgery.mask(graph, keep))


def _with_residual_blocks(L, generator):
    """A random model: a stem, two residual blocks of one or two inner convolutions, and a head."""
    import tf_keras

    i = L.image(size=8)
    x = L.Conv2D(4, 3, padding="same", name="stem")(i)
    for name in "pq":
        y = x
        for number in range(generator.integers(1, 3)):
            y = L.Conv2D(int(generator.integers(3, 6)), 3, padding="same", name=f"{name}{number}")(y)
        x = L.Add(name=name)([x, L.Conv2D(4, 1, name=f"{name}_end")(y)])
    return tf_keras.Model(i, L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("seed", representatives(range(12), 0, 8))
def test_blocks_and_channels_go_as_in_the_best_of_all_choices(L, seed):
    """Trying every width of every group, with and without each block, finds nothing better under two limits."""
    generator = np.random.default_rng(seed)
    graph = with_blocks(analyse(_with_residual_blocks(L, generator)))
    scores = {
        group.name: np.sort(generator.random(group.size) * generator.uniform(0.2, 2))[::-1]
        for group in graph.groups
        if not group.block
    }
    scores |= scores_of_blocks(graph, scores)
    limits = {"max_macs": generator.uniform(0.25, 0.8), "max_params": generator.uniform(0.3, 0.8)}
    totals = {"max_macs": graph.count_macs, "max_params": graph.count_params}

    def possible():
        everything = np.ones(len(graph.units), bool)
        sizes = [[0, 1] if group.block else range(1, group.size + 1) for group in graph.groups if not group.frozen]
        for widths in itertools.product(*sizes):
            keep = everything.copy()
            for group, width in zip([group for group in graph.groups if not group.frozen], widths, strict=True):
                keep[group.units[width:]] = False
            if all(totals[what](keep) <= limit * totals[what](everything) for what, limit in limits.items()):
                yield sum(scores[group.name][~keep[group.units]].sum() for group in graph.groups)

    found = allocate(graph, scores, Budget(**limits), "global", Constraints(max_rate=0.99))
    assert found.loss == pytest.approx(min(possible()))


@pytest.mark.parametrize(
    "kept", [{"protect": ("p",)}, {"protect": ("p0",)}, {"layer_rates": {"p0": 0.0}}, {"layer_rates": {"p0": 0.9}}]
)
def test_a_block_stays_where_it_or_a_layer_of_it_is_asked_for(L, kept):
    """Protected by its own name or by that of a layer in it; and a layer with a rate of its own is there to have it."""
    graph = with_blocks(analyse(_with_residual_blocks(L, np.random.default_rng(0))))
    scores = {group.name: np.ones(group.size) for group in graph.groups}
    scores |= {"p": np.array([1e-3]), "q": np.array([100.0])}
    (block,) = (group for group in graph.groups if group.name == "p")
    free, asked = (
        allocate(graph, scores, Budget(max_macs=0.6), "global", constraints)
        for constraints in (Constraints(), Constraints(**kept))
    )
    assert not free.keep[block.units[0]]
    assert asked.keep[block.units[0]]


def test_blocks_go_with_the_least_loss_only(L):
    """Other allocations know nothing of what a block is worth."""
    graph = with_blocks(analyse(_with_residual_blocks(L, np.random.default_rng(0))))
    scores = {group.name: np.ones(group.size) for group in graph.groups}
    with pytest.raises(RecipeError, match="Blocks cannot go with the allocation 'uniform'"):
        allocate(graph, scores, Budget(max_macs=0.5), "uniform", Constraints())


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_tables_that_are_far_off_cost_no_budget(graph, factor):
    """Where a program counts a multiple of what is used, the limit is kept, and used but for a step."""
    scores = CRITERIA["l2"].score(graph, Evidence())
    (macs,) = Budget(max_macs=0.5).resources(graph, [])

    def tables(widths):
        return tuple({key: factor * values for key, values in one.items()} for one in macs.tables(widths))

    off = dataclasses.replace(macs, name="latency", tables=tables)
    found = allocate(graph, scores, Budget(), "global", Constraints(steps=ChannelSteps(8)), resources=[off])
    right = allocate(graph, scores, Budget(max_macs=0.5), "global", Constraints(steps=ChannelSteps(8)))
    assert found.costs["latency"][0] <= off.most
    assert found.loss <= 1.02 * right.loss
