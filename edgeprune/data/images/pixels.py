"""Image files → pixels and class numbers, by one rule each: in training, in evaluation, and on devices.

The scripts that run a file on a board contain the functions of this module, which need NumPy and Pillow only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_image(file: str, channels: int) -> np.ndarray:
    """The pixels of a JPEG, PNG, BMP, GIF or WebP file (of several frames: the first), uint8 [height, width, channels].

    Turned as the camera noted (EXIF). Of 16 bits per channel, the upper 8 count. Transparency is left out, palettes are
    looked up, and gray is 0.299 red + 0.587 green + 0.114 blue.

    Args:
        file: its path.
        channels: 3 for RGB, 1 for gray.

    Raises:
        OSError, ValueError, SyntaxError: no whole image.
    """
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        is_turned = opened.getexif().get(0x0112, 1) != 1
        image = ImageOps.exif_transpose(opened) if is_turned else opened  # which copies all of the others as well
        if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would cut off at 255
            image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode not in ("L", "LA", "RGB"):
            image = image.convert("RGB")
        wanted = "RGB" if channels == 3 else "L"
        image = image if image.mode == wanted else image.convert(wanted)
        return np.asarray(image).reshape(image.height, image.width, channels)


def read_mask(file: str) -> np.ndarray:
    """The class numbers of a PNG mask as it stores them, int32 [height, width]: indices of its palette, or gray values.

    Raises:
        OSError, SyntaxError: no whole image.
        ValueError: a mask of colours.
    """
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        is_turned = opened.getexif().get(0x0112, 1) != 1
        image = ImageOps.exif_transpose(opened) if is_turned else opened
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise ValueError(f"it holds colours ({image.mode}), neither class numbers nor a palette")
        # Of gray of 2 or 4 bits, as tools store masks of few classes, Pillow makes 0..255.
        with open(file, "rb") as png:
            head = png.read(26)
        is_gray = opened.format == "PNG" and head[25] == 0
        step = {2: 85, 4: 17}.get(head[24], 1) if is_gray else 1  # by bits per pixel
        return np.asarray(image).astype(np.int32) // step


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image in another size, uint8: bilinear without antialiasing, as ``image_dataset_from_directory`` of Keras."""
    if image.shape[:2] == (height, width):
        return image

    def neighbours(size: int, wanted: int) -> tuple:  # type: ignore[type-arg]
        places = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(size / wanted) - np.float32(0.5)
        below = np.floor(places)
        share = (places - below).astype(np.float32)
        return below.clip(0).astype(int), np.ceil(places).clip(0, size - 1).astype(int), share

    (top, bottom, down), (left, right, along) = neighbours(image.shape[0], height), neighbours(image.shape[1], width)
    down, along = down[:, None, None], along[None, :, None]

    def row(places: np.ndarray) -> np.ndarray:
        first, last = (image[places[:, None], side[None]].astype(np.float32) for side in (left, right))
        return first + (last - first) * along

    above, under = row(top), row(bottom)
    return np.round(above + (under - above) * down).astype(np.uint8)


def frame(own: Sequence[int], size: Sequence[int], resize: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where an image lies in the model's input: (height, width) that it is resized to, (top, left) of it.

    Args:
        own, size: (height, width) of the image, and of the input, in pixels.
        resize: "stretch" or "letterbox".
    """
    if resize == "stretch":
        return (size[0], size[1]), (0, 0)
    sides, whole = np.asarray(own, np.float32), np.asarray(size, np.float32)
    inner = np.clip(np.floor(sides * (whole / sides).min() + np.float32(0.5)), 1, whole).astype(int)
    height, width = inner.tolist()
    return (height, width), ((size[0] - height) // 2, (size[1] - width) // 2)


def framed(image: np.ndarray, size: Sequence[int], resize: str, fill: int) -> np.ndarray:
    """An image uint8 [height, width, channels] in the size of a model's input.

    Args: as of :func:`frame`; ``fill``: the value around the image, for "letterbox".
    """
    (height, width), (top, left) = frame(image.shape[:2], size, resize)
    whole = np.full((*size, image.shape[2]), fill, np.uint8)
    whole[top : top + height, left : left + width] = resize_image(image, height, width)
    return whole


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask in another size: each pixel is that of the nearest middle, so that no class comes out of two others."""
    rows = ((np.arange(height) + 0.5) * (mask.shape[0] / height)).astype(int)
    columns = ((np.arange(width) + 0.5) * (mask.shape[1] / width)).astype(int)
    return mask[rows[:, None], columns[None]]


def palette(classes: int) -> list:  # type: ignore[type-arg]
    """[red, green, blue] of each class: the bits of its number, spread over the three from the highest down, as in the
    masks of Pascal VOC."""
    bits = [
        [[number >> (3 * place + channel) & 1 for place in range(3)] for channel in range(3)]
        for number in range(classes)
    ]
    return [[sum(bit << (7 - place) for place, bit in enumerate(one)) for one in number] for number in bits]


def write_mask(file: str, mask: np.ndarray, colors: Sequence[Sequence[int]]) -> None:
    """Class numbers [height, width] as a PNG with a palette, by what Python has: boards have no Pillow.

    Args:
        file: its path.
        mask: whole numbers of 0 to 255.
        colors: red, green and blue of each class.
    """
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = mask.shape
    lines = np.pad(mask.astype(np.uint8), [(0, 0), (1, 0)])  # a line begins with its filter, 0 for none
    with open(file, "wb") as png:
        png.write(b"\x89PNG\r\n\x1a\n")
        png.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)))
        png.write(chunk(b"PLTE", bytes(value for color in colors for value in color)))
        png.write(chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b""))
