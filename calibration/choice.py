"""Which training samples a build calibrates with, and how many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.calibration.profiles import activation_profiles, converged_size, covering_order
from edgeprune.calibration.sampling import Strategy, representative_indices
from edgeprune.data import Split

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.recipe.config import CalibrationConfig

AUTO_START, AUTO_LIMIT = 32, 1024
AUTO_GROWTH = 0.02  # of a channel's range, on average
CANDIDATES = 4  # candidates per sample wanted, when samples are chosen by coverage


def choose_samples(split: Split, config: CalibrationConfig, model: tf_keras.Model, seed: int = 0) -> np.ndarray:
    """The samples that the recipe's ``[calibration]`` asks for.

    ``coverage`` chooses from a stratified draw of four times as many. ``samples = "auto"`` doubles a draw of 32 until
    the ranges of all channels together grow by less than 2 %, up to 1,024.

    Args:
        split: training data.
        config: the number of samples and the strategy.
        model: whose activations are looked at; only ``coverage`` and ``auto`` run it.
        seed: of the random draws.

    Returns:
        int64 [samples], distinct positions in the split.
    """
    strategy: Strategy = "random" if config.strategy == "random" else "stratified"
    wanted = AUTO_LIMIT if config.samples == "auto" else config.samples
    if config.strategy == "coverage":
        pool = representative_indices(split, CANDIDATES * wanted, strategy, seed)
        lows, highs = activation_profiles(model, split, pool)
        order = covering_order(lows, highs, wanted)
        pool, lows, highs = pool[order], lows[order], highs[order]
    else:
        pool = representative_indices(split, wanted, strategy, seed)
        if config.samples != "auto":
            return pool
        lows, highs = activation_profiles(model, split, pool)
    if config.samples == "auto":
        return pool[: converged_size(lows, highs, start=AUTO_START, growth=AUTO_GROWTH)]
    return pool
