"""The samples of the steering example, for ``edgeprune build … --data OUT/data.py:load``."""

from pathlib import Path

import numpy as np

ARRAYS = Path(__file__).with_name("data.npz")
TARGETS = ("angle", "throttle")


def load(path: Path = ARRAYS) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Split → images, uint8 [frames, 60, 80, 3], and each target by its output's name, float32 [frames, 1]."""
    arrays = np.load(path)
    splits = {"train": "train", "validation": "val", "test": "test"}
    return {
        split: (arrays[f"x_{suffix}"], {name: arrays[f"{name}_{suffix}"] for name in TARGETS})
        for split, suffix in splits.items()
    }
