"""Every criterion's defining property, on small cases with known answers."""

import numpy as np
import pytest
from matrix import representatives
from samples import data_of

from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.choice.criteria import CRITERIA, Evidence
from edgeprune.recipe.config import TaskConfig
from edgeprune.tasks.resolve import resolve_task


def task_of(model, x, y, **config):
    return resolve_task(model, TaskConfig(**config), data_of(model, x, y))


@pytest.fixture
def mlp(L, randomize):
    """Three inputs → six hidden units → two outputs; channels of a convolution would behave the same."""
    import tf_keras

    i = L.Input((3,))
    x = L.Dense(6, activation="relu", name="hidden")(i)
    return randomize(tf_keras.Model(i, L.Dense(2, name="head")(x)), 3)


@pytest.fixture
def evidence(mlp):
    random = np.random.default_rng(0)
    batches = [(random.normal(size=(16, 3)).astype("float32"), random.normal(size=(16, 2)).astype("float32"))] * 2
    return Evidence(lambda: batches, task_of(mlp, *batches[0], loss="mse"), seed=0)


def _scores(name, model, evidence=None, group="hidden"):
    return CRITERIA[name].score(analyse(model), evidence or Evidence())[group]


def _set_columns(layer, kernel, bias=None):
    layer.set_weights([np.asarray(kernel, float), np.zeros(6) if bias is None else np.asarray(bias, float)])


def _normalized(values):
    return np.asarray(values) / np.mean(values)


def test_l1_and_l2_are_norms_of_filters(mlp):
    """The scores are the norms of the columns that make a channel, relative to their mean."""
    kernel = mlp.get_layer("hidden").kernel.numpy()
    np.testing.assert_allclose(_scores("l1", mlp), _normalized(np.abs(kernel).sum(0)), rtol=1e-6)
    np.testing.assert_allclose(_scores("l2", mlp), _normalized(np.linalg.norm(kernel, axis=0)), rtol=1e-6)


def test_groups_average_their_members(L, randomize):
    """Layers of one group count the same, however large their weights are."""
    import tf_keras

    i = L.Input((4,))
    a, b = L.Dense(3, name="a")(i), L.Dense(3, name="b")(i)
    model = randomize(tf_keras.Model(i, L.Dense(2)(L.Add()([a, b]))))
    norms = [np.linalg.norm(model.get_layer(name).kernel, axis=0) for name in "ab"]
    model.get_layer("a").kernel.assign(1000 * model.get_layer("a").kernel)
    expected = (_normalized(norms[0]) + _normalized(norms[1])) / 2
    np.testing.assert_allclose(_scores("l2", model, group="a"), expected, rtol=1e-5)


def test_fpgm_ranks_duplicates_lowest(mlp):
    """Of filters with equal norms, the two that are the same can be replaced by each other."""
    kernel = np.zeros((3, 6))
    kernel[:, 0] = kernel[:, 1] = [1, 0, 0]
    kernel[:, 2:] = np.array([[-1, 0, 0], [0, 1, 0], [0, 0, -1], [0, -0.6, -0.8]]).T
    _set_columns(mlp.get_layer("hidden"), kernel)
    scores = _scores("fpgm", mlp)
    distances = np.linalg.norm(kernel[:, :, None] - kernel[:, None], axis=0).sum(0)
    np.testing.assert_allclose(scores, _normalized(distances), rtol=1e-6)
    assert scores[0] == scores[1]


def test_bn_scale_reads_the_batch_normalization(L, randomize):
    """The score is the absolute scale behind the channel; groups without one are scored by L2."""
    import tf_keras

    i = L.image()
    x = L.BatchNormalization(name="norm")(L.Conv2D(4, 1, name="conv")(i))
    x = L.Conv2D(5, 1, name="plain")(x)
    model = randomize(tf_keras.Model(i, L.head(x)))
    model.get_layer("norm").gamma.assign([0.1, -3.0, 1.0, 0.5])
    np.testing.assert_allclose(_scores("bn_scale", model, group="conv"), _normalized([0.1, 3, 1, 0.5]), rtol=1e-6)
    np.testing.assert_array_equal(_scores("bn_scale", model, group="plain"), _scores("l2", model, group="plain"))


def test_bn_scale_of_channels_without_one(L, randomize):
    """Channels of a group that no normalization follows are scored by L2, so they do not go first."""
    import tf_keras

    i = L.image()
    x = L.Conv2D(8, 1, name="conv")(i)
    model = randomize(tf_keras.Model(i, L.head(L.Concatenate()([x[..., :3], L.BatchNormalization()(x[..., 3:])]))))
    found = _scores("bn_scale", model, group="conv")
    np.testing.assert_array_equal(found[:3], _scores("l2", model, group="conv")[:3])
    assert found.min() > 0


def test_random_depends_on_the_seed_only(mlp, randomize):
    """The same seed gives the same scores for any weights; another seed gives others."""
    first = _scores("random", mlp, Evidence(seed=1))
    randomize(mlp, 9)
    np.testing.assert_array_equal(_scores("random", mlp, Evidence(seed=1)), first)
    assert not np.array_equal(_scores("random", mlp, Evidence(seed=2)), first)


def _gate_derivatives(model, evidence):
    """Derivative of each batch's loss in a gate on every hidden unit, by central differences."""
    loss, head = evidence.task.loss_function(), model.get_layer("head")
    kernel, rows, step = head.kernel.numpy(), [], 1e-2
    for x, y in evidence.batches():
        row = []
        for unit in range(6):
            values = []
            for sign in (1, -1):
                gated = kernel.copy()
                gated[unit] *= 1 + sign * step
                head.kernel.assign(gated)
                values.append(float(loss(y, model(x))))
            row.append((values[0] - values[1]) / (2 * step))
        rows.append(row)
    head.kernel.assign(kernel)
    return np.array(rows)


def test_taylor_and_fisher_are_derivatives_in_gates(mlp, evidence):
    """Taylor is the absolute mean derivative of the loss when a channel is gated, Fisher the mean of its square."""
    derivatives = _gate_derivatives(mlp, evidence)
    np.testing.assert_allclose(_scores("taylor", mlp, evidence), np.abs(derivatives.mean(0)), rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(_scores("fisher", mlp, evidence), (derivatives**2).mean(0), rtol=4e-3, atol=1e-5)


def test_taylor_adds_up_consumers(L, randomize):
    """A channel that two layers read changes the loss through both: their derivatives add before the absolute value."""
    import tf_keras

    i = L.Input((3,))
    x = L.Dense(4, name="hidden")(i)
    model = randomize(tf_keras.Model(i, L.Subtract()([L.Dense(2, name="a")(x), L.Dense(2, name="b")(x)])))
    model.get_layer("b").set_weights(model.get_layer("a").get_weights())
    x, y = np.random.default_rng(0).normal(size=(8, 3)).astype("float32"), np.ones((8, 2), "float32")
    evidence = Evidence(lambda: [(x, y)], task_of(model, x, y, loss="mse"))
    np.testing.assert_allclose(_scores("taylor", model, evidence), 0, atol=1e-6)


def _hidden(mlp, evidence):
    x = np.concatenate([x for x, _ in evidence.batches()])
    layer = mlp.get_layer("hidden")
    return np.maximum(x @ layer.kernel.numpy() + layer.bias.numpy(), 0)


def test_activation_and_apoz_are_statistics_of_activations(mlp, evidence):
    """Activation is the mean absolute value, APoZ the fraction that is not zero, relative to their means."""
    values = _hidden(mlp, evidence)
    np.testing.assert_allclose(_scores("activation", mlp, evidence), _normalized(np.abs(values).mean(0)), rtol=1e-5)
    np.testing.assert_allclose(_scores("apoz", mlp, evidence), _normalized((values != 0).mean(0)), rtol=1e-5)


def test_apoz_ranks_dead_channels_first(mlp, evidence):
    """A channel that never fires has score zero."""
    kernel, bias = mlp.get_layer("hidden").get_weights()
    bias[4] = -100
    _set_columns(mlp.get_layer("hidden"), kernel, bias)
    scores = _scores("apoz", mlp, evidence)
    assert scores[4] == 0
    assert (np.delete(scores, 4) > 0).all()


def test_reconstruction_ranks_constant_channels_first(mlp, evidence):
    """A channel of constant value, however large, is lost without loss: its mean goes into the bias."""
    kernel, bias = mlp.get_layer("hidden").get_weights()
    kernel[:, 2], bias[2] = 0, 50.0
    _set_columns(mlp.get_layer("hidden"), kernel, bias)
    scores = _scores("reconstruction", mlp, evidence)
    assert scores.argmin() == 2
    assert scores[2] < 1e-6
    assert _scores("activation", mlp, evidence).argmax() == 2
    energy = _hidden(mlp, evidence).var(0) * np.square(mlp.get_layer("head").kernel.numpy()).sum(1)
    np.testing.assert_allclose(scores, _normalized(energy), rtol=1e-4, atol=1e-6)


def test_sampling_draws_in_proportion_to_contribution(mlp, evidence):
    """Over many seeds, a channel is the first one kept as often as its share of the contribution says."""
    from edgeprune.prune.choice import criteria

    values, kernel = _hidden(mlp, evidence), mlp.get_layer("head").kernel.numpy()
    share = np.abs(values).mean(0) * np.linalg.norm(kernel, axis=1)
    share /= share.sum()
    graph, draws, found = analyse(mlp), 1000, np.zeros(6)
    moments = list(criteria.input_moments(graph, evidence))
    original = criteria.input_moments
    criteria.input_moments = lambda *_: iter(moments)  # the data is the same for every seed: look at it once
    try:
        for seed in range(draws):
            scores = CRITERIA["sampling"].score(graph, Evidence(evidence.batches, seed=seed))["hidden"]
            found[scores.argmax()] += 1 / draws
    finally:
        criteria.input_moments = original
    np.testing.assert_allclose(found, share, atol=4 * np.sqrt(0.25 / draws))


DATA = [name for name, criterion in CRITERIA.items() if criterion.needs_data]


@pytest.mark.parametrize("name", representatives(DATA, "taylor", "apoz", "reconstruct"))
def test_channels_that_no_weights_read_are_not_the_first_to_go(L, randomize, name):
    """The factors of a dot product have scores like the others, not zero."""
    import tf_keras

    i = L.Input((3,))
    a, b = L.Dense(6, name="a")(i), L.Dense(6, name="b")(i)
    x = L.Dense(5, activation="relu", name="c")(i)
    model = randomize(tf_keras.Model(i, L.Dense(2)(L.Concatenate()([L.Dot(1)([a, b]), x]))))
    x, y = np.random.default_rng(0).normal(size=(32, 3)).astype("float32"), np.ones((32, 2), "float32")
    evidence = Evidence(lambda: [(x, y)], task_of(model, x, y, loss="mse"))
    scores = CRITERIA[name].score(analyse(model), evidence)
    assert (scores["a"] > 0).all()
    if name != "sampling":  # which draws
        assert 0.2 < scores["a"].mean() / scores["c"].mean() < 5


# Of those that average over batches, one; the same for scores of weights alone.
@pytest.mark.parametrize(
    "name", representatives(CRITERIA, "taylor", "reconstruction", "reconstruct", "l2", "fpgm", "bn_scale")
)
def test_criteria_work_on_every_kind_of_group(L, randomize, name):
    """Finite scores, one per unit, for convolutions, attention, recurrence, shared layers, named inputs."""
    import tf_keras

    image, words = tf_keras.Input((4, 4, 3), name="image"), tf_keras.Input((4,), dtype="int32", name="words")
    shared = L.Conv2D(4, 1)
    x = L.Conv2D(6, 3, groups=2)(L.Concatenate()([shared(image), shared(L.ReLU()(image))]))
    y = L.Embedding(5, 4)(words)
    y = L.LSTM(4, unroll=True)(L.Add()([y, L.MultiHeadAttention(2, 2)(y, y)]))
    x = L.Dense(3)(L.Concatenate()([L.Flatten()(x), L.Dense(4)(y)]))
    model = randomize(tf_keras.Model({"words": words, "image": image}, x))
    random = np.random.default_rng(0)
    batch = {"image": random.normal(size=(8, 4, 4, 3)).astype("float32"), "words": random.integers(0, 5, (8, 4))}
    labels = random.integers(0, 3, 8)
    evidence = Evidence(lambda: [(batch, labels)], task_of(model, batch, labels))
    graph = analyse(model)
    scores = CRITERIA[name].score(graph, evidence)
    assert scores.keys() == {group.name for group in graph.groups}
    for group in graph.groups:
        assert scores[group.name].shape == (group.size,)
        assert np.isfinite(scores[group.name]).all()
