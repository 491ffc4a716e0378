"""The parts of report.json that say where baseline and pick answer differently, and pictures of the samples."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.images.pixels import palette
from edgeprune.evaluate.answers import flipped
from edgeprune.files import JsonObject, write_bytes
from edgeprune.report.answers import BOX_COLOURS, is_image, picture

if TYPE_CHECKING:
    from edgeprune.evaluate.answers import Answers

THUMBNAIL = 64  # pixels of the longer side, at most
MASK_SIDE = 128  # of an image with masks beside it
BOX_SIDE = 192  # of an image with boxes
LINE = 2  # pixels
GAP = 4
FEW_VALUES = 16  # inputs up to this size are written out
# What inputs of images are usually scaled to; the first that holds all of them is shown as black to white.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-128.0, 127.0))


def outcomes(baseline: Answers, pick: Answers, class_names: Sequence[str] | None, output: str) -> JsonObject:
    """What two files answered on the test split.

    Args:
        baseline: answers of the baseline.
        pick: answers of the pick; those of the baseline, if it is the pick.
        class_names: in the order of the labels; None: not known.
        output: name of the primary output, whose flipped samples are listed.

    Returns:
        ``baseline`` and ``pick``, for ``outcomes`` of their variants; ``flipped`` and ``class_names``, for the report.
    """
    return {
        "baseline": baseline.summary(),
        "pick": pick.summary(),
        "flipped": None if pick is baseline else flipped(baseline, pick, output),
        "class_names": None if class_names is None else list(class_names),
    }


def positions(flips: JsonObject) -> np.ndarray:
    """Which samples of the split :func:`describe_samples` needs: int64, ascending, as a stream gives them."""
    return np.array(sorted(sample["index"] for sample in flips["samples"]), np.int64)


def describe_samples(
    flips: JsonObject,
    inputs: Sequence[np.ndarray],
    folder: Path,
    masks: Sequence[np.ndarray] = (),
    boxes: Sequence[Sequence[np.ndarray]] = (),
    spectrograms: np.ndarray | None = None,
) -> None:
    """Add the figures of their inputs to flipped samples; of images and sound, also write a picture for report.html.

    Args:
        flips: ``flipped`` of :func:`outcomes`; changed.
        inputs: one array [samples, ...] per input of the model, preprocessed, in the order of :func:`positions`.
        folder: the run folder; pictures are its ``samples/INDEX.png``.
        masks: to be shown at the right of each image: int64 [samples, height, width] each, -1 where there is no class.
        boxes: to be drawn into copies of the image, side by side: per copy and sample float [boxes, 5], as
            :func:`edgeprune.data.images.boxes.frame_boxes` has them.
        spectrograms: pictures in place of those of inputs: [samples, bands, frames], low bands first.

    Raises:
        OutputError: the folder cannot be written.
    """
    numbers, samples = positions(flips).tolist(), {sample["index"]: sample for sample in flips["samples"]}
    for row, number in enumerate(numbers):
        samples[number]["inputs"] = [_figures(array[row]) for array in inputs]
    images = next((array for array in inputs if is_image(array.shape[1:])), None)
    pictures = []
    if spectrograms is not None:
        pictures = coloured_spectrograms(spectrograms)
    elif images is not None:
        pictures = thumbnails(images, masks, boxes)
    for number, image in zip(numbers, pictures, strict=bool(pictures)):
        write_bytes(folder / picture(number), image)


def coloured_spectrograms(values: np.ndarray) -> list[bytes]:
    """PNG files [samples, bands, frames], low bands at the bottom; the same colour means the same value in all."""
    from matplotlib.image import imsave

    files, times = [], max(1, MASK_SIDE // max(values.shape[1:]))
    for bands in values.repeat(times, axis=1).repeat(times, axis=2):
        buffer = io.BytesIO()
        scale = {"vmin": values.min(), "vmax": values.max(), "cmap": "magma"}
        imsave(buffer, bands, format="png", origin="lower", metadata={"Software": None}, **scale)  # type: ignore[dict-item]
        files.append(buffer.getvalue())
    return files


def thumbnails(
    rows: np.ndarray, masks: Sequence[np.ndarray] = (), boxes: Sequence[Sequence[np.ndarray]] = ()
) -> list[bytes]:
    """Small pictures of images in any range, as PNG files: the same grey means the same value in all of them.

    Args:
        rows: [samples, height, width, 1, 3 or 4]; a fourth channel is left out.
        masks: classes [samples, height, width] in colours beside each, white where there is none.
        boxes: drawn into copies, see :func:`describe_samples`.
    """
    from matplotlib.image import imsave

    rows = np.nan_to_num(rows[..., :3].astype(np.float32))
    low, high = _black_and_white(rows)
    side = BOX_SIDE if boxes else MASK_SIDE if masks else THUMBNAIL
    pixels = np.clip((_shrunk(rows, side) - low) / np.maximum(high - low, 1e-12) * 255, 0, 255).round().astype(np.uint8)
    pictures = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    if masks:
        pictures = np.concatenate([pictures, *(_coloured(mask, pictures.shape[1:3]) for mask in masks)], axis=2)
    if boxes:
        copies = [_framed([_drawn(*pair) for pair in zip(pictures, each, strict=True)]) for each in boxes]
        pictures = np.concatenate(copies, axis=2)[:, :, GAP:]
    files = []
    for image in pictures:
        buffer = io.BytesIO()
        imsave(buffer, image, format="png", metadata={"Software": None})  # type: ignore[dict-item]
        files.append(buffer.getvalue())
    return files


def _black_and_white(rows: np.ndarray) -> tuple[Any, Any]:
    """A usual range; for images in none, as with the means of channels taken off, each channel's own.

    A range that the images fill to less than an eighth is not theirs: they would all look grey.
    """
    least, most = rows.min(initial=0), rows.max(initial=0)
    fitting = ((low, high) for low, high in RANGES if low <= least and most <= high)
    usual = next(((low, high) for low, high in fitting if most - least >= (high - low) / 8), None)
    return usual or (rows.min(axis=(0, 1, 2)), rows.max(axis=(0, 1, 2)))


def _coloured(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks as uint8 [samples, height, width and a gap, 3]."""
    colors = np.array([*palette(int(masks.max(initial=0)) + 1), [255, 255, 255]], np.uint8)  # the last one is of -1
    rows = (np.arange(n) * masks.shape[axis] // n for axis, n in zip((1, 2), size, strict=True))
    return _framed(colors[masks[:, next(rows)][:, :, next(rows)]])


def _framed(pictures: Any) -> np.ndarray:
    """With a gap at the left: uint8 [samples, height, width and a gap, 3]."""
    return np.pad(np.asarray(pictures), [(0, 0), (0, 0), (GAP, 0), (0, 0)], constant_values=255)


def _drawn(picture: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A copy of a picture, uint8 [height, width, 3], with boxes [boxes, 5] in it."""
    drawn, colours = picture.copy(), list(BOX_COLOURS.values())
    height, width = picture.shape[:2]
    for *corners, number in boxes[boxes[:, 4] >= 0]:
        x1, y1, x2, y2 = np.round(np.clip(corners, 0, 1) * ([width, height] * 2)).astype(int)
        colour = colours[int(number) % len(colours)]
        for edge in (np.s_[y1 : y1 + LINE, x1:x2], np.s_[max(y2 - LINE, 0) : y2, x1:x2]):
            drawn[edge] = colour
        for edge in (np.s_[y1:y2, x1 : x1 + LINE], np.s_[y1:y2, max(x2 - LINE, 0) : x2]):
            drawn[edge] = colour
    return drawn


def _shrunk(rows: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """Means of squares of pixels, so that neither side is longer than ``side``."""
    step = -(-max(rows.shape[1:3]) // side)
    for axis in (1, 2):
        starts = np.arange(0, rows.shape[axis], step)
        sizes = np.diff(starts, append=rows.shape[axis]).reshape([-1 if i == axis else 1 for i in range(4)])
        rows = np.add.reduceat(rows, starts, axis=axis) / sizes
    return rows


def _figures(values: np.ndarray) -> JsonObject:
    """Shape, range and mean of one input; its values, where they are few."""
    finite = values[np.isfinite(values)].astype(np.float64)
    few = {"values": [_number(value) for value in values.ravel()]} if values.size <= FEW_VALUES else {}
    return {
        "shape": list(values.shape),
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        "mean": float(finite.mean()) if finite.size else None,
        **few,
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
