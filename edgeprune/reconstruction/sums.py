"""The sum that a layer's output goes into, and by what it is multiplied on the way there."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgeprune.models.graph import View, activation_name, symbol_of
from edgeprune.models.types import Layer, Node, Tensor, Variable

# A normalization that multiplies a channel by less than this share of its largest factor hides it.
_HIDDEN = 1e-3


@dataclasses.dataclass(frozen=True)
class Sum:
    """A sum whose other terms are there already, and are not the original's.

    Attributes:
        ours, theirs: ids of the other terms, in the changed and in the original model.
        scale: by which each channel of the layer's output is multiplied on the way; float32 [channels].
    """

    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    scale: np.ndarray

    @property
    def inverse(self) -> np.ndarray:
        """By what an error of the sum is multiplied to be one of the output; none where the output is hidden."""
        felt = np.abs(self.scale) > _HIDDEN * np.abs(self.scale).max()
        return np.where(felt, 1 / np.where(felt, self.scale, 1), 0).astype(np.float32)


def sum_behind(view: View, node: Node) -> tuple[Node, Tensor, np.ndarray] | None:
    """The call that adds what ``node`` makes to something.

    Returns:
        The call; the term of it that comes from ``node``; by what each channel was multiplied until then. None: what
        ``node`` makes goes elsewhere, or through what is no multiplication of channels.
    """
    if activation_name(node.layer) != "linear":
        return None
    scale = np.ones(node.outputs.shape[-1], np.float32)
    reader = view.only_reader(node)
    while reader is not None and not is_sum(reader.layer):
        factors = factors_of(reader)
        if factors is None:
            return None
        scale = scale * factors
        node, reader = reader, view.only_reader(reader)
    return None if reader is None else (reader, node.outputs, scale)


def is_sum(layer: Layer) -> bool:
    """Whether a layer adds what it reads."""
    return type(layer).__name__ == "Add" or symbol_of(layer) in ("math.add", "__operators__.add")


def factors_of(node: Node) -> np.ndarray | None:
    """By what a call multiplies each channel of a value that goes through it; None: it does something else with it."""
    layer = node.layer
    if type(layer).__name__ == "BatchNormalization":
        return _factors(layer)
    plain = type(layer).__name__ in ("Activation", "Dropout") and activation_name(layer) == "linear"
    return np.ones(node.outputs.shape[-1], np.float32) if plain or is_sum(layer) else None


def _factors(norm: Layer) -> np.ndarray:
    """By what a batch normalization multiplies each channel."""
    variance: Variable = norm.moving_variance
    factors = 1 / np.sqrt(variance.numpy() + norm.epsilon)
    return factors * norm.gamma.numpy() if norm.scale else factors
