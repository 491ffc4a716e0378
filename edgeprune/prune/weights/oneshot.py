"""Zeroing weights that a refit can make up for: the places of the zeros are chosen knowing that it follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import View
from edgeprune.progress import Progress
from edgeprune.prune.weights.kernels import PrunableKernel, kernels, selected
from edgeprune.recipe.config import WeightsConfig
from edgeprune.recipe.granularity import choose, parse
from edgeprune.reconstruction.fisher import output_fisher
from edgeprune.reconstruction.inputs import input_moments
from edgeprune.reconstruction.linear import Product, product_of
from edgeprune.reconstruction.zeros import Array, Layer, choose_zeros

if TYPE_CHECKING:
    import tf_keras


def zero_weights(
    model: tf_keras.Model,
    config: WeightsConfig,
    batches: Sequence[Sequence[np.ndarray]],
    *,
    ridge: float,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[str]:
    """Set weights to zero, in place; nothing is refitted yet.

    Kernels of layers that cannot be refitted lose their smallest weights, each as many as the recipe says.

    Args:
        model: flat functional tf_keras model.
        config: how many, in which pattern, and in which layers.
        batches: per batch the inputs, in the model's order; no labels.
        ridge: see :func:`edgeprune.reconstruction.zeros.choose_zeros`.
        seed: of the rows that are looked at, and of the Fisher information.
        progress: is told of each layer.

    Returns:
        Names of the pruned layers.

    Raises:
        RecipeError: a pattern selects no layer that can be pruned.
    """
    names, pattern = selected(model, config), parse(config.granularity)
    refittable = _refittable(model, kernels(model, names))
    for kernel in kernels(model, names):
        if not any(kernel.variable is one.kernel.variable for one in refittable):
            weights = kernel.to_tflite(np.abs(kernel.variable.numpy()))
            _apply(kernel, choose([weights], pattern, config.sparsity)[0])
    if refittable:
        layers = _layers(model, refittable, batches, seed)
        kept = choose_zeros(
            layers, lambda scores: choose(scores, pattern, config.sparsity, config.scope), ridge, progress
        )
        for one, mask in zip(refittable, kept, strict=True):
            _apply(one.kernel, mask)
    return names


@dataclasses.dataclass(frozen=True)
class _Refittable:
    kernel: PrunableKernel
    product: Product


def _refittable(model: tf_keras.Model, pruned: Sequence[PrunableKernel]) -> list[_Refittable]:
    view = View(model)
    found = []
    for kernel in pruned:
        layer = model.get_layer(kernel.layer)
        product = product_of(layer)
        if product is not None and product.weight is kernel.variable and len(view.uses(layer)) == 1:
            found.append(_Refittable(kernel, product))
    return found


def _layers(
    model: tf_keras.Model, refittable: Sequence[_Refittable], batches: Sequence[Sequence[np.ndarray]], seed: int
) -> list[Layer]:
    moments = input_moments(model, batches, [one.kernel.layer for one in refittable], seed)
    fisher = output_fisher(model, batches, seed)
    layers = []
    for kernel, product in ((one.kernel, one.product) for one in refittable):
        squares, *_ = moments.pop(kernel.layer).centered(intercept=True)
        shape = [product.parts, product.columns]
        importance = fisher[kernel.layer].reshape(shape) if kernel.layer in fisher else np.zeros(shape)

        def to_weight(matrix: np.ndarray, kernel: PrunableKernel = kernel, product: Product = product) -> np.ndarray:
            return kernel.to_tflite(product.to_weight(matrix))

        def to_matrix(weight: np.ndarray, kernel: PrunableKernel = kernel, product: Product = product) -> Array:
            return product.to_matrix(kernel.to_keras(weight))

        layers.append(Layer(squares, product.matrix, importance, to_weight, to_matrix))
    return layers


def _apply(kernel: PrunableKernel, kept: np.ndarray) -> None:
    kernel.variable.assign(kernel.variable.numpy() * kernel.to_keras(kept))
