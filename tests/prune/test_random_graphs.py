"""Random graphs: whatever the wiring, the pruned model equals both oracles, and its counts are the predicted ones."""

import contextlib

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import RecipeError
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.choice.allocation import allocate
from edgeprune.prune.choice.budget import Budget, Constraints, kept_fractions

GRAPHS = 40
LONG = 1160

BLOCKS = []


def block(function):
    """Enter a block: ``(L, random, x, other) -> tensor``, images of 4x4 in and out; ``other`` is any earlier tensor."""
    BLOCKS.append(function)
    return function


def _width(random):
    return int(random.choice([4, 6, 8]))


def _projected(L, x, channels):
    return x if x.shape[-1] == channels else L.Conv2D(channels, 1)(x)


@block
def convolution(L, random, x, other):
    kind = random.choice(["relu", "tanh", "linear"])
    return L.Conv2D(_width(random), int(random.choice([1, 3])), padding="same", activation=kind)(x)


@block
def residual(L, random, x, other):
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(_width(random), 3, padding="same")(x)))
    return L.Add()([x, L.Conv2D(x.shape[-1], 1)(y)])


@block
def merge(L, random, x, other):
    kind = random.choice(["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
    return getattr(L, kind)()([x, _projected(L, other, x.shape[-1])])


@block
def dense_block(L, random, x, other):
    for _ in range(2):
        x = L.Concatenate()([x, L.Conv2D(4, 1, activation="relu")(L.BatchNormalization()(x))])
    return x


@block
def concatenation(L, random, x, other):
    return L.Concatenate()([other, x, other] if random.random() < 0.3 else [x, other])


@block
def branches(L, random, x, other):
    parts = [
        L.Conv2D(_width(random), 1)(x),
        L.MaxPooling2D(3, 1, "same")(x),
        L.SeparableConv2D(4, 3, padding="same")(x),
    ]
    return L.Concatenate()([parts[i] for i in random.permutation(3)])


@block
def depthwise(L, random, x, other):
    return L.DepthwiseConv2D(3, padding="same", depth_multiplier=int(random.choice([1, 1, 2])))(x)


@block
def grouped(L, random, x, other):
    groups = int(random.choice([g for g in (2, 3, 4, 6, x.shape[-1]) if x.shape[-1] % g == 0] or [1]))
    return L.Conv2D(groups * int(random.choice([1, 2])), 3, padding="same", groups=groups)(x)


@block
def squeeze_and_excitation(L, random, x, other):
    s = L.GlobalAveragePooling2D(keepdims=True)(x) if random.random() < 0.5 else None
    s = L.Reshape((1, 1, x.shape[-1]))(L.GlobalMaxPooling2D()(x)) if s is None else s
    return L.Multiply()([x, L.Conv2D(x.shape[-1], 1, activation="sigmoid")(L.Conv2D(3, 1, activation="relu")(s))])


@block
def spatial_attention(L, random, x, other):
    return L.Multiply()([L.Conv2D(1, 1, activation="sigmoid")(other), x])


@block
def shared(L, random, x, other):
    conv = L.Conv2D(_width(random), 1, activation="relu")
    y = conv(_projected(L, other, x.shape[-1]))
    return L.Add()([conv(x), y]) if random.random() < 0.5 else L.Concatenate()([y, conv(x)])


@block
def up_and_down(L, random, x, other):
    if random.random() < 0.5:
        return L.MaxPooling2D(2)(L.Conv2DTranspose(_width(random), 3, strides=2, padding="same")(x))
    return L.UpSampling2D(2)(L.Conv2D(_width(random), 3, strides=2, padding="same")(x))


@block
def shuffle(L, random, x, other):
    groups = next(g for g in (2, 3, 1) if x.shape[-1] % g == 0)
    y = L.Permute((1, 2, 4, 3))(L.Reshape((4, 4, groups, x.shape[-1] // groups))(x))
    return L.Reshape((4, 4, x.shape[-1]))(y)


@block
def normalization(L, random, x, other):
    groups = next(g for g in (4, 3, 2, 1) if x.shape[-1] % g == 0)
    made = [L.GroupNormalization(groups), L.BatchNormalization(), L.PReLU(shared_axes=[1, 2]), L.LayerNormalization()]
    return made[int(random.choice(4, p=[0.3, 0.3, 0.3, 0.1]))](x)


@block
def parts(L, random, x, other):
    import tensorflow as tf

    a, b = tf.split(x, [x.shape[-1] - 2, 2], axis=-1)
    return L.Concatenate()([b, tf.nn.relu(a) * 2.0]) if random.random() < 0.5 else x[..., 1:] + 1.0


def random_model(L, seed):
    """A model of 3 to 6 random blocks with one to three outputs."""
    import tf_keras

    random = np.random.default_rng(seed)
    i = L.image()
    pool = [L.Conv2D(_width(random), 3, padding="same")(i)]
    for _ in range(random.integers(3, 7)):
        x = pool[-1] if random.random() < 0.7 else pool[random.integers(len(pool))]
        made = BLOCKS[random.integers(len(BLOCKS))](L, random, x, pool[random.integers(len(pool))])
        pool.append(made if made.shape[-1] <= 32 else L.Conv2D(8, 1)(made))
    heads = [
        lambda x: L.Dense(3)(L.Dense(5, activation="relu")(L.GlobalAveragePooling2D()(x))),
        lambda x: L.Dense(3)(L.Flatten()(L.MaxPooling2D(2)(x))),
        lambda x: L.Conv2D(2, 1)(x),
        lambda x: L.Dense(3)(L.Dense(6)(L.Reshape((16, x.shape[-1]))(x))),
    ]
    outputs = [heads[random.integers(4)](pool[-1])]
    for _ in range(random.integers(0, 3)):
        outputs.append(heads[random.integers(4)](pool[random.integers(len(pool))]))
    return tf_keras.Model(i, outputs)


def _check_range(L, check, seeds):
    import tf_keras

    removed = 0
    for seed in seeds:
        tf_keras.backend.clear_session()
        try:
            found = check(random_model(L, seed), seed, masked=seed % 5 == 0)  # building it takes half of the time
        except Exception as error:
            raise AssertionError(f"random_model(L, {seed}): {error}") from error
        removed += int((~found.keep).sum())
    assert removed > len(seeds)


@pytest.mark.parametrize("start", representatives(range(0, GRAPHS, 5), 0))
def test_random_graphs(L, check, start):
    """Five random graphs with random weights and a random selection hold both oracles."""
    _check_range(L, check, range(start, start + 5))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(GRAPHS, GRAPHS + LONG, 40))
def test_more_random_graphs(L, check, start):
    """Forty more random graphs hold both oracles."""
    _check_range(L, check, range(start, start + 40))


def _random_scores(graph):
    generator = np.random.default_rng(0)
    return {group.name: generator.normal(size=group.size) ** 2 for group in graph.groups}


def _reachable(graph, scores, budget):
    """Whether one of many random numbers of the least important channels of each group meets the budget."""
    generator = np.random.default_rng(0)
    for _ in range(500):
        keep = np.ones(len(graph.units), bool)
        for group in graph.groups:
            least = group.free[np.argsort(scores[group.name][group.free])]
            most = min(len(least), int(group.size * Constraints.max_rate))
            keep[group.units[least[: generator.integers(most + 1)]]] = False
        fractions = kept_fractions(graph, keep, budget)
        excess = max(fraction - budget.limits[what] for what, fraction in fractions.items())
        if excess <= 0 and all(keep[vector].any() for vector in graph.nonempty):
            return True
    return False


def _check_budgets(graph):
    scores = _random_scores(graph)
    for limits in ({"max_macs": 0.3}, {"max_macs": 0.5}, {"max_params": 0.7}, {"max_params": 0.5, "max_macs": 0.6}):
        for how in ("global", "uniform"):
            budget = Budget(**limits)
            with contextlib.suppress(RecipeError):
                keep = allocate(graph, scores, budget, how, Constraints()).keep
                excess = max(part - budget.limits[what] for what, part in kept_fractions(graph, keep, budget).items())
                assert excess <= 1e-9, f"{how}, {budget}: {excess:+.1%}"
                continue
            assert not _reachable(graph, scores, budget), f"{how}, {budget} is refused"


@pytest.mark.parametrize("seed", representatives([2000, 2003, 2011], 2000))
def test_budgets_are_met_where_they_can_be(L, randomize, seed):
    """A budget is kept, and refused only where no random choice of channels keeps it either."""
    _check_budgets(analyse(randomize(random_model(L, seed))))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(2040, 2120, 40))
def test_more_budgets_are_met_where_they_can_be(L, randomize, start):
    """Forty more random graphs: no budget is refused that a random choice meets."""
    for seed in range(start, start + 40):
        _check_budgets(analyse(randomize(random_model(L, seed))))
