"""Weight pruning in training: one interface over the engines, and the recount of zeros that checks them.

What tfmot supports it does (:mod:`edgeprune.prune.weights.magnitude`), :mod:`edgeprune.prune.weights.masked` the rest,
and keeps zeros that are there already. They wrap a model, bring callbacks for its training, and strip it again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import KernelZeros
from edgeprune.errors import VerificationError
from edgeprune.prune.weights.kernels import PrunableKernel, kernels
from edgeprune.recipe.config import WeightsConfig
from edgeprune.recipe.granularity import NofM, parse

if TYPE_CHECKING:
    import tf_keras


@dataclasses.dataclass(frozen=True)
class Engine:
    """An implementation of weight pruning.

    Attributes:
        can: (model, config) → whether it does what is asked for.
        wrap: (model, config, total steps, seed) → a model to train that shares no weights, and the pruned layers.
        callbacks: for its training.
        strip: the trained model → a plain functional model.
    """

    name: str
    can: Callable[[tf_keras.Model, WeightsConfig], bool]
    wrap: Callable[[tf_keras.Model, WeightsConfig, int, int], tuple[tf_keras.Model, list[str]]]
    callbacks: Callable[[], list[tf_keras.callbacks.Callback]]
    strip: Callable[[tf_keras.Model], tf_keras.Model]


def engines() -> tuple[Engine, ...]:
    """The engines in order of preference; the last one supports every recipe."""
    from edgeprune.prune.weights import magnitude, masked

    return (
        Engine("fixed", _is_fixed, masked.wrap_fixed, list, masked.strip),
        Engine("tfmot", magnitude.can, magnitude.wrap, magnitude.callbacks, magnitude.strip),
        Engine("masked", lambda model, config: True, masked.wrap, masked.callbacks, masked.strip),
    )


def _is_fixed(model: tf_keras.Model, config: WeightsConfig) -> bool:
    return config.criterion == "reconstruct"


def engine_for(model: tf_keras.Model, config: WeightsConfig) -> Engine:
    """The engine that prunes this model as the recipe asks: the first in order that supports it."""
    return next(engine for engine in engines() if engine.can(model, config))


def check(model: tf_keras.Model, names: list[str], config: WeightsConfig) -> list[KernelZeros]:
    """Recount the zeros of the pruned layers, and verify their pattern.

    Returns:
        One entry per kernel: layer, size, zeros.

    Raises:
        VerificationError: there are fewer zeros than asked for, or a group of n:m has more than n weights.
    """
    pruned = kernels(model, names)
    arrays = [kernel.to_tflite(kernel.variable.numpy()) for kernel in pruned]
    rows: list[KernelZeros] = [
        {"layer": kernel.layer, "size": int(array.size), "zeros": int(np.sum(array == 0))}
        for kernel, array in zip(pruned, arrays, strict=True)
    ]
    pattern = parse(config.granularity)
    if isinstance(pattern, NofM):
        _check_pattern(pruned, arrays, pattern)
        return rows
    slack = max(int(np.bincount(pattern.units(array.shape).ravel()).max()) for array in arrays)
    counted = rows
    if config.scope == "global":
        size, zeros = sum(row["size"] for row in rows), sum(row["zeros"] for row in rows)
        counted = [{"layer": "all layers together", "size": size, "zeros": zeros}]
    # Whole units, and at least one of them stays: a kernel may lack one.
    short = [row for row in counted if row["zeros"] < np.floor(row["size"] * config.sparsity) - slack]
    if short:
        listed = ", ".join(f"{row['layer']} {row['zeros'] / row['size']:.1%}" for row in short)
        raise VerificationError(
            f"After fine-tuning and stripping, the sparsity asked for ({config.sparsity:.1%}) is missing in: {listed}.",
            fix="train for more epochs, or let the schedule end earlier ([weights] end).",
        )
    return rows


def _check_pattern(pruned: list[PrunableKernel], arrays: list[np.ndarray], pattern: NofM) -> None:
    broken = [
        kernel.layer
        for kernel, array in zip(pruned, arrays, strict=True)
        if np.any(array[pattern.surplus(np.abs(array))])
    ]
    if broken:
        raise VerificationError(
            f"After fine-tuning and stripping, the pattern {pattern.n}:{pattern.m} is broken in: {', '.join(broken)}.",
            fix="train for more epochs, or let the schedule end earlier ([weights] end).",
        )
