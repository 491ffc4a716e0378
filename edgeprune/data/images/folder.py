"""Folders of images: find the splits, the classes and the files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.file_store import in_threads
from edgeprune.data.images.store import ImageStore, damage, image_sizes
from edgeprune.data.labels import in_order
from edgeprune.data.preprocess import CHANNELS, Preprocessing
from edgeprune.data.spec import Shape
from edgeprune.data.split import groups_of_paths
from edgeprune.errors import DataError
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    from edgeprune.recipe.config import DataConfig

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
FOREIGN_SUFFIXES = (".tif", ".tiff", ".heic", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".svg")


@dataclasses.dataclass(frozen=True)
class FileKind:
    """Files of one kind, and what messages call them.

    Attributes:
        noun, formats: "image" and "JPEG, PNG, BMP, GIF or WebP".
        usual: the format that others are best converted to, "PNG".
        suffixes: in small letters.
        foreign: suffixes of files of this kind that are not read.
    """

    noun: str
    formats: str
    usual: str
    suffixes: tuple[str, ...]
    foreign: tuple[str, ...]


IMAGES = FileKind("image", "JPEG, PNG, BMP, GIF or WebP", "PNG", SUFFIXES, FOREIGN_SUFFIXES)
SPLIT_FOLDERS = {
    "train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test",
}  # fmt: skip
# What others call splits; as classes they would be learned, and beside splits overlooked.
_LIKE_SPLITS = {*SPLIT_FOLDERS, "training", "testing", "dev", "eval"}
KEEP_DECODED_BYTES = 256 * 2**20  # the whole source, decoded to uint8

Entry = tuple[str, int, int]  # path relative to the source, bytes, mtime_ns
Listing = dict[str | None, list[Entry]]  # class name → its files, both sorted; None: files without a class
SHOWN = 10  # files that one message names


@dataclasses.dataclass(frozen=True)
class Folder:
    """An image folder.

    Attributes:
        stores: by split; one named ``whole`` where there are no split folders.
        class_names: of the class folders; None where there are none.
        identity: a hash over path, size and modification time of every file.
        notes: images that cannot be read, where the recipe has them left out.
    """

    stores: dict[str, ImageStore]
    class_names: tuple[str, ...] | None
    identity: bytes
    notes: tuple[str, ...]


def open_folder(root: Path, preprocessing: Preprocessing, config: DataConfig) -> Folder:
    """List an image folder, and look whether its files can be read.

    ``train/``, ``val/`` or ``validation/``, and ``test/`` above the class folders are the splits; without them all
    images are one store named ``whole``. Classes are the names of the class folders, sorted as numbers if all are whole
    numbers, else as strings (like Keras); images may lie in folders below them. Folders that hold images and no
    folders are data without labels. Hidden files and files that are not images are left out.

    Args:
        preprocessing: with ``size`` and ``color`` resolved.
        config: classes, group, broken.

    Raises:
        DataError: one class, no images, files that cannot be read, an image format that is not read, a missing split
            folder, a class in validation or test that train does not have, images beside class folders, other classes
            than ``config.classes`` has.
    """
    assert preprocessing.size is not None
    assert preprocessing.color is not None
    with readable():
        folders = split_folders(root, IMAGES)
        listings = {split: _list_folder(folder, root, IMAGES) for split, folder in folders.items()}
    entries = [entry for listing in listings.values() for files in listing.values() for entry in files]
    left_out = unreadable_files(root, [name for name, _, _ in entries], config)
    for listing in listings.values():
        for files in listing.values():
            files[:] = [entry for entry in files if entry[0] not in left_out]
    entries = [entry for entry in entries if entry[0] not in left_out]
    classes = _classes(listings, root, config.classes, IMAGES)
    height, width = preprocessing.size
    keep_decoded = len(entries) * height * width * CHANNELS[preprocessing.color] <= KEEP_DECODED_BYTES
    stores = {
        split: ImageStore(
            root,
            [name for files in listing.values() for name, _, _ in files],
            *labels_of(listing, classes),
            size=preprocessing.size,
            color=preprocessing.color,
            keep_decoded=keep_decoded,
            groups=groups_of_files(listing, config.group),
        )
        for split, listing in listings.items()
    }
    return Folder(stores, classes, listing_hash(entries), said_left_out(left_out))


def list_files(
    root: Path, kind: FileKind, order: tuple[str, ...] | None = None
) -> tuple[dict[str, Listing], tuple[str, ...] | None]:
    """The files of each split, or of ``whole``, and the classes in the order of their numbers; see :func:`open_folder`.

    Raises:
        DataError: as :func:`open_folder`.
    """
    with readable():
        listings = {split: _list_folder(folder, root, kind) for split, folder in split_folders(root, kind).items()}
    return listings, _classes(listings, root, order, kind)


def listing_hash(entries: Sequence[Entry]) -> bytes:
    """sha256 over path, size and modification time of files."""
    return hashlib.sha256(b"\n".join(os.fsencode(repr(entry)) for entry in sorted(entries))).digest()


def unreadable_files(root: Path, names: Sequence[str], config: DataConfig) -> set[str]:
    """Image files that cannot be read.

    Raises:
        DataError: there are some, and the recipe does not have them left out.
    """
    reasons = in_threads(damage, [str(root / name) for name in names])
    broken = [(name, reason) for name, reason in zip(names, reasons, strict=True) if reason]
    if broken and config.broken == "error":
        raise broken_images(root, broken, len(names))
    return {name for name, _ in broken}


def said_left_out(names: Collection[str]) -> tuple[str, ...]:
    """What the report says of files that are not part of the data."""
    if not names:
        return ()
    named = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return (f"{len(names)} of the image files cannot be read and were left out, as the recipe says: {named}",)


def broken_images(root: Path, broken: Sequence[tuple[str, str]], count: int) -> DataError:
    """The error for image files that cannot be read: (name, reason) each, out of ``count``."""
    listed = "".join(f"\n  {root / name}: {reason}" for name, reason in broken[:SHOWN])
    return DataError(
        f"{len(broken)} of {count} image files cannot be read"
        + (f", the first {SHOWN} of them:" if len(broken) > SHOWN else ":")
        + listed,
        expected="whole JPEG, PNG, BMP, GIF or WebP files.",
        fix='replace or remove these files; or leave them out: broken = "skip" under [data] in the recipe.',
    )


def size_of_images(root: Path, folders: Iterable[Path], wanted: Shape, config: DataConfig) -> tuple[int, int]:
    """(height, width) of all images below folders of a source, for a model of images of any size.

    Args:
        wanted: the model's shape, for the message.
        config: broken.

    Raises:
        DataError: they differ, or one is damaged; as :func:`open_folder`.
    """
    with readable():
        names = sorted(name for folder in folders for name, *_ in files_below(folder, root, IMAGES))
    left_out = unreadable_files(root, names, config)
    names = [name for name in names if name not in left_out]
    sizes: dict[tuple[int, int], str] = {}
    for name, size in zip(names, image_sizes(root, names), strict=True):
        sizes.setdefault(size, name)
        if len(sizes) > 1:
            break
    if len(sizes) == 1:
        return next(iter(sizes))
    if not sizes:
        raise DataError(f"The folder {root} has no images.", expected="JPEG, PNG, BMP, GIF or WebP files.")
    (one, first), (other, second) = sizes.items()
    raise DataError(
        f"The images of {root} differ in size: {first} has {one[0]} x {one[1]} pixels (height x width), {second} "
        f"{other[0]} x {other[1]}; and the model, open for {wanted}, takes any.",
        expected="the size to which all images are resized, and for which the model is built.",
        fix=f"set [data] size = [{one[0]}, {one[1]}] in the recipe, or the size that the model was trained with; or "
        f"--input-shape {one[0]},{one[1]},{wanted[-1] or 3}.",
    )


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Turn an error of the system into one of the data."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}.",
            expected="folders and files that may be read.",
            fix="correct the permissions, or remove the broken link.",
        ) from None


def split_folders(root: Path, kind: FileKind) -> dict[str, Path]:
    """The folders of the splits by name; ``whole`` for a folder without them.

    Raises:
        DataError: train/ or test/ is missing, validation is there twice, or folders may be splits under other names.
    """
    names = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    splits = {SPLIT_FOLDERS[name]: root / name for name in names}
    with readable():
        alike = like_splits(path for path in root.iterdir() if path.is_dir())
    if len(alike) > 1 or (alike and names):
        raise DataError(
            f"The folder {root} has {', '.join(f'{name}/' for name in alike)}: splits, or classes?",
            expected="train/, val/ (or valid/, validation/) and test/, or class folders.",
            fix="call splits train, val and test; move elsewhere what is none, and give classes other names.",
        )
    if not names:
        return {"whole": root}
    if len(splits) < len(names):
        twice = sorted(f"{name}/" for name in names if SPLIT_FOLDERS[name] == "validation")
        raise DataError(f"The folder {root} has both {' and '.join(twice)}.", expected="one of them.")
    missing = [name for name in ("train", "test") if name not in splits]
    if missing:
        raise DataError(
            f"The folder {root} has {', '.join(f'{name}/' for name in names)} but no {' and no '.join(missing)}/.",
            expected=f"train/ and test/ (and val/, or 10 % of train is taken), or class folders or {kind.noun}s alone.",
            fix=f"add the missing folder, or put all class folders in one folder: 20 % of the {kind.noun}s "
            "become test.",
        )
    return splits


def like_splits(paths: Iterable[Path]) -> list[str]:
    """The names of files and folders that may stand for splits, and are not read as such, sorted."""
    return sorted(
        path.name
        for path in paths
        if path.stem.lower() in _LIKE_SPLITS and path.stem not in SPLIT_FOLDERS and not _is_in_small(path)
    )


def _is_in_small(path: Path) -> bool:
    """Whether a name has capitals where these make no difference, so that Train is train."""
    small = path.with_name(path.name.lower())
    return small.name != path.name and small.exists() and small.samefile(path)


def _list_folder(folder: Path, root: Path, kind: FileKind) -> Listing:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not is_hidden(entry.name)]
    names = sorted(entry.name for entry in visible if entry.is_dir())
    loose = sorted(_files((entry for entry in visible if not entry.is_dir()), root, kind))
    if names and loose:
        raise DataError(
            f"The folder {folder} has {kind.noun}s ({len(loose)}, for example {Path(loose[0][0]).name}) beside the "
            f"folders {some(names)}.",
            expected=f"class folders alone, or {kind.noun}s alone (data without labels).",
            fix=f"if the folders are classes, move the {kind.noun}s into them; else move the folders elsewhere.",
        )
    if loose:
        return {None: loose}
    if not names:
        raise DataError(
            f"The folder {folder} has no class folders and no {kind.noun}s.",
            expected=f"one folder per class, with {kind.noun}s in it: CLASS/FILE; or {kind.noun}s without labels.",
            fix=f"move the {kind.noun}s of each class into a folder with the name of the class.",
        )
    listing: Listing = {}
    for name in names:
        # Some systems write an umlaut as one character, others as two.
        key = unicodedata.normalize("NFC", name)
        if key in listing:
            raise DataError(
                f"The folder {folder} has two folders {key!r}, whose names are the same but for their Unicode form.",
                expected="one folder for each class.",
                fix="move their files into one of them.",
            )
        listing[key] = sorted(files_below(folder / name, root, kind))
    return listing


def image_files(folder: Path, root: Path) -> list[Entry]:
    """All images in a folder and in those below it, sorted.

    Raises:
        DataError: none, one of a format that is not read, or what may not be read.
    """
    with readable():
        entries = sorted(files_below(folder, root, IMAGES))
    if not entries:
        raise DataError(f"The folder {folder} has no images.", expected=f"{IMAGES.formats} files.")
    return entries


def files_below(folder: Path, root: Path, kind: FileKind) -> Iterator[Entry]:
    """The files of a kind in a folder and in those below it."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not is_hidden(entry.name)]
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(folder / entry.name, root, kind)
    yield from _files((entry for entry in visible if not entry.is_dir(follow_symlinks=False)), root, kind)


def _files(files: Iterable[os.DirEntry[str]], root: Path, kind: FileKind) -> Iterator[Entry]:
    for file in files:
        suffix = os.path.splitext(file.name)[1].lower()
        if suffix in kind.foreign:
            raise DataError(
                f"The {kind.noun} {file.path} is in a format that is not read.",
                expected=f"{kind.formats}.",
                fix=f"convert the {kind.noun}s, for example to {kind.usual}.",
            )
        if suffix in kind.suffixes:
            yield _entry(file, root, kind)


def _entry(entry: os.DirEntry[str], root: Path, kind: FileKind) -> Entry:
    stat = entry.stat()
    return os.path.relpath(entry.path, root), stat.st_size, stat.st_mtime_ns


def is_hidden(name: str) -> bool:
    """Whether files and folders of this name are no part of the data."""
    return name.startswith(".") or name == "__MACOSX"


def _classes(
    listings: dict[str, Listing], root: Path, order: tuple[str, ...] | None, kind: FileKind
) -> tuple[str, ...] | None:
    """The classes in the order of their numbers; None for files without labels."""
    flat = [split for split, listing in listings.items() if None in listing]
    if len(flat) == len(listings):
        return None
    if flat:
        raise DataError(
            f"The folder {root} has class folders in some splits, and {kind.noun}s without classes in {flat[0]}/.",
            expected="class folders in all splits, or in none (data without labels).",
        )
    names = tuple(name for name in listings.get("train") or listings["whole"] if name is not None)
    order = order and tuple(unicodedata.normalize("NFC", name) for name in order)
    _check_classes(listings, names, root, kind)
    if order is None:
        return in_order(names)
    if set(order) != set(names):
        raise DataError(
            f"[data] classes names {some(order)}; the class folders of {root} are {some(names)}.",
            expected="the name of each class folder once, in the order of the model's outputs.",
            fix="correct [data] classes in the recipe, or leave it out: then the folders' names are sorted.",
        )
    return order


def labels_of(listing: Listing, classes: tuple[str, ...] | None) -> tuple[Structure, np.ndarray | None]:
    """(targets, labels) of the files of a listing, both the class of each, int64 [files]; ``()``, None without."""
    if classes is None:
        return (), None
    places = [classes.index(str(name)) for name in listing]
    numbers = np.repeat(np.array(places, np.int64), [len(files) for files in listing.values()])
    return numbers, numbers


def groups_of_files(listing: Listing, pattern: str | None) -> np.ndarray | None:
    """The group of each file of a listing, see :func:`edgeprune.data.split.groups_of_paths`."""
    return groups_of_paths([name for files in listing.values() for name, *_ in files], pattern)


def _check_classes(listings: dict[str, Listing], classes: tuple[str, ...], root: Path, kind: FileKind) -> None:
    empty = [name for name in classes if not (listings.get("train") or listings["whole"])[name]]
    if len(empty) == len(classes):
        raise DataError(
            f"The folder {root} has no {kind.noun}s in its class folders ({some(classes)}).",
            expected=f"{kind.formats} files in one folder per class.",
        )
    if len(classes) == 1:
        raise DataError(
            f"The folder {root} has a single class folder, {classes[0]}/.",
            expected=f"at least two classes, or {kind.noun}s alone (data without labels).",
            fix=f"name the folder that holds the class folders; for {kind.noun}s without labels name "
            f"{root / classes[0]}.",
        )
    if empty:
        raise DataError(
            f"The class folder {empty[0]!r} in {root} has no {kind.noun}s.",
            expected=f"{kind.noun}s of every class.",
            fix=f"add {kind.noun}s, or remove the folder: an empty class would shift the numbers of the classes after "
            "it.",
        )
    for split, listing in listings.items():
        unknown = [name for name in listing if name not in classes]
        if unknown:
            raise DataError(
                f"The class {unknown[0]!r} is in {split}/ but not in train/ of {root}.",
                expected=f"the classes of train: {some(classes)}.",
                fix=f"add {kind.noun}s of this class to train/, or correct the name of the folder.",
            )
        if not any(listing.values()):
            raise DataError(f"The {split} part of {root} has no {kind.noun}s.", expected=f"at least one {kind.noun}.")


def some(names: Sequence[str]) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
