"""Samples in image files, decoded when they are needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.arrays import gather_batches
from edgeprune.data.file_store import FileStore, read_each, read_in_batches
from edgeprune.data.guard import damaged, data_errors, unreadable
from edgeprune.data.masks import Masks
from edgeprune.data.pixels import read_image, resize_image
from edgeprune.data.preprocess import CHANNELS
from edgeprune.data.spec import Shape
from edgeprune.data.split import ordered
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf


class ImageStore(FileStore):
    """Image files as 8-bit pixels, read by the rules of :mod:`edgeprune.data.pixels`; resized if they differ from
    ``size``, never cropped.

    With ``keep_decoded``, the first pass over at least half of the files decodes all of them into one uint8 array, and
    their masks into one of int32, which later passes read; without it nothing decoded is kept.

    Args:
        root: the folder that ``names`` are relative to.
        names: file names, any number; held as bytes.
        labels: int64 (files,), or a mask per file; None: without labels.
        size: (height, width) in pixels.
        color: of :data:`edgeprune.data.preprocess.CHANNELS`.
        keep_decoded: for small data only: files * height * width * channels bytes, and 4 per pixel of a mask.
        groups: of the files, str [files], which are kept together where a part is held out.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: np.ndarray | Masks | None,
        *,
        size: tuple[int, int],
        color: str,
        keep_decoded: bool,
        groups: np.ndarray | None = None,
    ):
        self._masks = labels if isinstance(labels, Masks) else None
        super().__init__(root, names, None if isinstance(labels, Masks) else labels, groups)
        if self._masks is not None:
            self.targets = self._masks.facts
        self._shape = (*size, CHANNELS[color])
        self.shapes: tuple[Shape, ...] = (self._shape,)
        self._color = color
        self._keep_decoded = keep_decoded
        self._decoded: tuple[tf.Tensor, Structure] | None = None

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """See :class:`edgeprune.data.split.Store`.

        Raises:
            DataError: a file cannot be decoded (only where all files are decoded here).
        """

        order = ordered(index, shuffle_seed)
        if self._keep_decoded and self._decoded is None and 2 * len(order) >= self.size:
            self._decoded = self._decode_all()
        if self._decoded is not None:
            images, labels = self._decoded
            return gather_batches(((images,), labels, ()), order, batch_size, drop_remainder)

        def read(positions: tf.Tensor) -> tuple[tuple[tf.Tensor], Structure, Structure]:
            images, labels = self._read(positions)
            return (images,), labels, ()

        return read_in_batches(order, batch_size, read, drop_remainder=drop_remainder)

    def _decode_all(self) -> tuple[tf.Tensor, Structure]:
        import tensorflow as tf

        def read(positions: tf.Tensor) -> Structure:
            images, labels = self._read(positions)
            return (images, labels) if self._masks is not None else (images,)

        arrays = [np.empty((self.size, *self._shape), np.uint8)]
        if self._masks is not None:
            arrays.append(np.empty((self.size, *self._masks.size), np.int32))
        done = 0
        with data_errors():
            for batch in read_in_batches(np.arange(self.size), 64, read).prefetch(1).as_numpy_iterator():
                for array, part in zip(arrays, batch, strict=True):
                    array[done : done + len(part)] = part
                done += len(batch[0])
        with tf.device("CPU:0"):
            images, *masks = map(tf.convert_to_tensor, arrays)
        return images, masks[0] if masks else self._label_tensor

    def _read(self, positions: tf.Tensor) -> tuple[tf.Tensor, Structure]:
        """These files as uint8 (batch, height, width, channels), and their labels."""
        import tensorflow as tf

        images = read_each(self._pixels, positions, self._shape, tf.uint8)
        if self._masks is None:
            return images, self._labels_of(positions)
        return images, read_each(self._mask, positions, self._masks.size, tf.int32)

    def _pixels(self, i: int) -> np.ndarray:
        with named(self.path(i)):
            image = self._resized(read_image(self.path(i), self._shape[2]))
        return image[..., ::-1] if self._color == "bgr" else image

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """An image of any size, uint8 [height, width, channels], in the store's."""
        return resize_image(image, *self._shape[:2])

    def _mask(self, i: int) -> np.ndarray:
        assert self._masks is not None
        with named(self._masks.path(i)):
            return self._masks.read(i)


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Name the file in errors of Pillow, which TensorFlow hands on."""
    try:
        yield
    except Exception as error:
        raise unreadable("image", path, damage(path) or str(error)) from error


def damage(path: str) -> str | None:
    """Why an image file cannot be read; None: it can. A JPEG is decoded at an eighth of its size, but as a whole."""
    from PIL import Image, UnidentifiedImageError

    try:
        if not os.path.getsize(path):
            return "it is empty"
        with Image.open(path) as image:
            image.draft("RGB", (1, 1))
            image.load()
    except UnidentifiedImageError:
        return "it is no image of a known format"
    except Exception as error:  # of damaged files, Pillow's readers raise many types
        return " ".join(str(error).split()) or type(error).__name__
    return None


def image_sizes(root: Path, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(height, width) of image files in pixels, turned as the camera noted, one after the other; headers are read only.

    Raises:
        DataError: a file is damaged or of another kind.
    """
    for name in names:
        try:
            yield image_size(str(root / name))
        except Exception as error:  # see damage()
            raise damaged("image", str(root / name), damage(str(root / name)) or str(error)) from error


def image_size(path: str) -> tuple[int, int]:
    """(height, width) of one image file, from its header."""
    from PIL import Image

    with Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # orientations with rows for columns
        return (image.width, image.height) if turned else (image.height, image.width)
