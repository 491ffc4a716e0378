"""Folders of images: find the splits, the classes and the files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edgeprune.data.images import ImageStore, image_sizes
from edgeprune.data.preprocess import CHANNELS, Preprocessing
from edgeprune.data.spec import Shape
from edgeprune.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
FOREIGN_SUFFIXES = (".webp", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".svg")
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
KEEP_DECODED_BYTES = 256 * 2**20  # the whole source, decoded to uint8

Entry = tuple[str, int, int]  # path relative to the source, bytes, mtime_ns
Listing = dict[str | None, list[Entry]]  # class name → its images, both sorted; None: images without a class


def open_folder(
    root: Path, preprocessing: Preprocessing, order: tuple[str, ...] | None = None
) -> tuple[dict[str, ImageStore], tuple[str, ...] | None, bytes]:
    """List an image folder. Reads no image.

    ``train/``, ``val/`` or ``validation/``, and ``test/`` above the class folders are the splits; without them all
    images are one store named ``whole``. Classes are the names of the class folders, sorted as numbers if all are whole
    numbers, else as strings (like Keras); images may lie in folders below them. Folders that hold images and no
    folders are data without labels. Hidden files and files that are not images are left out.

    Args:
        preprocessing: with ``size`` and ``color`` resolved.
        order: the names of all class folders in the order of their numbers; None: sorted.

    Returns:
        (stores, class names or None, a hash over path, size and modification time of every file).

    Raises:
        DataError: one class, no images, an empty image, an image format that is not read, a missing split folder, a
            class in validation or test that train does not have, images beside class folders, other classes than
            ``order`` has.
    """
    assert preprocessing.size is not None
    assert preprocessing.color is not None
    with _readable():
        listings = {split: _list_folder(folder, root) for split, folder in split_folders(root).items()}
    classes = _classes(listings, root, order)
    height, width = preprocessing.size
    entries = [entry for listing in listings.values() for files in listing.values() for entry in files]
    keep_decoded = len(entries) * height * width * CHANNELS[preprocessing.color] <= KEEP_DECODED_BYTES
    stores = {
        split: ImageStore(
            root,
            [name for files in listing.values() for name, _, _ in files],
            _labels(listing, classes),
            size=preprocessing.size,
            color=preprocessing.color,
            keep_decoded=keep_decoded,
        )
        for split, listing in listings.items()
    }
    identity = hashlib.sha256(b"\n".join(os.fsencode(repr(entry)) for entry in sorted(entries))).digest()
    return stores, classes, identity


def size_of_images(root: Path, wanted: Shape) -> tuple[int, int]:
    """(height, width) of all images of a folder, for a model of images of any size.

    Args:
        wanted: the model's shape, for the message.

    Raises:
        DataError: they differ, or one is damaged; as :func:`open_folder`.
    """
    with _readable():
        listings = [_list_folder(folder, root) for folder in split_folders(root).values()]
    names = [name for listing in listings for files in listing.values() for name, _, _ in files]
    sizes: dict[tuple[int, int], str] = {}
    for name, size in zip(names, image_sizes(root, names), strict=True):
        sizes.setdefault(size, name)
        if len(sizes) > 1:
            break
    if len(sizes) == 1:
        return next(iter(sizes))
    if not sizes:
        raise DataError(f"The folder {root} has no images.", expected="JPEG, PNG, BMP or GIF files.")
    (one, first), (other, second) = sizes.items()
    raise DataError(
        f"The images of {root} differ in size: {first} has {one[0]} x {one[1]} pixels (height x width), {second} "
        f"{other[0]} x {other[1]}; and the model, open for {wanted}, takes any.",
        expected="the size to which all images are resized, and for which the model is built.",
        fix=f"set [data] size = [{one[0]}, {one[1]}] in the recipe, or the size that the model was trained with; or "
        f"--input-shape {one[0]},{one[1]},{wanted[-1] or 3}.",
    )


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}.",
            expected="folders and images that may be read.",
            fix="correct the permissions, or remove the broken link.",
        ) from None


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits by name; ``whole`` for a folder without them.

    Raises:
        DataError: train/ or test/ is missing, or validation is there twice.
    """
    names = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    splits = {SPLIT_FOLDERS[name]: root / name for name in names}
    if not names:
        return {"whole": root}
    if len(splits) < len(names):
        raise DataError(f"The folder {root} has both val/ and validation/.", expected="one of them.")
    missing = [name for name in ("train", "test") if name not in splits]
    if missing:
        raise DataError(
            f"The folder {root} has {', '.join(f'{name}/' for name in names)} but no {' and no '.join(missing)}/.",
            expected="train/ and test/ (and val/, or 10 % of train is taken), or class folders or images alone.",
            fix="add the missing folder, or put all class folders in one folder: 20 % of the images become test.",
        )
    return splits


def _list_folder(folder: Path, root: Path) -> Listing:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not _hidden(entry.name)]
    names = sorted(entry.name for entry in visible if entry.is_dir())
    loose = sorted(_image_files((entry for entry in visible if not entry.is_dir()), root))
    if names and loose:
        raise DataError(
            f"The folder {folder} has images ({len(loose)}, for example {Path(loose[0][0]).name}) beside the folders "
            f"{_some(names)}.",
            expected="class folders alone, or images alone (data without labels).",
            fix="if the folders are classes, move the images into them; else move the folders elsewhere.",
        )
    if loose:
        return {None: loose}
    if not names:
        raise DataError(
            f"The folder {folder} has no class folders and no images.",
            expected="one folder per class, with images in it: CLASS/image.png; or images without labels.",
            fix="move the images of each class into a folder with the name of the class.",
        )
    return {name: sorted(_images(folder / name, root)) for name in names}


def image_files(folder: Path, root: Path) -> list[Entry]:
    """All images in a folder and in those below it, sorted.

    Raises:
        DataError: none, one that is empty or of a format that is not read, or what may not be read.
    """
    with _readable():
        entries = sorted(_images(folder, root))
    if not entries:
        raise DataError(f"The folder {folder} has no images.", expected="JPEG, PNG, BMP or GIF files.")
    return entries


def _images(folder: Path, root: Path) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not _hidden(entry.name)]
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from _images(folder / entry.name, root)
    yield from _image_files((entry for entry in visible if not entry.is_dir(follow_symlinks=False)), root)


def _image_files(files: Iterable[os.DirEntry[str]], root: Path) -> Iterator[Entry]:
    for file in files:
        suffix = os.path.splitext(file.name)[1].lower()
        if suffix in FOREIGN_SUFFIXES:
            raise DataError(
                f"The image {file.path} is in a format that is not read.",
                expected="JPEG, PNG, BMP or GIF.",
                fix="convert the images, for example to PNG.",
            )
        if suffix in SUFFIXES:
            yield _entry(file, root)


def _entry(entry: os.DirEntry[str], root: Path) -> Entry:
    stat = entry.stat()
    if stat.st_size == 0:
        raise DataError(f"The image {entry.path} is empty (0 bytes).", fix="replace or remove this file.")
    return os.path.relpath(entry.path, root), stat.st_size, stat.st_mtime_ns


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _classes(listings: dict[str, Listing], root: Path, order: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The classes in the order of their numbers; None for images without labels."""
    flat = [split for split, listing in listings.items() if None in listing]
    if len(flat) == len(listings):
        return None
    if flat:
        raise DataError(
            f"The folder {root} has class folders in some splits, and images without classes in {flat[0]}/.",
            expected="class folders in all splits, or in none (data without labels).",
        )
    names = tuple(name for name in listings.get("train") or listings["whole"] if name is not None)
    _check_classes(listings, names, root)
    if order is None:
        return tuple(sorted(names, key=lambda name: (int(name), name))) if all(map(_is_number, names)) else names
    if set(order) != set(names):
        raise DataError(
            f"[data] classes names {_some(order)}; the class folders of {root} are {_some(names)}.",
            expected="the name of each class folder once, in the order of the model's outputs.",
            fix="correct [data] classes in the recipe, or leave it out: then the folders' names are sorted.",
        )
    return order


def _labels(listing: Listing, classes: tuple[str, ...] | None) -> np.ndarray | None:
    if classes is None:
        return None
    return np.repeat([classes.index(str(name)) for name in listing], [len(files) for files in listing.values()])


def _is_number(name: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", name) is not None


def _check_classes(listings: dict[str, Listing], classes: tuple[str, ...], root: Path) -> None:
    empty = [name for name in classes if not (listings.get("train") or listings["whole"])[name]]
    if len(empty) == len(classes):
        raise DataError(
            f"The folder {root} has no images in its class folders ({_some(classes)}).",
            expected="JPEG, PNG, BMP or GIF files in one folder per class.",
        )
    if len(classes) == 1:
        raise DataError(
            f"The folder {root} has a single class folder, {classes[0]}/.",
            expected="at least two classes, or images alone (data without labels).",
            fix=f"name the folder that holds the class folders; for images without labels name {root / classes[0]}.",
        )
    if empty:
        raise DataError(
            f"The class folder {empty[0]!r} in {root} has no images.",
            expected="images of every class.",
            fix="add images, or remove the folder: an empty class would shift the numbers of the classes after it.",
        )
    for split, listing in listings.items():
        unknown = [name for name in listing if name not in classes]
        if unknown:
            raise DataError(
                f"The class {unknown[0]!r} is in {split}/ but not in train/ of {root}.",
                expected=f"the classes of train: {_some(classes)}.",
                fix="add images of this class to train/, or correct the name of the folder.",
            )
        if not any(listing.values()):
            raise DataError(f"The {split} part of {root} has no images.", expected="at least one image.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
