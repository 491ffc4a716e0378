"""What is repaired after removal: means go into biases, batch normalization gets the statistics of the new model."""

import numpy as np
import pytest

from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.choice.criteria import Evidence
from edgeprune.prune.compensation import fold_means


def _batches(shape, count=2):
    random = np.random.default_rng(0)
    return [(random.normal(1, 1, (16, *shape)).astype("float32"), None) for _ in range(count)]


def _without(graph, name, numbers):
    keep = np.ones(len(graph.units), bool)
    group = next(group for group in graph.groups if group.name == name)
    keep[group.units[numbers]] = False
    return keep


def _mean_output(model, batches):
    return np.concatenate([model(x, training=False).numpy() for x, _ in batches]).mean(0)


CONSUMERS = {
    "Dense": lambda L: L.Dense(4, name="consumer"),
    "Conv2D 1x1": lambda L: L.Conv2D(4, 1, name="consumer"),
    "Conv2D valid": lambda L: L.Conv2D(4, 3, name="consumer"),
    "Flatten": lambda L: L.Dense(4, name="consumer"),
}


@pytest.mark.parametrize("kind", CONSUMERS)
def test_constant_channels_are_removed_without_a_trace(L, randomize, kind):
    """Channels that have one value for all data go, and with their mean in the consumer's bias no output changes."""
    import tf_keras

    i = L.image()
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="made")(i)
    x = L.Flatten()(x) if kind == "Flatten" else x
    x = CONSUMERS[kind](L)(x)
    model = randomize(tf_keras.Model(i, x if kind == "Flatten" else L.head(x)))
    kernel, bias = model.get_layer("made").get_weights()
    kernel[..., [1, 4]], bias[[1, 4]] = 0, [2.0, 3.0]
    model.get_layer("made").set_weights([kernel, bias])
    graph, batches = analyse(model), _batches((4, 4, 3))
    keep = _without(graph, "made", [1, 4])
    pruned = surgery.remove(graph, keep)
    x = batches[0][0]
    assert np.abs(model(x) - pruned(x)).max() > 0.1
    assert fold_means(graph, keep, pruned, Evidence(lambda: batches)) == 1
    np.testing.assert_allclose(pruned(x), model(x), rtol=1e-4, atol=1e-4)


def test_the_mean_of_the_next_layer_is_kept(L, randomize):
    """Whatever the removed channels did, the consumer's mean output over the data stays what it was."""
    import tf_keras

    i = L.Input((5,))
    hidden = L.Dense(8, activation="relu", name="hidden")(i)
    model = randomize(tf_keras.Model(i, L.Dense(3, name="consumer")(hidden)))
    graph, batches = analyse(model), _batches((5,))
    keep = _without(graph, "hidden", [0, 3, 5])
    pruned = surgery.remove(graph, keep)
    before = _mean_output(model, batches)
    assert np.abs(_mean_output(pruned, batches) - before).max() > 0.05
    fold_means(graph, keep, pruned, Evidence(lambda: batches))
    np.testing.assert_allclose(_mean_output(pruned, batches), before, atol=1e-5)


def test_a_pruned_consumer_gets_its_own_part(L, randomize):
    """A consumer that loses channels itself: the constants go to the biases that are left."""
    import tf_keras

    i = L.Input((5,))
    x = L.Dense(8, activation="relu", name="a")(i)
    model = randomize(tf_keras.Model(i, L.Dense(2, name="head")(L.Dense(6, name="b")(x))))
    graph, batches = analyse(model), _batches((5,))
    keep = _without(graph, "a", [1, 2]) & _without(graph, "b", [0, 5])
    pruned = surgery.remove(graph, keep)
    assert fold_means(graph, keep, pruned, Evidence(lambda: batches)) == 2
    inner = [tf_keras.Model(m.input, m.get_layer("b").output) for m in (model, pruned)]
    np.testing.assert_allclose(_mean_output(inner[1], batches), _mean_output(inner[0], batches)[1:5], atol=1e-5)


def test_what_is_no_plain_sum_is_left_alone(L, randomize):
    """Separable convolutions, shared layers and layers without a bias are not touched."""
    import tf_keras

    i, shared = L.image(), L.Conv2D(4, 1, name="shared")
    x = L.Conv2D(6, 1, activation="relu", name="a")(i)
    parts = [L.SeparableConv2D(3, 1)(x), L.Conv2D(3, 1, use_bias=False)(x), shared(x), shared(L.ReLU()(x))]
    model = randomize(tf_keras.Model(i, L.head(L.Concatenate()(parts))))
    graph = analyse(model)
    keep = _without(graph, "a", [0, 1])
    pruned = surgery.remove(graph, keep)
    before = pruned.get_weights()
    assert fold_means(graph, keep, pruned, Evidence(lambda: _batches((4, 4, 3)))) == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, pruned.get_weights(), strict=True))


def test_a_frozen_normalization_takes_what_has_no_bias(L, randomize):
    """Behind a layer without bias, a frozen batch normalization lowers its mean, and the mean output stays."""
    import tf_keras

    i = L.Input((3,))
    x = L.Dense(5, use_bias=False, name="consumer")(L.Dense(6, activation="relu", name="a")(i))
    model = randomize(tf_keras.Model(i, L.Dense(2)(L.BatchNormalization(name="norm", trainable=False)(x))))
    graph, batches = analyse(model), _batches((3,))
    keep = _without(graph, "a", [0, 1]) & _without(graph, "consumer", [2])
    pruned, expected = surgery.remove(graph, keep), surgery.mask(graph, _without(graph, "consumer", [2]))
    assert fold_means(graph, keep, pruned, Evidence(lambda: batches)) == 2  # the last layer has a bias
    # Its bias took the mean of the consumer's channel; it has none of it in the oracle.
    pruned.layers[-1].bias.assign(model.layers[-1].bias)
    np.testing.assert_allclose(_mean_output(pruned, batches), _mean_output(expected, batches), atol=1e-5)


def test_layers_reused_from_another_model_are_folded(L, randomize):
    """A layer that an earlier model called too counts as called once: only the calls of this model matter."""
    import tf_keras

    layers = [L.Dense(6, activation="relu", name="a"), L.Dense(2, name="head")]
    sequential = tf_keras.Sequential([L.InputLayer((3,)), *layers])
    i = L.Input((3,))
    model = randomize(tf_keras.Model(i, layers[1](layers[0](i))))
    assert sequential.output_shape == (None, 2)
    graph, batches = analyse(model), _batches((3,))
    keep = _without(graph, "a", [0, 1])
    pruned = surgery.remove(graph, keep)
    assert fold_means(graph, keep, pruned, Evidence(lambda: batches)) == 1
    np.testing.assert_allclose(_mean_output(pruned, batches), _mean_output(model, batches), atol=1e-5)
