"""Groups of a whole model: inputs, outputs, counts and the order of calls."""

import numpy as np

from edgeprune.models.count import count
from edgeprune.prune.channels.analyse import analyse


def _model(L, inputs, outputs):
    import tf_keras

    return tf_keras.Model(inputs, outputs)


def test_inputs_and_outputs_are_never_pruned(L):
    """Channels of outputs are frozen, in whichever layer they are made and however many outputs there are."""
    i = L.image()
    x = L.Conv2D(4, 1, name="a")(i)
    y = L.Conv2D(4, 1, name="b")(x)
    graph = analyse(_model(L, i, {"sum": L.Add()([x, y]), "image": i, "part": L.ReLU()(x)}))
    assert [(group.name, group.frozen) for group in graph.groups] == [("a", "output of the model")]
    assert graph.groups[0].layers == ("a", "b")


def test_partly_frozen_groups_say_which_units(L):
    """Where only some channels of a layer meet an output, the others can go; reasons are given by unit."""
    i = L.image()
    x, y = L.Conv2D(4, 1, name="a")(i), L.Conv2D(7, 1, name="b")(i)
    z = L.Add(name="sum")([L.Concatenate()([x, i]), y])
    merged, _ = analyse(_model(L, i, L.Conv2D(1, 1, name="head")(z))).groups
    assert merged.size == 7
    assert merged.frozen is None
    assert set(merged.reasons.values()) == {"'sum' joins them to channels that cannot be removed"}
    assert len(merged.reasons) == 3


def test_counts_equal_those_of_the_model(L):
    """The graph's parameters and MACs with everything kept are the model's own."""
    i = L.image(4)
    x = L.Conv2D(8, 3, groups=2, strides=2, padding="same")(i)
    x = L.SeparableConv2D(6, 3, depth_multiplier=2)(L.Conv2DTranspose(4, 3, 2)(L.BatchNormalization()(x)))
    model = _model(L, i, L.head(L.Dense(5)(L.DepthwiseConv2D(2, depth_multiplier=3)(x))))
    graph, counts = analyse(model), count(model)
    keep = np.ones(len(graph.units), bool)
    assert (graph.count_macs(keep), graph.count_params(keep)) == (counts.macs, counts.params)


def test_layers_without_a_rule_count_their_macs(L):
    """A budget is a share of the whole model, also of what cannot be pruned."""
    i = L.Input((2, 4, 4, 3))
    model = _model(L, i, L.head(L.ConvLSTM2D(4, 3)(i)))
    graph = analyse(model)
    assert graph.count_macs(np.ones(len(graph.units), bool)) == count(model).macs


def test_unknown_sizes_are_followed(L, check):
    """Images of any size and sequences of any length can be pruned."""
    i = L.Input((None, None, 3))
    x = L.Conv2D(6, 3, strides=2, name="a")(i)
    found = check(_model(L, i, L.head(L.Concatenate()([x, L.ReLU()(x)]))), count_macs=False)
    assert found.group("a").frozen is None
    i = L.Input((None, 3))
    found = check(_model(L, i, L.Dense(2, name="head")(L.Conv1D(6, 3, name="a")(i))), count_macs=False)
    assert found.group("a").frozen is None
