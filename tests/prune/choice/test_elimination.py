"""Backward elimination by refitted error."""

import itertools

import numpy as np
import pytest
import tf_keras

from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.choice.criteria import CRITERIA, Evidence
from edgeprune.prune.choice.elimination import Consumer, consumers_of, eliminate, eliminations

layers = tf_keras.layers


def _refitted_error(squares, matrix, gone):
    """Of the best other weights where the terms ``gone`` are zero, by solving for them."""
    left = [term for term in range(len(squares)) if term not in gone]
    best = np.zeros_like(matrix)
    best[left] = np.linalg.solve(squares[np.ix_(left, left)], squares[left] @ matrix)
    lost = matrix - best
    return float((lost * (squares @ lost)).sum())


@pytest.fixture
def model():
    inputs = layers.Input((6, 6, 2))
    x = layers.Conv2D(5, 3, activation="relu", name="made")(inputs)
    one, two = layers.Conv2D(3, 2, name="one")(x), layers.Conv2D(2, 2, name="two")(x)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(branch) for branch in (one, two)])
    return tf_keras.Model(inputs, layers.Dense(3, "softmax", name="out")(x))


@pytest.fixture
def batches():
    generator = np.random.default_rng(0)
    return [[generator.normal(size=(40, 6, 6, 2)).astype("float32")] for _ in range(3)]


def test_the_curve_is_the_refitted_error_of_two_consumers(model, batches):
    """At every width the error is that of refitting all consumers at once, and no other channel would cost less."""
    graph = analyse(model)
    fisher = {"one": np.array([1.0, 2.0, 0.5]), "two": np.array([3.0, 1.0])}
    consumers = consumers_of(graph, batches, fisher)
    group = next(group for group in graph.groups if group.name == "made")
    known = [(one.units, np.linalg.inv(one.inverse), one.matrix.copy()) for one in consumers]
    found = eliminate(group, consumers)
    assert len(set(found.order.tolist())) == len(found.order) == 4  # one stays

    def total(gone):
        units = group.units[list(gone)]
        return sum(_refitted_error(s, w, np.flatnonzero(np.isin(u, units)).tolist()) for u, s, w in known)

    for count in range(1, len(found.order) + 1):
        gone = found.order[:count].tolist()
        assert found.errors[count] == pytest.approx(total(gone), rel=1e-6)
        others = [total([*gone[:-1], other]) for other in range(5) if other not in gone]
        assert all(found.errors[count] <= other * (1 + 1e-9) for other in others)


def test_every_group_with_consumers_has_a_rising_curve(model, batches):
    """The more channels go, the larger the error."""
    graph = analyse(model)
    found = eliminations(graph, batches)
    assert set(found) == {"made", "one", "two"}
    assert all(a <= b + 1e-12 for one in found.values() for a, b in itertools.pairwise(one.errors))


def test_a_copy_of_a_channel_costs_nothing():
    """Of two channels that are the same, one can go without a loss: the other makes up for it."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 4))
    x[:, 3] = 2 * x[:, 1]
    squares = np.cov(x.T) + 1e-9 * np.eye(4)

    class Group:
        units, free, size = np.arange(4) + 1, np.arange(4), 4

    found = eliminate(Group, [Consumer(np.arange(4) + 1, np.linalg.inv(squares), generator.normal(size=(4, 3)))])
    assert found.order[0] in (1, 3)
    assert found.errors[1] < 1e-6 < found.errors[2]


def test_scores_keep_the_order_of_elimination(model, batches):
    """The criterion's scores rise in the order in which channels would go; every removable unit has one."""
    graph = analyse(model)
    chosen = CRITERIA["reconstruct"]
    assert chosen.needs_data
    scores = chosen.score(graph, Evidence(lambda: [(batch[0],) for batch in batches]))
    for name, found in eliminations(graph, batches).items():
        assert (np.diff(scores[name][found.order]) > 0).all()
