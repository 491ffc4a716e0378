"""Masks: exact counts, patterns that hold, and rankings as defined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.recipe.granularity import Block, Connection, NofM, Weight, choose, parse, regrow

SHAPES = st.sampled_from([(10, 48), (8, 3, 3, 16), (16, 3, 3, 3), (4, 1, 1, 10), (7, 5), (5, 3, 6)])
SPARSITIES = st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.95])
SEEDS = st.integers(0, 100)


def random(shape, seed):
    return np.random.default_rng(seed).random(shape)


@given(SHAPES, SPARSITIES, SEEDS)
@settings(deadline=None, max_examples=60)
def test_single_weights_meet_the_number_exactly_and_the_smallest_go(shape, sparsity, seed):
    """round(sparsity × size) weights go, and none that stays is smaller than one that goes."""
    scores = random(shape, seed)
    kept = choose([scores], Weight(), sparsity)[0]
    assert np.sum(~kept) == min(round(sparsity * scores.size), scores.size - 1)
    assert scores[kept].min() >= scores[~kept].max()


@given(SHAPES, SPARSITIES, SEEDS, st.sampled_from([Block(1, 4), Block(4, 4), Block(2, 3), Connection()]))
@settings(deadline=None, max_examples=80)
def test_units_stay_or_go_as_a_whole(shape, sparsity, seed, pattern):
    """Every unit is all ones or all zeros, the number of zeros is within one unit, and one unit stays."""
    scores = random(shape, seed)
    kept = choose([scores], pattern, sparsity)[0]
    units = pattern.units(shape)
    sizes, alive = np.bincount(units.ravel()), np.bincount(units.ravel(), kept.ravel())
    assert set(np.unique(alive / sizes)) <= {0.0, 1.0}
    assert np.sum(~kept) <= round(sparsity * scores.size)
    assert np.sum(~kept) > round(sparsity * scores.size) - sizes.max() or alive.astype(bool).sum() == 1
    assert kept.any()


def test_units_are_where_the_documentation_says():
    """Rows are outputs, columns inputs; a connection is all positions of one output and one input."""
    assert Block(2, 2).units((4, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    conv = Block(1, 4).units((2, 3, 3, 8))
    assert conv.max() + 1 == 2 * 3 * 3 * 2
    assert len(np.unique(conv[1, 2, 0, :4])) == 1
    connection = Connection().units((2, 3, 3, 8))
    assert connection.max() + 1 == 16
    assert len(np.unique(connection[1, :, :, 5])) == 1
    assert Connection().units((3, 4)).tolist() == np.arange(12).reshape(3, 4).tolist()


@given(SHAPES, SEEDS, st.sampled_from([NofM(2, 4), NofM(1, 4), NofM(3, 8), NofM(1, 2)]), st.sampled_from([0.4, 1.0]))
@settings(deadline=None, max_examples=60)
def test_n_of_m_keeps_the_best_n_of_every_group_along_the_inputs(shape, seed, pattern, share):
    """At full sparsity each group has min(n, its length) weights, the largest; below, a share goes."""
    scores = random(shape, seed)
    kept = choose([scores], pattern, pattern.sparsity * share)[0]
    surplus = 0
    for row, mask in zip(scores.reshape(-1, shape[-1]), kept.reshape(-1, shape[-1]), strict=True):
        for start in range(0, shape[-1], pattern.m):
            group, stays = row[start : start + pattern.m], mask[start : start + pattern.m]
            surplus += max(len(group) - pattern.n, 0)
            best = set(np.argsort(-group)[: pattern.n])
            assert best <= set(np.flatnonzero(stays))
            if share == 1:
                assert best == set(np.flatnonzero(stays))
    assert np.sum(~kept) == round(share * surplus)


def test_a_global_ranking_is_one_argsort_over_all_kernels():
    """The weights that go are the lowest of all kernels together."""
    scores = [random((10, 48), 1), 2 * random((8, 3, 3, 16), 2), 1.5 * random((7, 5), 3)]
    kept = np.concatenate([mask.ravel() for mask in choose(scores, Weight(), 0.4, "global")])
    flat = np.concatenate([array.ravel() for array in scores])
    expected = np.ones(flat.size, bool)
    expected[np.argsort(flat)[: round(0.4 * flat.size)]] = False
    np.testing.assert_array_equal(kept, expected)


def test_no_layer_is_cut_through_by_a_global_ranking():
    """A kernel whose every score is below the others' keeps its best unit."""
    kept = choose([random((10, 10), 0) + 1, 1e-3 * random((4, 4), 1)], Weight(), 0.5, "global")
    assert kept[1].sum() == 1
    assert sum(np.sum(~mask) for mask in kept) == 58


@given(SEEDS, st.sampled_from([Weight(), Block(1, 4), Connection()]), st.sampled_from(["layer", "global"]))
@settings(deadline=None, max_examples=30)
def test_regrowth_exchanges_and_changes_no_count(seed, pattern, scope):
    """As many come as go; what comes is wanted most, what goes scores least."""
    scores, growth = [random((8, 16), seed), random((4, 8), seed + 1)], [random((8, 16), seed + 2), random((4, 8), 9)]
    kept = choose(scores, pattern, 0.5, scope)
    new = regrow(kept, scores, growth, pattern, 0.4, scope)
    assert sum(m.sum() for m in new) == sum(m.sum() for m in kept)
    came = [n & ~k for n, k in zip(new, kept, strict=True)]
    assert any(c.any() for c in came)
    if isinstance(pattern, Weight) and scope == "layer":
        still = ~new[0] & ~kept[0]
        assert not came[0].any() or growth[0][came[0]].min() >= growth[0][still].max()


@pytest.mark.parametrize("text", ["blocks", "block:0x4", "4:2", "2:2", "block:1x", ""])
def test_what_is_no_granularity_is_refused(text):
    """The message lists what there is."""
    with pytest.raises(ValueError, match="block:RxC"):
        parse(text)
