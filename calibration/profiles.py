"""Activation profiles of samples: the smallest and largest value of each channel of each activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Split

BATCH = 32


def activation_profiles(model: tf_keras.Model, split: Split, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run samples through a model and record the range of every channel.

    Args:
        model: functional tf_keras model.
        split: where the samples are.
        indices: positions in the split.

    Returns:
        float32 [samples, channels]: the smallest and the largest value of each channel of every layer's float output,
        over all positions. A channel is an index along the last axis.
    """
    import tensorflow as tf
    import tf_keras

    outputs = [
        tensor
        for layer in model.layers
        for node in layer.inbound_nodes[:1]
        for tensor in tf.nest.flatten(node.outputs)
        if tensor.dtype.is_floating and len(tensor.shape) > 1
    ]
    watched = tf_keras.Model(model.inputs, outputs)

    @tf.function(reduce_retracing=True)
    def forward(x: object) -> tuple[tf.Tensor, tf.Tensor]:
        activations = tf.nest.flatten(watched(x, training=False))
        axes = [list(range(1, len(tensor.shape) - 1)) for tensor in activations]
        low = [tf.reduce_min(tensor, axis) for tensor, axis in zip(activations, axes, strict=True)]
        high = [tf.reduce_max(tensor, axis) for tensor, axis in zip(activations, axes, strict=True)]
        return tf.concat(low, -1), tf.concat(high, -1)

    rows = [forward(x) for x, *_ in split.batches(BATCH, indices=indices)]
    lows, highs = zip(*rows, strict=True)
    return np.concatenate(lows), np.concatenate(highs)


def converged_size(lows: np.ndarray, highs: np.ndarray, *, start: int, growth: float) -> int:
    """The smallest number of samples that, when doubled, widens the ranges by less than ``growth`` on average.

    Args:
        lows, highs: [samples, channels], in the order in which samples would be taken.
        start: the smallest size to consider.
        growth: relative to the range, for example 0.02.

    Returns:
        ``start`` times a power of two; the number of all samples if the ranges never converge.
    """
    size = start
    while 2 * size <= len(lows):
        before = highs[:size].max(0) - lows[:size].min(0)
        after = highs[: 2 * size].max(0) - lows[: 2 * size].min(0)
        moving = after > 0
        if not moving.any() or float(np.mean(1 - before[moving] / after[moving])) < growth:
            return size
        size *= 2
    return len(lows)


def covering_order(lows: np.ndarray, highs: np.ndarray, samples: int) -> np.ndarray:
    """Order samples so that the first ones together cover the range of every channel as far as all candidates do.

    Greedy: each next sample is the one that raises the sum over channels of (reach so far / reach of all candidates)
    most. That sum is submodular, so greedy choice is within 1 - 1/e of the best (Nemhauser et al. 1978).

    Args:
        lows, highs: [candidates, channels].
        samples: how many to choose.

    Returns:
        int64 [samples], positions among the candidates. When no further sample raises the sum, the rest follows in the
        order given.
    """
    reach = np.concatenate([np.maximum(-lows, 0), np.maximum(highs, 0)], axis=1)
    whole = reach.max(0)
    reach = reach[:, whole > 0] / whole[whole > 0]
    covered = np.zeros(reach.shape[1], np.float32)
    left = np.ones(len(reach), bool)
    chosen = []
    for _ in range(min(samples, len(reach))):
        gains = np.where(left, np.maximum(reach - covered, 0).sum(1), -1)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        chosen.append(best)
        left[best] = False
        covered = np.maximum(covered, reach[best])
    rest = np.flatnonzero(left)[: samples - len(chosen)]
    return np.concatenate([np.asarray(chosen, np.int64), rest])
