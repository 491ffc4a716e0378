"""XNNPACK's conditions: each one violated is a finding of its own, at the layer where it is."""

import dataclasses
import itertools

import pytest

from edgeprune.hardware.xnnpack.sparse_inference import CONDITIONS, Node, analyse, fold_padding

ONE = (1, 1, 1, 1)


def chain(**changes):
    """Image → padding → stem → depthwise → 1x1 → relu → mean → dense, with fields of nodes replaced by name."""
    nodes = [
        Node("scale", "MUL", "elementwise", (0,), (1,)),
        Node("pad", "PAD", "padding", (1,), (2,), padding=ONE),
        Node("stem", "CONV_2D", "convolution", (2,), (3,), kernel=(3, 3), strides=(2, 2), channels=3),
        Node("dw", "DEPTHWISE_CONV_2D", "depthwise", (3,), (4,), kernel=(3, 3), padding=ONE),
        Node("pw", "CONV_2D", "convolution", (4,), (5,), weights=100, zeros=80),
        Node("relu", "RELU", "elementwise", (5,), (6,)),
        Node("mean", "MEAN", "mean", (6,), (7,), rank=2),
        Node("dense", "FULLY_CONNECTED", "dense", (7,), (8,), rank=2, weights=60),
    ]
    return [dataclasses.replace(node, **changes.get(node.name, {})) for node in nodes]


def problems(analysis):
    return {v.node.name: v.problem.rule for v in analysis.verdicts if v.problem}


def test_a_chain_that_meets_all_conditions_qualifies():
    """Roles are given to every operation, the 1x1 convolution is what is to be pruned, shares count its zeros."""
    found = analyse(chain(), [8])
    assert found.qualifies
    assert [v.role for v in found.verdicts] == ["input", "stem", "depthwise", "1x1", "elementwise", "tail", "after"]
    assert [node.name for node in found.pointwise] == ["pw"]
    assert found.zero_share == pytest.approx(0.8)
    assert found.zero_share_with_dense == pytest.approx(0.5)


# What is changed → the layer and the rule of the one finding.
VIOLATIONS = [
    ({"stem": {"channels": 1}}, "stem", "stem_channels"),
    ({"stem": {"kernel": (5, 5)}}, "stem", "stem_kernel"),
    ({"stem": {"strides": (1, 1)}}, "stem", "stem_strides"),
    ({"stem": {"dilation": (2, 2)}}, "stem", "undilated"),
    ({"stem": {"groups": 3}}, "stem", "ungrouped"),
    ({"stem": {"dtype": "int8"}}, "stem", "float32"),
    ({"stem": {"activation": "softplus"}}, "stem", "plain_activation"),
    ({"pad": {"padding": (0, 1, 0, 1)}}, "stem", "symmetric"),
    ({"dw": {"padding": "same", "strides": (2, 2)}}, "dw", "symmetric"),
    ({"dw": {"kernel": (5, 5)}}, "dw", "symmetric"),
    ({"dw": {"kernel": (7, 7), "padding": (3, 3, 3, 3)}}, "dw", "depthwise_kernel"),
    ({"dw": {"strides": (1, 2)}}, "dw", "depthwise_strides"),
    ({"dw": {"multiplier": 2}}, "dw", "single_multiplier"),
    ({"pw": {"strides": (2, 2)}}, "pw", "unstrided"),
    ({"pw": {"padding": ONE}}, "pw", "unpadded"),
    ({"pw": {"dtype": "float16"}}, "pw", "float32"),
    ({"pw": {"kernel": (3, 3), "padding": ONE}}, "pw", "supported"),
    ({"relu": {"kind": "other", "operator": "MAX_POOL_2D"}}, "relu", "supported"),
    ({"relu": {"rank": 3}}, "relu", "four_dimensional"),
    ({"dense": {"inputs": (5, 7)}}, "pw", "closed"),
    ({"dw": {"inputs": (1,)}}, "dw", "stem"),
]


@pytest.mark.parametrize(("changes", "layer", "rule"), VIOLATIONS)
def test_each_condition_violated_once_is_its_own_finding(changes, layer, rule):
    """One change gives one finding, at the changed layer, with what to do about it."""
    found = analyse(chain(**changes), [8])
    assert not found.qualifies
    assert problems(found) == {layer: rule}
    problem = next(v.problem for v in found.verdicts if v.problem)
    assert problem.what
    assert problem.fix


def test_every_rule_has_a_violation_here_and_says_what_it_wants():
    """No rule is untested; the docstrings are the documentation."""
    rules = set(itertools.chain.from_iterable(CONDITIONS.values()))
    assert {rule.__name__ for rule in rules} <= {rule for _, _, rule in VIOLATIONS}
    assert all(rule.__doc__ for rule in rules)


def test_without_a_global_pooling_or_a_1x1_convolution_something_is_missing():
    """The model as a whole is told, not a layer."""
    assert [p.rule for p in analyse(chain(mean={"kind": "other"}), [8]).missing] == ["tail"]
    shortened = [node for node in chain(relu={"inputs": (4,)}) if node.name != "pw"]
    assert [p.rule for p in analyse(shortened, [8]).missing] == ["pointwise"]


def test_a_result_that_the_model_returns_as_well_breaks_the_cluster():
    """What leaves the cluster in its middle would be in the wrong layout."""
    assert problems(analyse(chain(), [8, 6])) == {"relu": "closed"}


def test_squeeze_and_excite_inside_is_fine():
    """A mean inside the cluster scales a product of two 4-D tensors."""
    nodes = chain(mean={"inputs": (12,)})
    inside = [
        Node("se_mean", "MEAN", "mean", (6,), (10,)),
        Node("se_conv", "CONV_2D", "convolution", (10,), (11,), weights=10),
        Node("se_mul", "MUL", "elementwise", (6, 11), (12,)),
    ]
    found = analyse([*nodes[:6], *inside, *nodes[6:]], [8])
    assert found.qualifies
    assert [node.name for node in found.pointwise] == ["pw", "se_conv"]


def test_padding_is_swallowed_only_by_its_one_reader():
    """A padded tensor that two convolutions read stays an operator, and is in the way."""
    names = [node.name for node in fold_padding(chain())]
    assert "pad" not in names
    second = Node("second", "CONV_2D", "convolution", (2,), (20,), kernel=(3, 3), strides=(2, 2), channels=3)
    assert "pad" in [node.name for node in fold_padding([*chain(), second])]
