"""Bias correction: quantized weights shift the mean of what a layer computes; its bias compensates for that.

After Nagel et al. 2019, arXiv:1906.04721, section 4.2, in its empirical form (appendix D): both means are measured on
representative samples, layer by layer, with all earlier layers already quantized and corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import View
from edgeprune.models.layer_facts import LayerFacts, along, facts_of, kernel_of, magnitudes
from edgeprune.models.types import Layer, Node, Variable
from edgeprune.runtime.tensors import Sample

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

Batch = np.ndarray | dict[str, np.ndarray]  # of one input, or of several by name
CORRECTED = frozenset({"Conv2D", "DepthwiseConv2D", "Dense"})
LEVELS = 127
SAMPLES = 128


def correct_biases(model: tf_keras.Model, samples: Callable[[], Iterable[Sample]]) -> list[str]:
    """Change biases so that the model's means survive the quantization of its weights, in place.

    The kernels stay in float: the converter will quantize them the same way. A batch normalization behind a layer
    without bias takes the correction in its moving mean.

    Args:
        samples: the representative dataset.

    Returns:
        Names of the layers corrected.
    """
    import itertools

    import tf_keras

    view = View(model)
    targets = [node for node in view.nodes if type(node.layer).__name__ in CORRECTED]
    targets = [node for node in targets if len(view.uses(node.layer)) == 1 and _place(view, node) is not None]
    batch = _stack(list(itertools.islice(samples(), SAMPLES)))
    wanted = {}
    for node in targets:
        wanted[node.layer.name] = _mean(tf_keras.Model(model.inputs, node.outputs), batch, node.layer)
    originals = {node.layer.name: kernel_of(node.layer).numpy() for node in targets}
    for node in targets:
        layer, facts = node.layer, facts_of(node.layer)
        assert facts is not None
        kernel_of(layer).assign(rounded(originals[layer.name], facts))
        actual = _mean(tf_keras.Model(model.inputs, node.outputs), batch, layer)
        weight, sign = _place(view, node)  # type: ignore[misc]
        weight.assign(weight.numpy() + sign * (wanted[layer.name] - actual))
    for node in targets:
        kernel_of(node.layer).assign(originals[node.layer.name])
    return [node.layer.name for node in targets]


def rounded(kernel: np.ndarray, facts: LayerFacts) -> np.ndarray:
    """A kernel as int8 stores it: symmetric, one scale per output channel."""
    step = along(magnitudes(kernel, facts.channel_axes) / LEVELS, facts.channel_axes, kernel.shape)
    step = np.where(step == 0, 1, step)
    return (np.round(kernel / step) * step).astype(np.float32)


def _place(view: View, node: Node) -> tuple[Variable, int] | None:
    """The weight that can take the correction, and its sign; None where there is none."""
    layer = node.layer
    if layer.use_bias:
        return layer.bias, 1
    following = view.readers(node.outputs)
    if len(following) == 1 and type(following[0].layer).__name__ == "BatchNormalization":
        return following[0].layer.moving_mean, -1
    return None


def _mean(model: tf_keras.Model, batch: Batch, layer: Layer) -> np.ndarray:
    """Mean of a layer's output before its activation, per channel."""
    activation = getattr(layer, "activation", None)
    layer.activation = None if activation is None else _identity
    try:
        values = np.asarray(model(batch, training=False))
    finally:
        layer.activation = activation
    return values.reshape(-1, values.shape[-1]).mean(0, dtype=np.float64).astype(np.float32)


def _identity(x: tf.Tensor) -> tf.Tensor:
    return x


def _stack(rows: list[Sample]) -> Batch:
    first = rows[0]
    if isinstance(first, Mapping):
        return {name: np.concatenate([row[name] for row in rows]) for name in first}  # type: ignore[call-overload]
    return np.concatenate([row[0] for row in rows])  # type: ignore[index]
