"""Rounding a model's weights by moments before it is quantized, where that helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.rebuild import copy_model
from edgeprune.models.types import Layer
from edgeprune.progress import Progress
from edgeprune.quantize.difference import OutputDifference
from edgeprune.reconstruction.linear import Product, product_of
from edgeprune.reconstruction.refit import refit
from edgeprune.reconstruction.rounding import Grid, nearest

if TYPE_CHECKING:
    import tf_keras

EIGHT_BITS = 127


@dataclasses.dataclass(frozen=True)
class RoundedModel:
    """The outcome.

    Attributes:
        model: with weights on their grid, or as they were where that is better.
        layers: names of the layers whose weights were rounded.
        nearest, moments: mean square difference of the outputs from those of the model as it was, relative to their
            mean square, with weights rounded to nearest and by their moments; on samples that the moments are not of.
        used: whether the model has the weights rounded by moments.
    """

    model: tf_keras.Model
    layers: tuple[str, ...]
    nearest: float
    moments: float
    used: bool


def levels_of(layer: Layer, levels: int) -> int:
    """The largest integer of a layer's grid: depthwise kernels, which are few weights, have eight bits at least."""
    return max(levels, EIGHT_BITS) if type(layer).__name__.startswith("Depthwise") else levels


def round_by_moments(
    model: tf_keras.Model,
    fitting: Sequence[Sequence[np.ndarray]],
    judging: Sequence[Sequence[np.ndarray]],
    levels: int,
    *,
    ridge: float,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> RoundedModel:
    """Round weights so that each layer gives what it gave before; each output channel has a scale of its own.

    Args:
        model: flat functional tf_keras model; stays as it is.
        fitting: per batch the inputs that the moments are of; no labels.
        judging: other inputs, which decide whether weights rounded to nearest are as good.
        levels: largest integer: 127 for eight bits, 7 for four.
        ridge: see :func:`edgeprune.reconstruction.moments.fit`.
        seed: of the rows that are looked at.
        folder: where layers that are done are kept until the end; None: nowhere.
        progress: is told of each layer.
    """
    products: dict[str, Product] = {}
    for layer in model.layers:
        if product := product_of(layer):
            products[layer.name] = product
    limits = {name: levels_of(model.get_layer(name), levels) for name in products}
    plain, fitted = copy_model(model), copy_model(model)
    for name, limit in limits.items():
        own = product_of(plain.get_layer(name))
        assert own is not None
        own.assign(nearest(own.matrix, limit))
    grids = {name: Grid(limit) for name, limit in limits.items()}
    rows = refit(model, fitted, fitting, ridge=ridge, grids=grids, seed=seed, folder=folder, progress=progress)
    to_nearest, by_moments = (_difference(model, other, judging) for other in (plain, fitted))
    used = by_moments < to_nearest
    names = tuple(row.layer for row in rows if row.reason is None and row.layer in limits)
    return RoundedModel(fitted if used else model, names, to_nearest, by_moments, used)


def _difference(model: tf_keras.Model, other: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]]) -> float:
    """Mean square difference of the outputs, each relative to its mean square."""
    import tensorflow as tf

    difference = OutputDifference()
    for batch in batches:
        x = list(batch) if len(batch) > 1 else batch[0]
        wanted, given = (
            [np.asarray(value) for value in tf.nest.flatten(each(x, training=False))] for each in (model, other)
        )
        difference.add(wanted, given)
    return difference.mean()
