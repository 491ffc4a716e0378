"""Repair of the means behind removed channels, for layers that cannot be refitted (:mod:`edgeprune.reconstruction`).

A removed channel was not zero: on average it added its mean times its weights to every consumer. That constant is
folded into the consumer's bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import activation_name
from edgeprune.models.layer_facts import LAYER_FACTS
from edgeprune.models.types import Layer, Variable
from edgeprune.prune.channels.graph import Graph
from edgeprune.prune.choice.criteria import Evidence, input_moments

if TYPE_CHECKING:
    import tf_keras


# Layers whose outputs are, bias aside, sums over all input channels and all positions of the kernel.
PLAIN_SUMS = ("Dense", "Conv1D", "Conv2D", "Conv3D")


def fold_means(graph: Graph, keep: np.ndarray, pruned: tf_keras.Model, evidence: Evidence) -> int:
    """Add what the removed channels contributed on average to the biases of their consumers in ``pruned``.

    A consumer without a bias may have a batch normalization behind it that is frozen, and is not re-estimated
    therefore: its mean is lowered by as much.

    Args:
        graph: of the unpruned model.
        keep: bool [units].
        pruned: what :func:`edgeprune.prune.channels.surgery.remove` made; changed in place.
        evidence: training batches.

    Returns:
        The number of layers whose constant was changed.
    """
    changed = 0
    layers = {layer.name: layer for layer in pruned.layers}
    for layer, binding, moments in input_moments(graph, evidence):
        gone = ~keep[binding.vector]
        # Only where the output is a plain sum over input channels, and these are of one tensor.
        if not gone.any() or type(layer).__name__ not in PLAIN_SUMS or len(graph.view.uses(layer)) > 1:
            continue
        target = _constant_behind(graph, layer)
        if target is None:
            continue
        (output_axis,) = LAYER_FACTS[type(layer).__name__].channel_axes
        kernel = np.moveaxis(layer.weights[binding.weight].numpy(), (binding.axis, output_axis), (0, -1))
        summed = kernel[gone].reshape(int(gone.sum()), -1, kernel.shape[-1]).sum(1)
        constant = moments.mean[gone] @ summed
        holder, name, sign = target
        kept = _kept_positions(graph, holder, getattr(holder, name), keep, len(constant))
        variable = getattr(layers[holder.name], name)
        if kept is None or kept.sum() != variable.shape[0]:
            continue
        variable.assign_add(sign * constant[kept].astype(variable.dtype.as_numpy_dtype))
        changed += 1
    return changed


def _constant_behind(graph: Graph, layer: Layer) -> tuple[Layer, str, int] | None:
    """Where a constant can be added to the output of a layer: the layer that holds it, its attribute, and the sign."""
    import tf_keras

    if layer.bias is not None:
        return layer, "bias", 1
    view = graph.view
    (call,) = view.uses(layer)
    readers = [node.layer for node in view.readers(call.outputs)]
    if len(readers) != 1 or view.is_end(call.outputs) or len(view.uses(readers[0])) > 1:
        return None
    is_frozen = isinstance(readers[0], tf_keras.layers.BatchNormalization) and not readers[0].trainable
    return (readers[0], "moving_mean", -1) if is_frozen and activation_name(layer) == "linear" else None


def _kept_positions(graph: Graph, layer: Layer, variable: Variable, keep: np.ndarray, size: int) -> np.ndarray | None:
    """Which positions of a variable with one axis stay."""
    number = next((i for i, weight in enumerate(layer.weights) if weight is variable), None)
    for binding in graph.layers[layer.name].bindings:
        if binding.weight == number and len(binding.vector) == size:
            return keep[binding.vector]
    return None
