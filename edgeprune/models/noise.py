"""Noise shapes of Dropout that Keras writes and reads, and cannot train with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeprune.models.graph import ordered_nodes
from edgeprune.models.types import Layer

if TYPE_CHECKING:
    import tf_keras

_log = logging.getLogger(__name__)


def noise_shape_of(layer: Layer, rank: int) -> tuple[int | None, ...] | None:
    """The noise shape of a layer, for each axis of its input, as broadcasting aligns it.

    Args:
        rank: of the input, the batch included.

    Returns:
        A size for each axis, None for the input's own; None if there is no noise shape, or none of that rank.
    """
    noise = getattr(layer, "noise_shape", None)
    if not isinstance(noise, Sequence) or isinstance(noise, str) or len(noise) > rank:
        return None
    return (*[1] * (rank - len(noise)), *noise)


def with_usable_noise(model: tf_keras.Model) -> tf_keras.Model:
    """The model, where a noise shape that is no shape of the layer's input (``Dropout(0.2, 3)``) is taken away.

    In inference, Dropout does nothing; in training, Keras fails at such a shape.
    """
    for node in ordered_nodes(model):
        for layer in filter(None, (node.layer, getattr(node.layer, "layer", None))):
            given = getattr(layer, "noise_shape", None)
            if given is None or noise_shape_of(layer, len(node.keras_inputs[0].shape)) is not None:
                continue
            _log.warning("The layer %r has noise_shape=%r, with which Keras cannot train: left out.", layer.name, given)
            layer.noise_shape = None
    return model
