"""What a predicted error comes to in the answers, with everything behind refitted."""

import numpy as np
import pytest
import tf_keras

from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.choice import effects
from edgeprune.prune.choice.effects import with_effects
from edgeprune.prune.choice.elimination import eliminations
from edgeprune.reconstruction.fisher import divergence
from edgeprune.reconstruction.refit import refit

layers = tf_keras.layers


@pytest.fixture
def graph(randomize):
    inputs = layers.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, activation="relu", name="one")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="two")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1, name="three")(x))
    return analyse(randomize(tf_keras.Model(inputs, layers.Dense(3, "softmax", name="out")(x))))


@pytest.fixture
def batches():
    generator = np.random.default_rng(0)
    return [[generator.normal(size=(32, 8, 8, 2)).astype("float32")] for _ in range(12)]


def test_errors_are_weighed_by_what_the_outputs_differ_by(graph, batches):
    """At half of the channels, the error is what the refitted model's outputs differ by; the order and the shape of
    the curve stay."""
    found = eliminations(graph, batches)
    weighed = with_effects(graph, found, batches)
    for group in graph.groups:
        if group.name not in found:
            continue
        np.testing.assert_array_equal(weighed[group.name].order, found[group.name].order)
        ratios = weighed[group.name].errors[1:] / found[group.name].errors[1:]
        np.testing.assert_allclose(ratios, ratios[0])
        count = len(found[group.name].order) // 2
        keep = np.ones(len(graph.units), bool)
        keep[group.units[found[group.name].order[:count]]] = False
        pruned = surgery.remove(graph, keep)
        refit(graph.model, pruned, batches[:9], graph.kept_outputs(keep))
        measured = divergence(graph.model, pruned, batches[9:])
        assert weighed[group.name].errors[count] == pytest.approx(measured, rel=0.05)


def test_large_models_count_as_predicted(graph, batches, monkeypatch):
    """Where the refits would take too long, nothing is measured and nothing changed."""
    monkeypatch.setattr(effects, "_WORK", 1.0)
    monkeypatch.setattr(effects, "refit", None)
    found = eliminations(graph, batches)
    for name, weighed in with_effects(graph, found, batches).items():
        np.testing.assert_array_equal(weighed.errors, found[name].errors)


def test_groups_in_between_lie_in_between(graph, batches, monkeypatch):
    """With two groups measured, the first and the last, the factor of the others is between theirs."""
    monkeypatch.setattr(effects, "MEASURED", 2)
    found = eliminations(graph, batches)
    weighed = with_effects(graph, found, batches)
    names = [group.name for group in graph.groups if group.name in found]
    factors = [float(weighed[name].errors[-1] / found[name].errors[-1]) for name in names]
    assert min(factors[0], factors[-1]) <= factors[1] <= max(factors[0], factors[-1])
    assert factors[1] == pytest.approx(np.sqrt(factors[0] * factors[-1]))
