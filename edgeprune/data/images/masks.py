"""Masks: the class of every pixel of an image, in a PNG file of the same name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprune.data.images.pixels import read_mask, resize_mask
from edgeprune.data.targets import TargetFacts

VOID = -1  # what a mask has in the place of pixels that do not count, whatever number they have in the file


class Masks:
    """The masks of the files of one store, read when they are needed.

    Args:
        root: the folder that ``names`` are relative to.
        names: one PNG per image.
        size: (height, width) of the masks as labels; they are resized to it, each pixel from the nearest.
        void: the number that pixels which do not count have in the files.
        values: the number of each class in the files, in the order of the classes; None: class numbers.
        found: the numbers that all files of the source have in them.

    Attributes:
        facts: of the labels: class numbers, and :data:`VOID`.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        *,
        size: tuple[int, int],
        void: int | None,
        values: tuple[int, ...] | None,
        found: frozenset[int],
    ):
        self.size = size
        self._root = os.fsencode(root) + os.sep.encode()
        self._names = np.array([os.fsencode(name) for name in names])
        self._table = np.arange(max(found, default=0) + 1, dtype=np.int32)
        if values is not None:
            self._table[:] = VOID
            for number, value in enumerate(values):
                self._table[value : value + 1] = number  # a value that no file has may be beyond the table
        if void is not None:
            self._table[void : void + 1] = VOID
        classes = frozenset(int(self._table[value]) for value in found)
        self.facts = TargetFacts(
            shape=size,
            dtype="int32",
            low=float(min(classes, default=0)),
            high=float(max(classes, default=0)),
            whole=True,
            values=classes,
            rows=None,
        )

    def path(self, i: int) -> str:
        """The path of mask ``i``."""
        return os.fsdecode(self._root + bytes(self._names[i]))

    def read(self, i: int) -> np.ndarray:
        """Mask ``i``: class numbers, int32 (height, width)."""
        return resize_mask(self._table[read_mask(self.path(i))], *self.size)
