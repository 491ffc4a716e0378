"""What stores of files share: paths, labels, groups, and reading by the batch."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgeprune.data.guard import data_errors
from edgeprune.data.targets import target_facts
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf

T = TypeVar("T")

# Decoders hold whole photographs before resizing (12 megapixels: 36 MB each), so their number is bounded on machines
# with many cores, and with it the memory.
DECODERS = min(os.cpu_count() or 1, 8)
FILES_AT_ONCE = 16  # that one thread reads; small files cost less than handing them over one by one


class FileStore:
    """Files with labels, by number.

    Args:
        root: the folder that ``names`` are relative to.
        names: file names, any number; held as bytes.
        y: targets, arrays with files first; ``()``: without labels.
        labels: the class of each file, int64 (files,), where ``y`` is one.
        groups: of the files, (files,), which are kept together where a part is held out.
    """

    def __init__(
        self, root: Path, names: Sequence[str], y: Structure, labels: np.ndarray | None, groups: np.ndarray | None
    ):
        import tensorflow as tf

        self.labels, self.size, self.groups = labels, len(names), groups
        self.targets: Structure = tf.nest.map_structure(target_facts, y)
        self._y = y
        self._root = os.fsencode(root) + os.sep.encode()
        self._names = np.array([os.fsencode(name) for name in names])

    def path(self, i: int) -> str:
        """The path of file ``i``."""
        return os.fsdecode(self._root + bytes(self._names[i]))

    def _labels_of(self, positions: tf.Tensor) -> Structure:
        """The targets of these files."""
        import tensorflow as tf

        return tf.nest.map_structure(lambda array: tf.gather(array, positions), self._tensors)

    @functools.cached_property
    def _tensors(self) -> Structure:
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):  # first used inside a function that tf.data traces
            return tf.nest.map_structure(tf.convert_to_tensor, self._y)


class Contents:
    """An array of each of ``count`` files, all of one shape.

    With ``keep``, the first pass over at least half of the files reads all of them into one array, which later passes
    take; without it nothing is kept.

    Args:
        read: the array of a file.

    Attributes:
        kept: those of all files, [count, *shape], once they are read.
    """

    def __init__(
        self, read: Callable[[int], np.ndarray], count: int, shape: tuple[int, ...], dtype: str, *, keep: bool
    ):
        self.kept: np.ndarray | None = None
        self._read, self._count, self._shape, self._dtype, self._keep = read, count, shape, np.dtype(dtype), keep

    def prepare(self, order: np.ndarray) -> None:
        """Before a pass over these files.

        Raises:
            DataError: a file cannot be read (only where all are read here).
        """
        if not self._keep or self.kept is not None or 2 * len(order) < self._count:
            return
        kept, done = np.empty((self._count, *self._shape), self._dtype), 0
        with data_errors():
            for part in read_in_batches(np.arange(self._count), 64, self.of).prefetch(1).as_numpy_iterator():
                kept[done : done + len(part)] = part
                done += len(part)
        self.kept = kept

    def of(self, positions: tf.Tensor) -> tf.Tensor:
        """Those of these files, [batch, *shape], inside a function that tf.data traces."""
        import tensorflow as tf

        def together(numbers: np.ndarray) -> np.ndarray:
            if self.kept is not None:
                return self.kept[numbers]
            arrays = np.empty((len(numbers), *self._shape), self._dtype)
            for place, number in enumerate(numbers.tolist()):
                arrays[place] = self._read(number)
            return arrays

        read = tf.numpy_function(together, [positions], tf.as_dtype(self._dtype), stateful=False)
        return tf.ensure_shape(read, (None, *self._shape))


def read_in_batches(
    order: np.ndarray, batch_size: int, read: Callable[[tf.Tensor], Structure], *, drop_remainder: bool = False
) -> tf.data.Dataset:
    """What ``read`` makes of the positions int64 (batch,), a batch for each call: a call for each file would cost more
    than to decode a small one."""
    import tensorflow as tf

    positions = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=drop_remainder)
    read = tf.autograph.experimental.do_not_convert(read)
    return positions.map(read, num_parallel_calls=DECODERS, deterministic=True)


def in_threads(function: Callable[..., T], items: Sequence[object]) -> Iterator[T]:
    """``map`` by a few threads, in order; Pillow decodes without holding Python's lock."""

    def several(part: list[object]) -> list[T]:
        return [function(item) for item in part]

    with ThreadPoolExecutor(DECODERS) as pool:
        remaining = iter(items)
        # No more in the queue than keeps the threads busy: of a million files, results must not pile up.
        while parts := [part for _ in range(4 * DECODERS) if (part := list(islice(remaining, FILES_AT_ONCE)))]:
            for found in pool.map(several, parts):
                yield from found
