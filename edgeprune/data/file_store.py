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
        labels: int64 (files,); None: without labels.
        groups: of the files, str (files,), which are kept together where a part is held out.
    """

    def __init__(self, root: Path, names: Sequence[str], labels: np.ndarray | None, groups: np.ndarray | None):
        self.labels, self.size, self.groups = labels, len(names), groups
        self.targets: Structure = () if labels is None else target_facts(labels)
        self._root = os.fsencode(root) + os.sep.encode()
        self._names = np.array([os.fsencode(name) for name in names])

    def path(self, i: int) -> str:
        """The path of file ``i``."""
        return os.fsdecode(self._root + bytes(self._names[i]))

    def _labels_of(self, positions: tf.Tensor) -> Structure:
        import tensorflow as tf

        return () if self.labels is None else tf.gather(self._label_tensor, positions)

    @functools.cached_property
    def _label_tensor(self) -> tf.Tensor | tuple[()]:
        import tensorflow as tf

        if self.labels is None:
            return ()
        with tf.init_scope(), tf.device("CPU:0"):  # first used inside a function that tf.data traces
            return tf.constant(self.labels, tf.int64)


def read_in_batches(
    order: np.ndarray, batch_size: int, read: Callable[[tf.Tensor], Structure], *, drop_remainder: bool = False
) -> tf.data.Dataset:
    """What ``read`` makes of the positions int64 (batch,), a batch for each call: a call for each file would cost more
    than to decode a small one."""
    import tensorflow as tf

    positions = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=drop_remainder)
    read = tf.autograph.experimental.do_not_convert(read)
    return positions.map(read, num_parallel_calls=DECODERS, deterministic=True)


def read_each(
    read: Callable[[int], np.ndarray], positions: tf.Tensor, shape: Sequence[int], dtype: tf.DType
) -> tf.Tensor:
    """``read`` of every position, [batch, *shape], inside a function that tf.data traces."""
    import tensorflow as tf

    def together(numbers: np.ndarray) -> np.ndarray:
        arrays = np.empty((len(numbers), *shape), dtype.as_numpy_dtype)
        for place, number in enumerate(numbers):
            arrays[place] = read(int(number))
        return arrays

    return tf.ensure_shape(tf.numpy_function(together, [positions], dtype, stateful=False), (None, *shape))


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
