"""Clustering: few values per kernel, zero among them where weights were pruned; training keeps them equal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.quantize.cluster import assign
from edgeprune.quantize.structure import Structure, structure_of


@pytest.mark.parametrize("init", ["linear", "kmeans++"])
@settings(max_examples=30, deadline=None)
@given(clusters=st.integers(2, 20), sparsity=st.sampled_from([0.0, 0.5, 0.9]), seed=st.integers(0, 99))
def test_no_more_clusters_than_asked_for_and_zeros_stay_apart(init, clusters, sparsity, seed):
    """Every weight has a cluster, zeroed weights have one of their own, and near weights are together."""
    generator = np.random.default_rng(seed)
    kernel = generator.normal(size=(3, 3, 4, 5)).astype("float32")
    mask = (generator.random(kernel.shape) >= sparsity).astype("float32") if sparsity else None
    kernel = kernel if mask is None else kernel * mask
    numbers, count = assign(kernel, clusters, init, mask, np.random.default_rng(seed))
    assert count <= clusters
    assert set(np.unique(numbers)) == set(range(count))
    if mask is not None:
        assert set(numbers[mask == 0]).isdisjoint(numbers[mask == 1])
    shared = Structure(mask, numbers, count).project(kernel).numpy()
    assert len(np.unique(shared)) <= clusters
    assert (shared[kernel == 0] == 0).all()
    free = kernel[kernel != 0]
    order = np.argsort(free, kind="stable")
    assert (np.diff(shared[kernel != 0][order]) >= -1e-6).all()


def test_as_many_clusters_as_values_change_nothing():
    """A kernel that has few values already keeps them."""
    kernel = np.random.default_rng(0).choice(np.float32([-2, 0.5, 3]), (4, 6))
    numbers, count = assign(kernel, 3, "linear", None, np.random.default_rng(0))
    assert count == 3
    np.testing.assert_allclose(Structure(None, numbers, count).project(kernel), kernel, rtol=1e-6)


def test_kernels_without_one_scale_keep_their_clusters_in_each_channel():
    """One-dimensional and transposed convolutions are rounded by channel, and the count says so."""
    import tf_keras

    from edgeprune.quantize.cluster import cluster
    from edgeprune.quantize.qat import Preserved, prepare_training, share_weights
    from edgeprune.quantize.structure import count_clusters
    from edgeprune.recipe.config import ClusterConfig

    inputs = tf_keras.layers.Input([12, 3])
    model = tf_keras.Model(inputs, tf_keras.layers.Conv1D(12, 3, name="conv")(inputs))
    kept = cluster(model, ClusterConfig(n_clusters=8), zeros=False, seed=0)
    clustered = share_weights(model, kept).baked()
    x = np.random.default_rng(0).normal(size=(8, 12, 3)).astype("float32")
    trainee = prepare_training(clustered, [x], Preserved(clustered=("conv",)))
    rounded = trainee.baked().get_layer("conv").kernel.numpy()
    assert len(np.unique(clustered.get_layer("conv").kernel)) <= 8 < len(np.unique(rounded))
    assert max(len(np.unique(rounded[..., channel])) for channel in range(12)) <= 8
    assert [row["distinct"] for row in count_clusters(trainee.baked(), trainee.kept)] == [8]


def test_gradients_keep_equal_weights_equal_and_zeros_zero():
    """Steps of Adam on a projected kernel: the clusters move, the structure does not."""
    import tensorflow as tf
    import tf_keras

    generator = np.random.default_rng(0)
    kernel = generator.choice(np.float32([-1, 0, 0.5, 2]), (6, 8))
    structure = structure_of(kernel, zeros=True, clusters=True)
    variable, target = tf.Variable(kernel), generator.normal(size=kernel.shape).astype("float32")
    optimizer = tf_keras.optimizers.Adam(0.05)
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((structure.project(variable) - target) ** 2)
        optimizer.apply_gradients([(tape.gradient(loss, variable), variable)])
    trained = structure.project(variable).numpy()
    assert len(np.unique(trained)) == 4
    assert (trained[kernel == 0] == 0).all()
    np.testing.assert_allclose(variable, trained, atol=1e-5)
    assert not np.allclose(np.unique(trained), np.unique(kernel))
