"""Which weight of a layer is its kernel, and which axes of it are channels: one table, keyed by layer class name.

Whatever scales, rounds, shares or counts weights by channel asks here. What a part of the program does with a layer is
its own question, and stands in a table of that part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgeprune.models.types import Layer, Variable


@dataclasses.dataclass(frozen=True)
class LayerFacts:
    """The kernel that makes the output channels of a layer.

    Attributes:
        kernel: the attribute of the layer that holds it.
        channel_axes: the axes that number the output channels, the last one fastest. Two of a depthwise kernel [...,
            input channels, multiplier], whose filters for one input channel lie side by side.
        input_axis: the axis that numbers the input channels, of one group if there are groups; None where another
            weight reads them.
    """

    kernel: str
    channel_axes: tuple[int, ...]
    input_axis: int | None

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel is made from a single input channel."""
        return self.input_axis in self.channel_axes


LAYER_FACTS: dict[str, LayerFacts] = {
    "Dense": LayerFacts("kernel", (1,), 0),
    "Conv1D": LayerFacts("kernel", (2,), 1),
    "Conv2D": LayerFacts("kernel", (3,), 2),
    "Conv3D": LayerFacts("kernel", (4,), 3),
    "Conv1DTranspose": LayerFacts("kernel", (1,), 2),
    "Conv2DTranspose": LayerFacts("kernel", (2,), 3),
    "Conv3DTranspose": LayerFacts("kernel", (3,), 4),
    "DepthwiseConv1D": LayerFacts("depthwise_kernel", (1, 2), 1),
    "DepthwiseConv2D": LayerFacts("depthwise_kernel", (2, 3), 2),
    "SeparableConv1D": LayerFacts("pointwise_kernel", (2,), None),
    "SeparableConv2D": LayerFacts("pointwise_kernel", (3,), None),
}
KERNEL_ATTRIBUTES = frozenset(facts.kernel for facts in LAYER_FACTS.values())


def facts_of(layer: Layer) -> LayerFacts | None:
    """The facts of a layer of exactly a class of the table: a subclass may compute anything with its kernel."""
    return LAYER_FACTS.get(type(layer).__name__)


def kernel_of(layer: Layer) -> Variable:
    """The kernel of a layer of the table, a variable."""
    return getattr(layer, LAYER_FACTS[type(layer).__name__].kernel)


def magnitudes(kernel: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The largest magnitude at each place along ``axes``: [places], the last axis fastest."""
    others = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    return np.abs(kernel).max(others).reshape(-1)


def along(values: np.ndarray, axes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """One value for each place along ``axes`` [places], reshaped to multiply a kernel of ``shape``."""
    return values.reshape([size if axis in axes else 1 for axis, size in enumerate(shape)])
