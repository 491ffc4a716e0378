"""Which weights are pruned: the kernels that tfmot knows, of the layers that a recipe selects, and how they lie."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.recipe.granularity import Weight, parse
from edgeprune.recipe.patterns import check_patterns, matching

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.recipe.config import WeightsConfig

# Where a class's kernel has its output channels; the converter moves that axis to the front, input channels stay last.
OUTPUT_AXIS = {
    "Dense": -1, "Conv1D": -1, "Conv2D": -1, "Conv2DTranspose": -2, "SeparableConv1D": -1, "SeparableConv2D": -1,
    "Embedding": 0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A prunable variable, and the axis of its outputs."""

    layer: str
    variable: Any
    output_axis: int

    def to_tflite(self, array: np.ndarray) -> np.ndarray:
        """From the layout of Keras to [out, …, in]."""
        return np.moveaxis(array, self.output_axis, 0)

    def to_keras(self, array: np.ndarray) -> np.ndarray:
        """Back."""
        return np.moveaxis(array, 0, self.output_axis)


def kernels(model: tf_keras.Model, names: list[str]) -> list[Kernel]:
    """The prunable kernels of the named layers, in the order of the names."""
    layers = [model.get_layer(name) for name in names]
    return [
        Kernel(layer.name, variable, OUTPUT_AXIS.get(type(layer).__name__, -1))
        for layer in layers
        for variable in prunable_weights(layer)
    ]


def prunable_weights(layer: Any) -> list[Any]:
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
    unknown = [name for name in names if type(model.get_layer(name)).__name__ not in OUTPUT_AXIS]
    if unknown and not isinstance(parse(config.granularity), Weight):
        raise RecipeError(
            f"granularity {config.granularity!r} is not defined for the layers {', '.join(unknown)}.",
            expected=f"layers of the classes {', '.join(OUTPUT_AXIS)}.",
            fix="name them in [weights] exclude, or prune single weights.",
        )
