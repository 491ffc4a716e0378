"""Repair what removing channels did to the layers behind them, before any fine-tuning.

A removed channel was not zero: on average it added its mean times its weights to every consumer. That constant is
folded into the consumer's bias; where a batch normalization follows, re-estimating its statistics on training data
does the same and more. (Luo et al. 2017, arXiv:1707.06342, minimize the same error by least squares; re-estimation as
in Li et al. 2020, arXiv:2007.02491.)
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.prune.criteria import Evidence, input_moments
from edgeprune.prune.graph import Graph, ordered_nodes

if TYPE_CHECKING:
    import tf_keras


# Layers whose kernels have input channels along their last axis but one.
PLAIN_SUMS = ("Dense", "Conv1D", "Conv2D", "Conv3D")


def fold_means(graph: Graph, keep: np.ndarray, pruned: tf_keras.Model, evidence: Evidence) -> int:
    """Add what the removed channels contributed on average to the biases of their consumers in ``pruned``.

    Args:
        graph: of the unpruned model.
        keep: bool [units].
        pruned: what :func:`edgeprune.prune.surgery.remove` made; changed in place.
        evidence: training batches.

    Returns:
        The number of layers whose bias was changed.
    """
    changed = 0
    layers = {layer.name: layer for layer in pruned.layers}
    calls = collections.Counter(node.layer.name for node in ordered_nodes(graph.model))
    for layer, binding, moments in input_moments(graph, evidence):
        gone = ~keep[binding.vector]
        bias = getattr(layers[layer.name], "bias", None)
        # Only where the output is a plain sum over input channels, and these are of one tensor.
        if not gone.any() or bias is None or type(layer).__name__ not in PLAIN_SUMS or calls[layer.name] > 1:
            continue
        kernel = np.moveaxis(layer.weights[binding.weight].numpy(), binding.axis, 0)
        summed = kernel[gone].reshape(int(gone.sum()), -1, kernel.shape[-1]).sum(1)
        constant = moments.mean[gone] @ summed
        kept = _kept_outputs(graph, layer, keep, len(constant))
        if kept is None or kept.sum() != bias.shape[0]:
            continue
        bias.assign_add(constant[kept].astype(bias.dtype.as_numpy_dtype))
        changed += 1
    return changed


def _kept_outputs(graph: Graph, layer: Any, keep: np.ndarray, size: int) -> np.ndarray | None:
    """Which of the layer's own outputs stay, as its bias knows them."""
    number = next((i for i, weight in enumerate(layer.weights) if weight is layer.bias), None)
    for binding in graph.layers[layer.name].bindings:
        if binding.weight == number and len(binding.vector) == size:
            return keep[binding.vector]
    return None


def reestimate_batch_norm(model: tf_keras.Model, batches: Callable[[], Iterable[tuple[Any, Any]]]) -> int:
    """Set the statistics of every trainable batch normalization to their averages over ``batches``, in place.

    Returns:
        The number of layers re-estimated.
    """
    import tensorflow as tf
    import tf_keras

    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, tf_keras.layers.BatchNormalization) and layer.trainable
    ]
    if not norms:
        return 0
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # the moving statistics become those of the batch

    @tf.function(reduce_retracing=True)
    def forward(x: Any) -> None:
        model(x, training=True)

    sums: list[np.ndarray] = []
    count = 0
    for x, _ in batches():
        forward(x)
        found = [value.numpy() for layer in norms for value in (layer.moving_mean, layer.moving_variance)]
        sums = found if not sums else [a + b for a, b in zip(sums, found, strict=True)]
        count += 1
    averages = iter(value / count for value in sums)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.moving_mean.assign(next(averages))
        layer.moving_variance.assign(next(averages))
    return len(norms)
