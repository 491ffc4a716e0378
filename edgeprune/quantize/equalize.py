"""Cross-layer equalization: even out the ranges of channels between neighbouring layers.

After Nagel et al. 2019, arXiv:1906.04721, section 4.1. Where a layer's output reaches the next layer only through steps
that a positive factor passes (batch normalization, whose own factors are scaled; ReLU, padding, pooling), channel i may
be divided by s_i in the first layer and multiplied by s_i in the second: the model computes the same. With
s_i = sqrt(r1_i / r2_i), r being the largest weights that make and that read channel i, both ranges become equal.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import View, activation_name
from edgeprune.models.layer_facts import LAYER_FACTS, along, kernel_of, magnitudes
from edgeprune.models.types import Layer, Node, Variable

if TYPE_CHECKING:
    import tf_keras

# What can be either end of a pair.
_ENDS = frozenset({"Conv1D", "Conv2D", "Dense", "DepthwiseConv2D"})
# Layers that any positive factor per channel passes. A ReLU with a maximum is not one of them, leaky or not.
_HOMOGENEOUS = (
    "AveragePooling1D",
    "AveragePooling2D",
    "Dropout",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "LeakyReLU",
    "MaxPooling1D",
    "MaxPooling2D",
    "SpatialDropout2D",
    "ZeroPadding1D",
    "ZeroPadding2D",
)
_LINEAR_ACTIVATIONS = ("linear", "relu")
MAX_SWEEPS = 20
TOLERANCE = 1e-3  # a sweep that scales no channel by more than this is the last


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two layers that a positive factor per channel can move between; ``norm`` is the normalization in between."""

    producer: Layer
    norm: Layer | None
    consumer: Layer

    @property
    def channels(self) -> int:
        """How many channels the pair shares."""
        return int(np.prod([kernel_of(self.producer).shape[axis] for axis in _making_axes(self.producer)]))


def equalize(model: tf_keras.Model) -> list[tuple[str, str]]:
    """Even out channels, in place; the outputs of the model stay the same.

    Depthwise layers are both ends of a pair, so that conv → depthwise → conv is two pairs. Pairs are visited in turn
    until nothing moves.

    Returns:
        Names of producer and consumer of each pair.
    """
    pairs = find_pairs(model)
    for _ in range(MAX_SWEEPS):
        factors = [_equalize(pair) for pair in pairs]
        if all(np.abs(np.log(factor)).max() < TOLERANCE for factor in factors):
            break
    return [(pair.producer.name, pair.consumer.name) for pair in pairs]


def no_pairs(model: tf_keras.Model) -> str:
    """Why equalization changed nothing in a model without pairs, as a warning."""
    view = View(model)
    inner = [node.layer for node in view.nodes if not view.is_end(node.outputs)]
    blocking = list(dict.fromkeys(layer.name for layer in inner if not _activation_passes(layer)))
    more = f" and {len(blocking) - 3} more" if len(blocking) > 3 else ""
    what = (
        f"the activations between layers, such as ReLU6, are not scale-invariant ({', '.join(blocking[:3])}{more})"
        if blocking
        else "no two neighbouring layers are joined only by what scaling a channel passes (ReLU, pooling, padding)"
    )
    return f"Equalization changed nothing: {what}."


def find_pairs(model: tf_keras.Model) -> list[Pair]:
    """The pairs of a functional model: layers called once, with nothing else reading what is between them."""
    view = View(model)
    starts = [node for node in view.nodes if _makes_channels(node.layer) and len(view.uses(node.layer)) == 1]
    pairs = (_follow(node, view) for node in starts)
    return [pair for pair in pairs if pair is not None]


def _follow(start: Node, view: View) -> Pair | None:
    norm, node = None, start
    while True:
        tensor = node.outputs
        following = view.readers(tensor)
        if isinstance(tensor, list | tuple) or view.is_end(tensor) or len(following) != 1:
            return None
        node = following[0]
        layer, kind = node.layer, type(node.layer).__name__
        if len(view.uses(layer)) > 1 and layer.weights:
            return None
        if kind in _ENDS:
            return Pair(start.layer, norm, layer) if _reads_channels(layer) else None
        if kind == "BatchNormalization" and norm is None and start.layer is not None and _first(start, node):
            if not (layer.scale and layer.center):
                return None
            norm = layer
        elif not _is_homogeneous(layer):
            return None


def _first(start: Node, node: Node) -> bool:
    """A normalization right behind a linear layer; behind a ReLU its factors are not the layer's."""
    return node.keras_inputs[0] is start.outputs and activation_name(start.layer) == "linear"


def _activation_passes(layer: Layer) -> bool:
    return _is_homogeneous(layer) if type(layer).__name__ == "ReLU" else activation_name(layer) in _LINEAR_ACTIVATIONS


def _is_homogeneous(layer: Layer) -> bool:
    kind = type(layer).__name__
    if kind == "ReLU":
        return layer.max_value is None and not layer.threshold
    if kind == "Activation":
        return activation_name(layer) in _LINEAR_ACTIVATIONS
    if kind.startswith("ZeroPadding"):
        return True
    return kind in _HOMOGENEOUS


def _makes_channels(layer: Layer) -> bool:
    kind = type(layer).__name__
    return kind in _ENDS and activation_name(layer) in _LINEAR_ACTIVATIONS and _is_plain(layer)


def _reads_channels(layer: Layer) -> bool:
    return _is_plain(layer)


def _is_plain(layer: Layer) -> bool:
    return getattr(layer, "groups", 1) == 1 and getattr(layer, "depth_multiplier", 1) == 1


def _making_axes(layer: Layer) -> tuple[int, ...]:
    return LAYER_FACTS[type(layer).__name__].channel_axes


def _reading_axes(layer: Layer) -> tuple[int, ...]:
    axis = LAYER_FACTS[type(layer).__name__].input_axis
    assert axis is not None
    return (axis,)


def _equalize(pair: Pair) -> np.ndarray:
    """Scale one pair; returns the factors [channels] by which the producer was divided."""
    making = magnitudes(kernel_of(pair.producer).numpy(), _making_axes(pair.producer))
    if pair.norm is not None:
        deviation = np.sqrt(pair.norm.moving_variance.numpy() + pair.norm.epsilon)
        making = making * np.abs(pair.norm.gamma.numpy()) / deviation
    reading = magnitudes(kernel_of(pair.consumer).numpy(), _reading_axes(pair.consumer))
    # A dead channel has no range to even out.
    alive = (making > 0) & (reading > 0)
    factors = np.where(alive, np.sqrt(making / np.where(alive, reading, 1)), 1).astype(np.float32)
    factors[factors == 0] = 1
    move(pair, 1 / factors)
    return factors


def move(pair: Pair, factors: np.ndarray) -> None:
    """Multiply what makes each channel by a positive factor, and divide what reads it by the same.

    Args:
        factors: [channels].
    """
    if pair.norm is not None:
        for weight in (pair.norm.gamma, pair.norm.beta):
            weight.assign(weight.numpy() * factors)
    else:
        _scale(kernel_of(pair.producer), _making_axes(pair.producer), factors)
        if pair.producer.use_bias:
            pair.producer.bias.assign(pair.producer.bias.numpy() * factors)
    _scale(kernel_of(pair.consumer), _reading_axes(pair.consumer), 1 / factors)


def _scale(kernel: Variable, axes: tuple[int, ...], factors: np.ndarray) -> None:
    values = kernel.numpy()
    kernel.assign(values * along(factors, axes, values.shape))
