"""Samples in image files, decoded when they are needed."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.file_store import Contents, FileStore, read_in_batches
from edgeprune.data.guard import damaged, unreadable
from edgeprune.data.images.masks import Masks
from edgeprune.data.images.pixels import read_image, resize_image
from edgeprune.data.preprocess import CHANNELS
from edgeprune.data.spec import Shape
from edgeprune.data.split import ordered
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf
    from PIL import Image


class ImageStore(FileStore):
    """Image files as 8-bit pixels, read by the rules of :mod:`edgeprune.data.images.pixels`; resized if they differ
    from ``size``, never cropped.

    Args:
        root: the folder that ``names`` are relative to.
        names: file names, any number; held as bytes.
        y: targets of the files, or a mask for each; ``()``: without labels.
        labels: int64 (files,), see :class:`~edgeprune.data.file_store.FileStore`.
        size: (height, width) in pixels.
        color: of :data:`edgeprune.data.preprocess.CHANNELS`.
        keep_decoded: for small data only: files * height * width * channels bytes, and 4 per pixel of a mask. See
            :class:`~edgeprune.data.file_store.Contents`.
        groups: of the files, (files,), which are kept together where a part is held out.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        y: Structure | Masks,
        labels: np.ndarray | None = None,
        *,
        size: tuple[int, int],
        color: str,
        keep_decoded: bool,
        groups: np.ndarray | None = None,
    ):
        masks = y if isinstance(y, Masks) else None
        super().__init__(root, names, () if masks else y, labels, groups)
        self._shape = (*size, CHANNELS[color])
        self.shapes: tuple[Shape, ...] = (self._shape,)
        self._color = color
        self._images = Contents(self._pixels, self.size, self._shape, "uint8", keep=keep_decoded)
        self._masks: Contents | None = None
        if masks:
            self.targets = masks.facts
            self._masks = Contents(functools.partial(_mask, masks), self.size, masks.size, "int32", keep=keep_decoded)

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """See :class:`edgeprune.data.split.Streamed`.

        Raises:
            DataError: a file cannot be decoded (only where all files are decoded here).
        """
        order = ordered(index, shuffle_seed)
        for contents in (self._images, self._masks):
            if contents:
                contents.prepare(order)

        def read(positions: tf.Tensor) -> tuple[tuple[tf.Tensor], Structure, Structure]:
            return (self._images.of(positions),), self._labels_of(positions), ()

        return read_in_batches(order, batch_size, read, drop_remainder=drop_remainder)

    def _labels_of(self, positions: tf.Tensor) -> Structure:
        return self._masks.of(positions) if self._masks else super()._labels_of(positions)

    def _pixels(self, i: int) -> np.ndarray:
        with named(self.path(i)):
            image = self._resized(read_image(self.path(i), self._shape[2]))
        return image[..., ::-1] if self._color == "bgr" else image

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """An image of any size, uint8 [height, width, channels], in the store's."""
        return resize_image(image, *self._shape[:2])


def _mask(masks: Masks, i: int) -> np.ndarray:
    with named(masks.path(i)):
        return masks.read(i)


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Name the file in errors of Pillow, which TensorFlow hands on."""
    try:
        yield
    except Exception as error:
        raise unreadable("image", path, damage(path) or str(error)) from error


def damage(path: str) -> str | None:
    """Why an image file cannot be read; None: it can. A JPEG is decoded at an eighth of its size, but as a whole."""
    return look_at(path)[1]


def look_at(path: str) -> tuple[tuple[int, int] | None, str | None]:
    """(height, width) of an image file as :func:`image_size` has it, or None; and :func:`damage`."""
    from PIL import Image, UnidentifiedImageError

    try:
        if not os.path.getsize(path):
            return None, "it is empty"
        with Image.open(path) as image:
            size = _upright_size(image)
            image.draft("RGB", (1, 1))
            image.load()
    except UnidentifiedImageError:
        return None, "it is no image of a known format"
    except Exception as error:  # of damaged files, Pillow's readers raise many types
        return None, " ".join(str(error).split()) or type(error).__name__
    return size, None


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
        return _upright_size(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # orientations with rows for columns
    return (image.width, image.height) if turned else (image.height, image.width)
