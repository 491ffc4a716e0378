"""Which weights are pruned: the kernels that tfmot can prune, of the layers that a recipe selects, and their layout."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.models.layer_facts import facts_of
from edgeprune.models.types import Layer, Variable
from edgeprune.recipe.granularity import Weight, parse
from edgeprune.recipe.patterns import check_patterns, matching

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.recipe.config import WeightsConfig

# Classes whose kernels the converter stores as [out, …, in], which patterns of zeros are defined for.
STORED_BY_OUTPUT = (
    "Dense", "Conv1D", "Conv2D", "Conv2DTranspose", "SeparableConv1D", "SeparableConv2D", "Embedding"
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PrunableKernel:
    """A prunable variable, and the axis that the converter moves to the front."""

    layer: str
    variable: Variable
    output_axis: int

    @property
    def ends_with_outputs(self) -> bool:
        """Whether the outputs are the last axis in Keras."""
        return self.output_axis % len(self.variable.shape) == len(self.variable.shape) - 1

    def to_tflite(self, array: np.ndarray) -> np.ndarray:
        """From the layout of Keras to the file's layout, [out, …, in]."""
        return np.moveaxis(array, self.output_axis, 0)

    def to_keras(self, array: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_tflite`."""
        return np.moveaxis(array, 0, self.output_axis)


def kernels(model: tf_keras.Model, names: list[str]) -> list[PrunableKernel]:
    """The prunable kernels of the named layers, in the order of the names."""
    layers = [model.get_layer(name) for name in names]
    return [
        PrunableKernel(layer.name, variable, _output_axis(layer))
        for layer in layers
        for variable in prunable_weights(layer)
    ]


def _output_axis(layer: Layer) -> int:
    if type(layer).__name__ == "Embedding":
        return 0  # a table, which the file keeps as it is: one row per word
    facts = facts_of(layer)
    if facts is None or type(layer).__name__ not in STORED_BY_OUTPUT:
        return -1  # any axis will do: only single weights are pruned
    (axis,) = facts.channel_axes
    return axis


def prunable_weights(layer: Layer) -> list[Variable]:
    """The weight variables of a built layer that tfmot prunes; none for a layer that it does not know."""
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    if not PruneRegistry.supports(layer):
        return []
    return PruneRegistry.make_prunable(layer).get_prunable_weights()


def selected(model: tf_keras.Model, config: WeightsConfig) -> list[str]:
    """Names of the layers that the recipe selects.

    Raises:
        RecipeError: a pattern matches no layer, nothing is left, or a layer has no place for the granularity.
    """
    prunable = [layer.name for layer in model.layers if prunable_weights(layer)]
    given = {"include": config.include, "exclude": config.exclude}
    check_patterns("weights", given, (layer.name for layer in model.layers))
    chosen = matching(prunable, **given)
    if not chosen:
        raise RecipeError(
            "[weights] leaves no layer to prune.",
            expected=f"at least one of: {', '.join(prunable) or 'a layer that tfmot can prune; this model has none'}.",
        )
    _check_layouts(model, chosen, config)
    return chosen


def _check_layouts(model: tf_keras.Model, names: list[str], config: WeightsConfig) -> None:
    unknown = [name for name in names if type(model.get_layer(name)).__name__ not in STORED_BY_OUTPUT]
    if unknown and not isinstance(parse(config.granularity), Weight):
        raise RecipeError(
            f"granularity {config.granularity!r} is not defined for the layers {', '.join(unknown)}.",
            expected=f"layers of the classes {', '.join(STORED_BY_OUTPUT)}.",
            fix="name them in [weights] exclude, or prune single weights.",
        )
