"""Folders of images with boxes: which annotations there are, whether they agree, and the images as samples."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.images.annotations import CROWD, Box, Boxes, Found, Size, read_coco, read_voc, read_yolo, yolo_names
from edgeprune.data.images.folder import (
    IMAGES,
    KEEP_DECODED_BYTES,
    SPLIT_FOLDERS,
    image_files,
    listing_hash,
    split_folders,
)
from edgeprune.data.images.pixels import framed
from edgeprune.data.images.store import ImageStore, image_size
from edgeprune.data.labels import in_order
from edgeprune.data.preprocess import CHANNELS, Preprocessing
from edgeprune.data.split import groups_of_paths
from edgeprune.data.targets import TargetFacts
from edgeprune.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

    from edgeprune.recipe.config import BoxesConfig

IMAGE_FOLDERS = ("images", "JPEGImages")
# Which files hold annotations, beside the folder of images; the first that a folder has is read.
FORMS = {
    "coco": ("instances*.json", "annotations/instances*.json"),
    "voc": ("annotations*", "Annotations"),
    "yolo": ("labels*",),
}
_SUFFIXES = {"voc": "*.xml", "yolo": "*.txt"}
SHOWN = 20  # problems in one message
TOLERANCE = 1.01  # pixels, between the same corner in two forms: VOC has whole numbers
ROW = 6  # x1, y1, x2, y2 in pixels, number of the class, kind
PADDING = -1  # the class of rows that fill up


class BoxStore(ImageStore):
    """Images with boxes, decoded when they are needed.

    Labels are ``{"boxes": float32 [boxes, 6], "size": float32 [2]}``: rows of x1, y1, x2, y2 in pixels of the file,
    number of the class, and 0, or 1 for a crowd and 2 for a difficult object; rows of class -1 fill up to the longest
    list of the store. ``size``: height and width of the file in pixels.

    Args:
        root, names, size, color, keep_decoded, groups: as those of :class:`~edgeprune.data.images.store.ImageStore`.
        rows: float32 [all boxes, 6].
        counts: boxes of each image.
        sizes: (height, width) of each image.
        config: how images are resized.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        rows: np.ndarray,
        counts: np.ndarray,
        sizes: np.ndarray,
        config: BoxesConfig,
        *,
        size: Size,
        color: str,
        keep_decoded: bool,
        groups: np.ndarray | None = None,
    ):
        super().__init__(root, names, (), size=size, color=color, keep_decoded=keep_decoded, groups=groups)
        self.counts = counts
        self._rows, self._sizes, self._config = rows, np.float32(sizes), config
        self._most = int(counts.max(initial=1))
        highest = float(max(self._sizes.max(initial=1), rows[:, 4].max(initial=0)))
        self.targets = {
            "boxes": TargetFacts((None, ROW), "float32", PADDING, highest, False, None, None),
            "size": TargetFacts((2,), "float32", 1.0, highest, False, None, None),
        }

    def rows(self, index: np.ndarray) -> np.ndarray:
        """The boxes of these images, float32 [boxes, 6]."""
        wanted = np.zeros(self.size, bool)
        wanted[index] = True
        return self._rows[np.repeat(wanted, self.counts)]

    def _labels_of(self, positions: tf.Tensor) -> dict[str, tf.Tensor]:
        import tensorflow as tf

        rows, sizes = self._boxes
        filling = tf.constant([0, 0, 0, 0, PADDING, 0], tf.float32)
        ragged = tf.gather(rows, positions)
        dense = ragged.to_tensor(0.0, shape=(None, self._most, ROW))
        there = tf.sequence_mask(ragged.row_lengths(), self._most)[..., None]
        return {"boxes": tf.where(there, dense, filling), "size": tf.gather(sizes, positions)}

    @functools.cached_property
    def _boxes(self) -> tuple[tf.RaggedTensor, tf.Tensor]:
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):
            rows = tf.RaggedTensor.from_row_lengths(tf.constant(self._rows), tf.constant(self.counts, tf.int64))
            return rows, tf.constant(self._sizes)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return framed(image, self._shape[:2], self._config.resize, self._config.fill)


@dataclasses.dataclass(frozen=True)
class _Folder:
    """Images and their annotations: those of one split."""

    place: Path
    images: Path
    forms: Mapping[str, Path]


def has_boxes(root: Path) -> bool:
    """Whether a folder is one of images with boxes: ``images/`` beside annotations, there or in its split folders."""
    return any(_look(folder) for folder in _places(root))


def open_boxes(
    root: Path,
    preprocessing: Preprocessing,
    order: tuple[str, ...] | None,
    config: BoxesConfig,
    group: str | None = None,
) -> tuple[dict[str, BoxStore], tuple[str, ...], bytes, str, tuple[str, ...]]:
    """List the images of a folder and read their annotations. Reads of images their headers only.

    Args:
        root: has ``images/`` (or ``JPEGImages/``) and annotations, or train/, val/ and test/ with them.
        preprocessing: with ``size`` and ``color`` resolved.
        order: the classes in the order of the model's outputs; None: as the annotations number them, names of VOC
            sorted, those that are whole numbers as numbers.
        config: ``[data.boxes]``.
        group: see :func:`edgeprune.data.split.groups_of_paths`.

    Returns:
        (stores, names of the classes, a hash of images and annotations, which annotations were taken, what to be warned
        of).

    Raises:
        DataError: what is wrong with images and annotations, all in one message; forms that disagree.
    """
    assert preprocessing.size is not None
    assert preprocessing.color is not None
    folders = {split: _look(place) for split, place in split_folders(root, IMAGES).items()}
    parts = {split: folder for split, folder in folders.items() if folder}
    if len(parts) < len(folders):
        missing = ", ".join(f"{split}/" for split in folders if split not in parts)
        raise DataError(
            f"{root} has images with boxes, but not in {missing}.",
            expected="images/ and annotations in each of its split folders.",
        )
    listed = {split: list(image_files(part.images, root)) for split, part in parts.items()}
    problems: list[str] = []
    sizes = {
        split: _sizes([(os.path.relpath(root / name, parts[split].images), root / name) for name, *_ in own], problems)
        for split, own in listed.items()
    }
    forms = [form for form in FORMS if all(form in part.forms for part in parts.values())]
    if config.format:
        if config.format not in forms:
            raise DataError(
                f"[data.boxes] format = {config.format!r}, but {root} has no such annotations.",
                expected=f"one of: {', '.join(forms)}." if forms else None,
                fix="correct it, or leave it out.",
            )
        forms = [config.format]
    if not forms:
        raise DataError(
            f"The split folders of {root} have annotations of different forms.",
            expected="one form in all of them: instances*.json (COCO), annotations/*.xml (VOC) or labels/*.txt (YOLO).",
        )
    read = {form: {split: _read(form, part, root, sizes[split]) for split, part in parts.items()} for form in forms}
    for form in forms:
        problems += [problem for found in read[form].values() for problem in found.problems]
    if not problems:
        names = {form: _names(form, read[form], order, problems) for form in forms}
    if problems:
        raise DataError(
            f"{len(problems)} {'thing is' if len(problems) == 1 else 'things are'} wrong with the images and boxes of "
            f"{root}:\n"
            + "\n".join(f"  {problem}" for problem in problems[:SHOWN])
            + (f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""),
            expected="boxes of known classes within images that are there.",
            fix="correct these files. Images without any box are fine.",
        )
    said = _agreed(forms, read, root)
    chosen = forms[0]
    classes = order or names[chosen]
    height, width = preprocessing.size
    count = sum(map(len, listed.values()))
    keep = count * height * width * CHANNELS[preprocessing.color] <= KEEP_DECODED_BYTES
    stores = {}
    for split, entries in listed.items():
        found, own = read[chosen][split], sizes[split]
        keys = [os.path.relpath(root / name, parts[split].images) for name, *_ in entries]
        rows = [[*box[:4], classes.index(box.name), box.kind] for key in keys for box in found.boxes.get(key, ())]
        stores[split] = BoxStore(
            root,
            [name for name, *_ in entries],
            np.array(rows, np.float32).reshape(-1, ROW),
            np.array([len(found.boxes.get(key, ())) for key in keys]),
            np.array([own[key] for key in keys]),
            config,
            size=preprocessing.size,
            color=preprocessing.color,
            keep_decoded=keep,
            groups=groups_of_paths([name for name, *_ in entries], group),
        )
    digest = hashlib.sha256(listing_hash([entry for own in listed.values() for entry in own]))
    for _, found in sorted(read[chosen].items()):
        digest.update(found.digest)
    digest.update(repr((chosen, classes)).encode())
    return stores, classes, digest.digest(), said, tuple(_repeated(read[chosen]))


def _places(root: Path) -> list[Path]:
    return [root, *(root / name for name in SPLIT_FOLDERS)]


def _look(place: Path) -> _Folder | None:
    images = next((place / name for name in IMAGE_FOLDERS if (place / name).is_dir()), None)
    if images is None:
        return None
    forms = {}
    for form, patterns in FORMS.items():
        paths = [path for pattern in patterns for path in sorted(place.glob(pattern))]
        fitting = [path for path in dict.fromkeys(paths) if _holds(path, form)]
        if len(fitting) > 1:
            raise DataError(
                f"{place} has several annotations of one form: {', '.join(path.name for path in fitting)}.",
                expected="one, so that it is certain which of them counts.",
                fix="move the others elsewhere.",
            )
        if fitting:
            forms[form] = fitting[0]
    return _Folder(place, images, forms) if forms else None


def _holds(path: Path, form: str) -> bool:
    """Whether a path is annotations of a form, and not only named so."""
    if form == "coco":
        return path.is_file()
    return path.is_dir() and next(path.glob(_SUFFIXES[form]), None) is not None


def _sizes(paths: Sequence[tuple[str, Path]], problems: list[str]) -> dict[str, Size]:
    """(height, width) of each image by name; what cannot be read is a problem."""
    from PIL import Image

    sizes = {}
    for name, path in paths:
        try:
            sizes[name] = image_size(str(path))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            problems.append(f"{path}: no readable image ({error})")
    return sizes


def _read(form: str, part: _Folder, root: Path, sizes: Mapping[str, Size]) -> Found:
    path = part.forms[form]
    if form == "coco":
        return read_coco(path, sizes)
    if form == "voc":
        return read_voc(path, sizes)
    named = yolo_names([path, part.place, root])
    if named is None:
        raise DataError(
            f"The classes of the YOLO labels in {path} have no names.",
            expected=f"a classes.txt (one name per line), obj.names or data.yaml in {root} or beside the labels.",
            fix=f"write {root / 'classes.txt'}, in the order of the numbers.",
        )
    found = read_yolo(path, sizes, named[0])
    found.read(named[1])
    return found


def _names(
    form: str, parts: Mapping[str, Found], order: tuple[str, ...] | None, problems: list[str]
) -> tuple[str, ...]:
    """The classes of a form in their order; those that the recipe, or the training part, does not have are problems."""
    numbered = [found.names for found in parts.values() if found.names is not None]
    if len(set(numbered)) > 1:
        problems.append(f"the classes differ between the split folders: {' and '.join(map(repr, numbered))}")
    used = {
        split: sorted({box.name for boxes in found.boxes.values() for box in boxes}) for split, found in parts.items()
    }
    first = used.get("train") or used.get("whole") or []
    names = order or (numbered[0] if numbered else in_order(first))
    if twice := [name for name in names if names.count(name) > 1]:
        problems.append(
            f"the annotations ({form}) have two classes {twice[0]!r}, of which boxes could not be told apart; classes "
            "under [data] in the recipe can name those of the model, each once"
        )
    for split, own in used.items():
        for name in own:
            if name not in names:
                example = next(
                    key for key, boxes in parts[split].boxes.items() if any(box.name == name for box in boxes)
                )
                known = "[data] classes" if order else "the training part"
                problems.append(f"{split}, {example} ({form}): unknown class {name!r}; {known} has {', '.join(names)}")
    return names


def _agreed(forms: Sequence[str], read: Mapping[str, Mapping[str, Found]], root: Path) -> str:
    """Which form is taken, if all give the same boxes: the first.

    Raises:
        DataError: they do not.
    """
    chosen, *others = forms
    renamed: dict[str, dict[str, str]] = {}
    for other in others:
        mine, theirs = ({box.name for box in _all(read[form])} for form in (chosen, other))
        names = {name: name for name in mine} if mine == theirs else {}
        for split, found in read[chosen].items():
            if (difference := _difference(found.boxes, read[other][split].boxes, names)) is not None:
                raise DataError(
                    f"The annotations of {root} disagree: {difference} has other boxes in {chosen} than in {other}.",
                    expected="the same boxes in all forms, or one form.",
                    fix=f'choose one in the recipe:\n  [data.boxes]\n  format = "{chosen}"',
                )
        renamed[other] = {mine: theirs for mine, theirs in names.items() if mine != theirs}
    said = f"boxes are read from {chosen}"
    if others:
        said += f"; {' and '.join(others)} {'agrees' if len(others) == 1 else 'agree'}"
        for other, pairs in renamed.items():
            if pairs:
                said += f" ({other} calls {', '.join(f'{mine} {theirs}' for mine, theirs in pairs.items())})"
    return said


def _repeated(parts: Mapping[str, Found]) -> Iterator[str]:
    """A sentence about boxes that are there several times, of the same class in the same image."""
    for split, found in parts.items():
        repeated = {image: len(boxes) - len(set(boxes)) for image, boxes in found.boxes.items()}
        if total := sum(repeated.values()):
            image = next(image for image, count in repeated.items() if count)
            yield (
                f"{total:,} of the boxes of {split} are there twice, such as in {image}: each is demanded, and a "
                "detector gives one, so that figures look worse than they are"
            )


def _all(parts: Mapping[str, Found]) -> Iterator[Box]:
    for found in parts.values():
        for boxes in found.boxes.values():
            yield from boxes


def _difference(a: Boxes, b: Boxes, names: dict[str, str]) -> str | None:
    """The first image whose boxes differ; ``names`` is filled with the names of a's classes in b, one to one."""
    for image in a.keys() | b.keys():
        mine, theirs = (sorted(boxes.get(image, ()), key=_key) for boxes in (a, b))
        if len(mine) != len(theirs):
            return image
        left = list(theirs)
        for box in mine:
            near = [one for one in left if max(abs(p - q) for p, q in zip(box[:4], one[:4], strict=True)) <= TOLERANCE]
            fitting = [one for one in near if names.get(box.name, one.name) == one.name]
            # The kinds are not compared: crowds are known to COCO alone, and difficult objects to VOC.
            if not fitting:
                return image
            best = min(fitting, key=lambda one: sum(abs(p - q) for p, q in zip(box[:4], one[:4], strict=True)))
            if names.setdefault(box.name, best.name) != best.name:
                return image
            left.remove(best)
    if len(set(names.values())) < len(names):
        return next(iter(a))
    return None


def _key(box: Sequence[object]) -> tuple[object, ...]:
    return tuple(box[:4])


def frame_boxes(y: Mapping[str, tf.Tensor], size: Size, resize: str) -> tf.Tensor:
    """The boxes of a batch as a loss takes them, from labels of :class:`BoxStore`.

    Args:
        y: the labels.
        size: (height, width) of the model's input.
        resize: how images were brought to that size.

    Returns:
        float32 [batch, boxes, 5]: x1, y1, x2, y2 in fractions of the input and the class; -1 where a row is none, as
        those of crowds, which cannot be learned.
    """
    import tensorflow as tf

    boxes, own = y["boxes"], y["size"]
    whole = tf.constant(size, tf.float32)
    inner = tf.broadcast_to(whole, tf.shape(own))
    before = tf.zeros_like(own)
    if resize == "letterbox":
        inner = tf.clip_by_value(tf.floor(own * tf.reduce_min(whole / own, -1, keepdims=True) + 0.5), 1, whole)
        before = (whole - inner) // 2
    scale, shift = (inner / own / whole)[:, None, ::-1], (before / whole)[:, None, ::-1]
    corners = boxes[..., :4] * tf.tile(scale, [1, 1, 2]) + tf.tile(shift, [1, 1, 2])
    classes = tf.where(boxes[..., 5:6] == CROWD, tf.cast(PADDING, tf.float32), boxes[..., 4:5])
    return tf.concat([tf.where(classes < 0, 0.0, corners), classes], -1)
