"""Data of a few arrays, for tests that need no source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.data import InputSpec, load_data
from edgeprune.recipe.config import DataConfig

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data


def data_of(model: tf_keras.Model, x: Any, *labels: Any) -> Data:
    """The same samples as train, validation and test; ``labels``: y, or y and w, or nothing."""
    samples = {"x": x, **dict(zip(("y", "w"), labels, strict=False))}
    parts = {f"{key}_{split}": value for split in ("train", "val", "test") for key, value in samples.items()}
    return load_data(parts, DataConfig(), InputSpec.of(model))
