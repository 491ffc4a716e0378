"""The samples of tables that were read: rows, windows of rows, and images that rows name."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.images.folder import KEEP_DECODED_BYTES
from edgeprune.data.images.store import ImageStore
from edgeprune.data.labels import class_labels
from edgeprune.data.preprocess import CHANNELS, Preprocessing
from edgeprune.data.spec import Shape
from edgeprune.data.split import BATCHES_AHEAD, ordered
from edgeprune.data.tables.columns import Problems, TableFile
from edgeprune.data.targets import target_facts
from edgeprune.errors import DataError
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf

    from edgeprune.recipe.config import TableConfig

ROWS_AT_A_TIME = 65536  # of the values on disk


@dataclasses.dataclass(frozen=True)
class Rows:
    """One table, read.

    Attributes:
        values: float32 [rows, features], in a file.
        targets: one array [rows] for each target column: int64 for classes and whole numbers, else float64.
        lines: int64 [rows], in the file.
        groups: [rows], texts of which each is there once; or None.
        images: file names, or None.
    """

    values: np.ndarray
    targets: list[np.ndarray]
    lines: np.ndarray
    groups: np.ndarray | None
    images: list[str] | None


class TableStore:
    """Rows, or windows over them, gathered batch by batch from a memory-mapped file.

    A window is made of ``window`` consecutive rows of a group in the order of the file; windows begin every ``stride``
    rows, rows that fill no window are left out, and a window has the target of its last row. Windows are in the order
    of their last rows.

    Raises:
        DataError: no group has enough rows for a window.
    """

    def __init__(self, table: TableFile, rows: Rows, targets: Structure, config: TableConfig):
        self._file, self._values, self._lines = table, rows.values, rows.lines
        count = len(rows.lines)
        self._window = config.window
        window, stride = config.window or 1, config.stride or config.window or 1
        # Rows of a group next to each other, each in the order of the file.
        codes = np.zeros(count, np.int64)
        if rows.groups is not None and config.window:
            codes = np.unique(rows.groups, return_inverse=True)[1]
        self._order = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes, minlength=1)
        begins = np.concatenate([[0], np.cumsum(sizes)])
        of_groups = [np.arange(a, b - window + 1, stride) for a, b in itertools.pairwise(begins)]
        starts = np.concatenate(of_groups).astype(np.int64)
        if not len(starts):
            raise DataError(
                f"The table {table.path} has no group of {window} rows, which a window needs; the longest has "
                f"{sizes.max()}.",
                expected=f"at least {window} rows that follow each other.",
                fix="correct [data.table] window or group in the recipe.",
            )
        last = self._order[starts + window - 1]
        by_time = np.argsort(last, kind="stable")
        self._starts, self._last = starts[by_time], last[by_time]
        self.size = len(starts)
        self.groups = None if rows.groups is None else rows.groups[self._last]
        self.shapes: tuple[Shape, ...] = (self._sample_shape,)
        self._y = _map(lambda array: array[self._last], targets)
        self.labels = class_labels(self._y)
        self.targets: Structure = _map(target_facts, self._y)

    @property
    def _sample_shape(self) -> tuple[int, ...]:
        features = self._values.shape[1]
        return (features,) if self._window is None else (self._window, features)

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """See :class:`edgeprune.data.split.Streamed`."""
        import tensorflow as tf

        with tf.device("CPU:0"):
            targets = _map(tf.convert_to_tensor, self._y)

        @tf.autograph.experimental.do_not_convert
        def gather(positions: tf.Tensor) -> Structure:
            x = tf.numpy_function(self._gather, [positions], tf.float32, stateful=False)
            x = tf.ensure_shape(x, (None, *self._sample_shape))
            return (x,), tf.nest.map_structure(lambda array: tf.gather(array, positions), targets), ()

        positions = tf.data.Dataset.from_tensor_slices(ordered(index, shuffle_seed))
        positions = positions.batch(batch_size, drop_remainder=drop_remainder)
        return positions.map(gather, num_parallel_calls=BATCHES_AHEAD, deterministic=True)

    def spans(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """See :class:`edgeprune.data.split.Timed`."""
        starts = self._starts[index]
        return None if self._window is None else (starts, starts + self._window)

    def ranges(self, index: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
        """Over all rows of these samples, each once, float64 [features]: mean and deviation, or minimum and range."""
        covered = np.zeros(len(self._order), bool)
        for step in range(self._window or 1):
            covered[self._order[self._starts[index] + step]] = True
        parts = lambda: self._parts(np.flatnonzero(covered))  # noqa: E731
        if how == "minmax":
            low = np.min([part.min(0) for part in parts()], 0)
            return low, np.max([part.max(0) for part in parts()], 0) - low
        mean = np.sum([part.sum(0) for part in parts()], 0) / covered.sum()
        return mean, np.sqrt(np.sum([np.square(part - mean).sum(0) for part in parts()], 0) / covered.sum())

    def samples(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """The inputs one by one."""
        for start in range(0, len(index), 1024):
            yield from self._gather(index[start : start + 1024])

    def name(self, i: int) -> str:
        """Where sample ``i`` is in its file."""
        lines = f"{self._file.place} {self._lines[self._last[i]]} of {self._file.path.name}"
        return lines if self._window is None else f"the window that ends in {lines}"

    def _gather(self, positions: np.ndarray) -> np.ndarray:
        starts = self._starts[positions]
        if self._window is None:
            return self._values[self._order[starts]]
        return self._values[self._order[starts[:, np.newaxis] + np.arange(self._window)]]

    def _parts(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            yield self._values[rows[start : start + ROWS_AT_A_TIME]].astype(np.float64)


class ListedImages(ImageStore):
    """Image files that a table names, relative to its folder, with the targets of its rows.

    Attributes:
        listing: sha256 over path, size and modification time of every file.

    Raises:
        DataError: a file that is missing or empty, with the line that names it.
    """

    def __init__(self, table: TableFile, rows: Rows, targets: Structure, preprocessing: Preprocessing):
        assert rows.images is not None
        assert preprocessing.size is not None
        assert preprocessing.color is not None
        root, problems, listing = table.path.parent, Problems(table), hashlib.sha256()
        for name, line in zip(rows.images, rows.lines, strict=True):
            try:
                stat = os.stat(root / name)
            except OSError:
                stat = None
            if stat is None or not stat.st_size:
                said = "names no file" if stat is None else "names a file of 0 bytes"
                problems.add(int(line), "image", name, said, f"names are relative to the folder {root}.")
            else:
                listing.update(repr((name, stat.st_size, stat.st_mtime_ns)).encode())
        problems.finish()
        self.listing = listing.digest()
        height, width = preprocessing.size
        decoded = len(rows.images) * height * width * CHANNELS[preprocessing.color]
        super().__init__(
            root,
            rows.images,
            targets,
            class_labels(targets),
            size=preprocessing.size,
            color=preprocessing.color,
            keep_decoded=decoded <= KEEP_DECODED_BYTES,
            groups=rows.groups,
        )


def _map(function: Any, structure: Structure) -> Structure:
    import tensorflow as tf

    return tf.nest.map_structure(function, structure)
