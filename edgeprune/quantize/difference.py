"""How far the outputs of a changed model are from those of the model as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class OutputDifference:
    """Squared differences per sample and output, gathered batch by batch, so that no outputs are kept.

    Integers, such as the number of the likeliest class, are left out.
    """

    def __init__(self) -> None:
        self._lost: list[np.ndarray] = []
        self._whole: list[np.ndarray] = []

    def add(self, wanted: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> None:
        """Add a batch.

        Args:
            wanted, given: one array [n, ...] per output, of the model as it was and of the changed one.
        """
        pairs = [
            (np.asarray(a, np.float64), np.asarray(b, np.float64))
            for a, b in zip(wanted, given, strict=True)
            if np.issubdtype(np.asarray(a).dtype, np.floating)
        ]
        self._lost.append(np.stack([_squares(a - b) for a, b in pairs], axis=1) if pairs else np.zeros((0, 0)))
        self._whole.append(np.stack([_squares(a) for a, _ in pairs], axis=1) if pairs else np.zeros((0, 0)))

    def of_samples(self) -> np.ndarray:
        """float64 [samples]: mean over the outputs of the squared difference, relative to the output's mean square."""
        lost, whole = np.concatenate(self._lost), np.concatenate(self._whole)
        return (lost / np.maximum(whole.mean(axis=0), 1e-30)).mean(axis=1) if lost.size else np.zeros(len(lost))

    def mean(self) -> float:
        """The mean over the samples; 0 where there is nothing to compare."""
        each = self.of_samples()
        return float(each.mean()) if each.size else 0.0


def _squares(values: np.ndarray) -> np.ndarray:
    return np.square(values).reshape(len(values), -1).sum(axis=1)
