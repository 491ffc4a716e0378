"""Samples in image files, decoded when they are needed."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.arrays import gather_batches
from edgeprune.data.guard import damaged_image, data_errors, said, watch
from edgeprune.data.preprocess import CHANNELS
from edgeprune.data.spec import Shape
from edgeprune.data.split import ordered
from edgeprune.data.targets import target_facts
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf

# Decoders hold whole photographs before resizing (12 megapixels: 36 MB each), so their number is bounded on machines
# with many cores, and with it the memory.
DECODERS = min(os.cpu_count() or 1, 8)


class ImageStore:
    """JPEG, PNG, BMP and GIF (first frame) files as 8-bit pixels, resized if they differ from ``size``, never cropped.

    Resizing is bilinear without antialiasing, like ``image_dataset_from_directory`` of Keras, and rounded to whole
    pixel values. With ``keep_decoded``, the first pass over at least half of the files decodes all of them into one
    uint8 array, which later passes read; without it nothing decoded is kept.

    Args:
        root: the folder that ``names`` are relative to.
        names: file names, any number; held as bytes.
        labels: int64 (files,); None: without labels.
        size: (height, width) in pixels.
        color: of :data:`edgeprune.data.preprocess.CHANNELS`.
        keep_decoded: for small data only: files * height * width * channels bytes.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: np.ndarray | None,
        *,
        size: tuple[int, int],
        color: str,
        keep_decoded: bool,
    ):
        self.labels, self.size = labels, len(names)
        self.targets: Structure = () if labels is None else target_facts(labels)
        self._root = os.fsencode(root) + os.sep.encode()
        self._names = np.array([os.fsencode(name) for name in names])
        self._shape = (*size, CHANNELS[color])
        self.shapes: tuple[Shape, ...] = (self._shape,)
        self._color = color
        self._keep_decoded = keep_decoded
        self._decoded: tf.Tensor | None = None

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """See :class:`edgeprune.data.split.Store`.

        Raises:
            DataError: a file cannot be decoded (only where all files are decoded here).
        """
        import tensorflow as tf

        watch(self)
        order = ordered(index, shuffle_seed)
        if self._keep_decoded and self._decoded is None and 2 * len(order) >= self.size:
            self._decoded = self._decode_all()
        if self._decoded is not None:
            return gather_batches(((self._decoded,), self._label_tensor, ()), order, batch_size, drop_remainder)

        @tf.autograph.experimental.do_not_convert
        def with_label(i: tf.Tensor) -> tuple[tuple[tf.Tensor], Structure, Structure]:
            return (self._read(i),), () if self.labels is None else self._label_tensor[i], ()

        samples = tf.data.Dataset.from_tensor_slices(order)
        samples = samples.map(with_label, num_parallel_calls=DECODERS, deterministic=True)
        return samples.batch(batch_size, drop_remainder=drop_remainder)

    def path(self, i: int) -> str:
        """The path of file ``i``."""
        return os.fsdecode(self._root + bytes(self._names[i]))

    def first_damaged(self) -> tuple[str, str] | None:
        """Path and reason of the first file that cannot be decoded, or None. Reads all files."""
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def read(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i, tf.reduce_max(self._read(i))  # without a use of its pixels, TensorFlow would skip the decoding

        if self._decoded is not None:
            return None
        readable = tf.data.Dataset.range(self.size).map(read, num_parallel_calls=DECODERS, deterministic=True)
        for expected, (i, _) in enumerate(readable.ignore_errors().as_numpy_iterator()):
            if i != expected:
                return self._damage(expected)
        return self._damage(self.size - 1)

    def _damage(self, i: int) -> tuple[str, str] | None:
        import tensorflow as tf

        try:
            self._read(tf.constant(i, tf.int64))
        except tf.errors.OpError as error:
            return self.path(i), said(error)
        return None

    def _decode_all(self) -> tf.Tensor:
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def read(i: tf.Tensor) -> tf.Tensor:
            return self._read(i)

        pixels = np.empty((self.size, *self._shape), np.uint8)
        images = tf.data.Dataset.range(self.size).map(read, num_parallel_calls=DECODERS, deterministic=True)
        done = 0
        with data_errors():
            for batch in images.batch(256).prefetch(1).as_numpy_iterator():
                pixels[done : done + len(batch)] = batch
                done += len(batch)
        with tf.device("CPU:0"):
            return tf.convert_to_tensor(pixels)

    @functools.cached_property
    def _label_tensor(self) -> tf.Tensor | tuple[()]:
        import tensorflow as tf

        if self.labels is None:
            return ()
        with tf.init_scope(), tf.device("CPU:0"):  # first used inside a function that tf.data traces
            return tf.constant(self.labels, tf.int64)

    @functools.cached_property
    def _name_tensor(self) -> tf.Tensor:
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(self._names)

    def _read(self, i: tf.Tensor) -> tf.Tensor:
        """File ``i`` as uint8 (height, width, channels)."""
        import tensorflow as tf

        contents = tf.io.read_file(self._root + self._name_tensor[i])
        image = _decode(contents, self._shape[2])
        image = image[..., ::-1] if self._color == "bgr" else image
        fits = tf.reduce_all(tf.shape(image)[:2] == self._shape[:2])
        return tf.ensure_shape(tf.cond(fits, lambda: image, lambda: self._resized(image)), self._shape)

    def _resized(self, image: tf.Tensor) -> tf.Tensor:
        """An image of another size in the store's, uint8."""
        import tensorflow as tf

        return tf.cast(tf.round(tf.image.resize(image, self._shape[:2])), tf.uint8)


def image_sizes(root: Path, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(height, width) of image files in pixels, one after the other; of JPEG, only the header is read.

    Raises:
        DataError: a file is damaged or of another kind.
    """
    import tensorflow as tf

    def size(path: tf.Tensor) -> tf.Tensor:
        contents = tf.io.read_file(path)
        is_jpeg = tf.strings.substr(contents, 0, 2) == b"\xff\xd8"
        return tf.cond(
            is_jpeg, lambda: tf.io.extract_jpeg_shape(contents)[:2], lambda: tf.shape(_decode(contents, 3))[:2]
        )

    paths = np.array([os.fsencode(root / name) for name in names])
    sizes = tf.data.Dataset.from_tensor_slices(paths).map(size, num_parallel_calls=DECODERS, deterministic=True)
    done = 0
    iterator = iter(sizes)
    while done < len(names):
        try:
            height, width = next(iterator).numpy()
        except tf.errors.OpError as error:
            raise damaged_image(str(root / names[done]), said(error)) from error
        yield int(height), int(width)
        done += 1


def _decode(contents: tf.Tensor, channels: int) -> tf.Tensor:
    import tensorflow as tf

    def decode(channels: int) -> tf.Tensor:
        image = tf.io.decode_image(contents, channels=channels, expand_animations=False)
        return tf.ensure_shape(image, (None, None, channels))

    if channels == 3:
        return decode(3)
    # TensorFlow gives no grayscale of BMP and GIF, nor of JPEG files in CMYK.
    magic = tf.strings.substr(contents, 0, 2)
    cmyk = tf.cond(
        magic == b"\xff\xd8", lambda: tf.equal(tf.io.extract_jpeg_shape(contents)[2], 4), lambda: tf.constant(False)
    )
    color_only = tf.reduce_any([magic == b"BM", magic == b"GI", cmyk])
    return tf.cond(color_only, lambda: tf.image.rgb_to_grayscale(decode(3)), lambda: decode(1))
