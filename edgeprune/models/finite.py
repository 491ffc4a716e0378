"""Weights that are no numbers: every figure about such a model is one about nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ModelError

if TYPE_CHECKING:
    import tf_keras


def require_finite(model: tf_keras.Model) -> None:
    """Make sure that all weights are finite.

    Raises:
        ModelError: one is NaN or infinite.
    """
    if found := first_not_finite(model):
        raise not_finite(found)


def first_not_finite(model: tf_keras.Model) -> str | None:
    """A sentence on the first weight that is not finite, or None: all are."""
    for layer in model.layers:
        for weight in layer.weights:
            values = weight.numpy() if weight.dtype.is_floating else np.zeros(0)
            wrong = values.size - np.count_nonzero(np.isfinite(values))
            if wrong:
                return (
                    f"The layer {layer.name!r} of {model.name!r} has {wrong:,} of {values.size:,} numbers in "
                    f"{weight.name!r} that are NaN or infinite."
                )
    return None


def not_finite(what: str) -> ModelError:
    """The error for a model of which something is no number, in these words."""
    return ModelError(
        what,
        expected="finite weights: with others, the model's answers mean nothing.",
        fix="take a checkpoint from before the training diverged, or train again at a lower learning rate.",
    )
