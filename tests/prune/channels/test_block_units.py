"""Blocks as units: what is counted of a model without some of them, and the model itself."""

import numpy as np
import pytest
import tf_keras
from matrix import representatives

from edgeprune.models.count import count
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.block_units import gone_blocks, inside, with_blocks, without_blocks


@pytest.fixture(scope="module")
def model(L, randomize):
    """A stem, a plain residual block, one with a bottleneck and one with a depthwise layer alone in it."""
    i = L.image(size=8)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", name="stem")(i)))
    y = L.Conv2D(8, 3, padding="same", name="a2")(L.Conv2D(12, 3, padding="same", activation="relu", name="a1")(x))
    x = L.ReLU()(L.Add(name="a")([x, L.BatchNormalization(name="an")(y)]))
    y = L.Conv2D(6, 3, padding="same", activation="relu", name="b2")(L.Conv2D(10, 1, activation="relu", name="b1")(x))
    x = L.Add(name="b")([x, L.Conv2D(8, 1, name="b3")(y)])
    x = L.Add(name="c")([x, L.DepthwiseConv2D(3, padding="same", name="deep")(x)])
    return randomize(tf_keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x))))


@pytest.fixture(scope="module")
def graph(model):
    return with_blocks(analyse(model))


def test_blocks_with_channels_of_their_own_are_groups_of_one_unit(graph):
    """The depthwise block has none: what it is worth is not known."""
    blocks = [group for group in graph.groups if group.block]
    assert [(group.name, group.size) for group in blocks] == [("a", 1), ("b", 1)]
    assert [[group.name for group in inside(graph, each.block)] for each in blocks] == [["a1"], ["b1", "b2"]]


def test_the_graph_itself_is_not_changed(model):
    """Units, terms and totals of the graph that is given stay."""
    plain = analyse(model)
    units, totals = len(plain.units), dict(plain.totals)
    assert with_blocks(plain).totals == totals
    assert len(plain.units) == units
    assert (plain.count_macs(np.ones(units, bool)), not any(group.block for group in plain.groups)) == (
        totals["macs"],
        True,
    )


@pytest.mark.parametrize("gone", representatives(["", "a", "b", "ab"], "", "ab"))
def test_counts_are_those_of_the_model(graph, gone):
    """With any blocks and channels gone, the graph counts what the model then has, and the model equals its oracle."""
    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        if group.block:
            keep[group.units] = group.name not in gone
        else:
            keep[group.units[group.free[: group.size // 3]]] = False
    assert [block.name for block in gone_blocks(graph, keep)] == list(gone)
    shorter, kept = without_blocks(graph, keep)
    pruned = surgery.remove(shorter, kept)
    counts = count(pruned)
    assert (graph.count_macs(keep), graph.count_params(keep)) == (counts.macs, counts.params)
    assert {layer.name for layer in pruned.layers}.isdisjoint(f"{name}1" for name in gone)
    surgery.verify(pruned, surgery.mask(shorter, kept))


def test_a_layer_that_is_called_elsewhere_keeps_its_block(L):
    """Counts of a shared layer would not vanish with the block."""
    i = L.image(size=8)
    x = L.Conv2D(8, 1, name="stem")(i)
    shared = L.Conv2D(8, 1, name="shared")
    y = L.Conv2D(8, 1, name="last")(shared(L.Conv2D(8, 1, name="first")(x)))
    x = L.Add(name="sum")([x, y])
    model = tf_keras.Model(i, L.GlobalAveragePooling2D()(shared(x)))
    assert not any(group.block for group in with_blocks(analyse(model)).groups)
