"""Folders of class folders: find the splits, the classes and the files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeprune.data.images import ImageStore
from edgeprune.data.preprocess import CHANNELS, Preprocessing
from edgeprune.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
FOREIGN_SUFFIXES = (".webp", ".tif", ".tiff", ".heic", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".svg")
SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
KEEP_DECODED_BYTES = 256 * 2**20  # the whole source, decoded to uint8

Entry = tuple[str, int, int]  # path relative to the source, bytes, mtime_ns


def open_folder(root: Path, preprocessing: Preprocessing) -> tuple[dict[str, ImageStore], tuple[str, ...], bytes]:
    """List an image folder. Reads no image.

    ``train/``, ``val/`` or ``validation/``, and ``test/`` above the class folders are the splits; without them all
    images are one store named ``all``. Classes are the names of the class folders, sorted as strings (like Keras);
    images may lie in folders below them. Hidden files and files that are not images are left out.

    Args:
        preprocessing: with ``size`` and ``color`` resolved.

    Returns:
        (stores, class names, a hash over path, size and modification time of every file).

    Raises:
        DataError: no classes, one class, no images, an empty image, an image format that is not read, a missing
            split folder, a class in validation or test that train does not have.
    """
    assert preprocessing.size is not None
    assert preprocessing.color is not None
    try:
        listings = {split: _list_classes(folder, root) for split, folder in _split_folders(root).items()}
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}.",
            expected="folders and images that may be read.",
            fix="correct the permissions, or remove the broken link.",
        ) from None
    classes = tuple(listings.get("train") or listings["all"])
    _check_classes(listings, classes, root)
    height, width = preprocessing.size
    channels = CHANNELS[preprocessing.color]
    entries = [entry for listing in listings.values() for files in listing.values() for entry in files]
    keep_decoded = len(entries) * height * width * channels <= KEEP_DECODED_BYTES
    stores = {
        split: ImageStore(
            root,
            [name for files in listing.values() for name, _, _ in files],
            np.repeat([classes.index(name) for name in listing], [len(files) for files in listing.values()]),
            size=preprocessing.size,
            channels=channels,
            keep_decoded=keep_decoded,
        )
        for split, listing in listings.items()
    }
    identity = hashlib.sha256(b"\n".join(os.fsencode(repr(entry)) for entry in sorted(entries))).digest()
    return stores, classes, identity


def _split_folders(root: Path) -> dict[str, Path]:
    names = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    splits = {SPLIT_FOLDERS[name]: root / name for name in names}
    if not names:
        return {"all": root}
    if len(splits) < len(names):
        raise DataError(f"The folder {root} has both val/ and validation/.", expected="one of them.")
    missing = [name for name in ("train", "test") if name not in splits]
    if missing:
        raise DataError(
            f"The folder {root} has {', '.join(f'{name}/' for name in names)} but no {' and no '.join(missing)}/.",
            expected="train/ and test/ (and val/, or 10 % of train is taken), or class folders alone.",
            fix="add the missing folder, or put all class folders in one folder: 20 % of the images become test.",
        )
    return splits


def _list_classes(folder: Path, root: Path) -> dict[str, list[Entry]]:
    """Class name → its images, both sorted."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name))
    if not names:
        raise DataError(
            f"The folder {folder} has no class folders.",
            expected="one folder per class, with images in it: CLASS/image.png.",
            fix="move the images of each class into a folder with the name of the class.",
        )
    return {name: sorted(_images(folder / name, root)) for name in names}


def _images(folder: Path, root: Path) -> Iterator[Entry]:
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if _hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _images(folder / entry.name, root)
            elif suffix in FOREIGN_SUFFIXES:
                raise DataError(
                    f"The image {entry.path} is in a format that is not read.",
                    expected="JPEG, PNG, BMP or GIF.",
                    fix="convert the images, for example to PNG.",
                )
            elif suffix in SUFFIXES:
                yield _entry(entry, root)


def _entry(entry: os.DirEntry[str], root: Path) -> Entry:
    stat = entry.stat()
    if stat.st_size == 0:
        raise DataError(f"The image {entry.path} is empty (0 bytes).", fix="replace or remove this file.")
    return os.path.relpath(entry.path, root), stat.st_size, stat.st_mtime_ns


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _check_classes(listings: dict[str, dict[str, list[Entry]]], classes: tuple[str, ...], root: Path) -> None:
    empty = [name for name in classes if not (listings.get("train") or listings["all"])[name]]
    if len(empty) == len(classes):
        raise DataError(
            f"The folder {root} has no images in its class folders ({_some(classes)}).",
            expected="JPEG, PNG, BMP or GIF files in one folder per class.",
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


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
