"""Weights shared among few values per layer (Han et al. 2016, arXiv:1510.00149, section 3).

Clusters are made from the weights as they are shipped, after batch normalization is folded in: clusters of the weights
before (which is what tfmot's ``cluster_weights`` makes) become as many values *per channel* when the converter folds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.models.layer_facts import LAYER_FACTS, kernel_of
from edgeprune.quantize.rules import KERNELS, kernel_rule
from edgeprune.quantize.structure import Structure
from edgeprune.recipe.patterns import check_patterns, matching

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.recipe.config import ClusterConfig

# Depthwise kernels have few weights and lose much; tfmot's clustering leaves them alone, too.
CLUSTERABLE = frozenset(name for name in KERNELS if not LAYER_FACTS[name].is_depthwise)
_ITERATIONS = 100


def select(model: tf_keras.Model, config: ClusterConfig) -> list[str]:
    """Names of the layers whose weights are shared: those that the recipe selects and that have enough weights.

    Raises:
        RecipeError: a pattern matches no layer, or no layer is left.
    """
    given = {"include": config.include, "exclude": config.exclude}
    check_patterns("cluster", given, (layer.name for layer in model.layers))
    large = [
        layer.name
        for layer in model.layers
        if type(layer).__name__ in CLUSTERABLE and kernel_of(layer).numpy().size > config.n_clusters
    ]
    chosen = matching(large, **given)
    if not chosen:
        raise RecipeError(
            f"[cluster] leaves no layer with more than {config.n_clusters} weights to share.",
            expected=f"at least one layer of the classes {', '.join(sorted(CLUSTERABLE))}.",
        )
    return chosen


def cluster(model: tf_keras.Model, config: ClusterConfig, *, zeros: bool, seed: int) -> dict[str, Structure]:
    """Share the weights of the selected layers in place; of pruned layers, zero is one of the values.

    Args:
        model: batch normalization folded (:func:`edgeprune.quantize.prepare.prepare`).
        zeros: whether zeroed weights stay zero.

    Returns:
        Layer name → its clusters, and its zeros if they are kept; layers that only have zeros are among them.
    """
    names = select(model, config)
    structures: dict[str, Structure] = {}
    for number, layer in enumerate(model.layers):
        if kernel_rule(layer) is None:
            continue
        kernel = kernel_of(layer).numpy()
        mask = (kernel != 0).astype(kernel.dtype) if zeros and not kernel.all() else None
        if layer.name in names:
            generator = np.random.default_rng([seed, number])
            numbers, count = assign(kernel, config.n_clusters, config.init, mask, generator)
            structures[layer.name] = Structure(mask, numbers, count)
            kernel_of(layer).assign(structures[layer.name].project(kernel))
        elif mask is not None:
            structures[layer.name] = Structure(mask)
    return structures


def assign(
    kernel: np.ndarray, n_clusters: int, init: str, mask: np.ndarray | None, generator: np.random.Generator
) -> tuple[np.ndarray, int]:
    """The cluster of each weight, by k-means in one dimension.

    Args:
        init: ``linear`` spreads the first centroids evenly between the smallest and the largest weight (rare large
            weights get their own, which Han et al. found best); ``kmeans++`` draws them from the weights, far from each
            other (Arthur & Vassilvitskii 2007).
        mask: 0 for weights that stay zero: they are a cluster of their own, one of the ``n_clusters``.

    Returns:
        Cluster numbers [shape of the kernel], and how many there are: at most ``n_clusters``.
    """
    free = np.ones(kernel.size, bool) if mask is None else mask.reshape(-1) != 0
    values = kernel.reshape(-1)[free].astype("float64")
    wanted = n_clusters if mask is None else n_clusters - 1
    centroids = np.unique(_INITS[init](values, wanted, generator))
    for _ in range(_ITERATIONS):
        numbers = _nearest(values, centroids)
        sizes = np.bincount(numbers, minlength=len(centroids))
        moved = np.bincount(numbers, values, minlength=len(centroids))[sizes > 0] / sizes[sizes > 0]
        if len(moved) == len(centroids) and np.allclose(moved, centroids, rtol=1e-6, atol=0):
            break
        centroids = np.unique(moved)
    used, numbers = np.unique(_nearest(values, centroids), return_inverse=True)
    whole = np.full(kernel.size, len(used), "int32")  # the last one: what stays zero
    whole[free] = numbers
    return whole.reshape(kernel.shape), len(used) + (not free.all())


def _nearest(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The number of the nearest of the sorted centroids."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)


def _linear(values: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.linspace(values.min(), values.max(), count)


def _kmeans_plus_plus(values: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    chosen = [generator.choice(values)]
    distance = (values - chosen[0]) ** 2
    while len(chosen) < count and distance.sum() > 0:
        chosen.append(generator.choice(values, p=distance / distance.sum()))
        distance = np.minimum(distance, (values - chosen[-1]) ** 2)
    return np.asarray(chosen)


Init = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # (weights, how many, generator) → centroids
_INITS: dict[str, Init] = {
    "linear": _linear,
    "kmeans++": _kmeans_plus_plus,
}
