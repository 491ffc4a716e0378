"""Annotations of boxes as people have them: COCO json, Pascal VOC xml and YOLO txt, read into one form.

A reader collects what is wrong with its files and goes on, so that one message has all of it. Coordinates are those of
corners: x from 0 at the left edge of the image to its width at the right edge.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import os
import xml.parsers.expat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from edgeprune.errors import DataError

# What a box is beside an object to be found: COCO's crowds, and what VOC calls difficult, which neither counts.
PLAIN, CROWD, DIFFICULT = 0, 1, 2
OUTSIDE = 1.0  # pixels that a box may reach out of its image by, from rounding; it is cut off
Size = tuple[int, int]  # height, width in pixels


class Box(NamedTuple):
    """x1, y1, x2, y2 in pixels of the file, with the name of its class; ``kind``: PLAIN, CROWD or DIFFICULT."""

    x1: float
    y1: float
    x2: float
    y2: float
    name: str
    kind: int = PLAIN


Boxes = dict[str, list[Box]]  # file name of an image, relative to its folder → its boxes


class Found:
    """What was read from one form of annotations of one folder.

    Attributes:
        boxes: of every image that has annotations; perhaps none.
        names: of the classes in the order of their numbers; None: the form has none.
        problems: what is wrong, each with file and line.
        digest: hash of the content of the annotation files.
    """

    def __init__(self) -> None:
        self.boxes: Boxes = {}
        self.names: tuple[str, ...] | None = None
        self.problems: list[str] = []
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def read(self, path: Path) -> bytes | None:
        """The content of an annotation file; None, and a problem, if it cannot be read."""
        try:
            content = path.read_bytes()
        except OSError as error:
            self.problems.append(f"{path}: cannot be read ({error.strerror})")
            return None
        self._hash.update(f"{path.name} {len(content)} ".encode() + content)
        return content

    def add(self, image: str, size: Size, box: Box, place: str) -> None:
        """Take a box, unless it is none of this image."""
        height, width = size
        if not all(map(math.isfinite, box[:4])):
            self.problems.append(f"{place}: a coordinate is no finite number")
        elif box.x2 <= box.x1 or box.y2 <= box.y1:
            self.problems.append(f"{place}: the box {_corners(box)} has no area")
        elif min(box.x1, box.y1) < -OUTSIDE or box.x2 > width + OUTSIDE or box.y2 > height + OUTSIDE:
            self.problems.append(f"{place}: the box {_corners(box)} is outside of {image} ({width} x {height} pixels)")
        else:
            inside = max(box.x1, 0), max(box.y1, 0), min(box.x2, width), min(box.y2, height)
            self.boxes[image].append(Box(*inside, box.name, box.kind))

    def compare(self, image: str, sizes: Mapping[str, Size], stated: tuple[Any, Any], place: str) -> None:
        """Take boxes for those of the image only if its size is what the annotations say, where they do: (height,
        width). Sizes of 0 are written by tools that do not know them."""
        own = sizes.get(image)
        height, width = stated
        try:
            differs = own and all(stated) and own != (int(height), int(width))
        except (TypeError, ValueError):
            self.problems.append(f"{place}: height and width are no numbers: {height!r} and {width!r}")
            return
        if own and differs:
            self.problems.append(
                f"{place}: boxes for {width} x {height} pixels (width x height), and {image} has {own[1]} x {own[0]}"
            )


def _corners(box: Box) -> str:
    return "({})".format(", ".join(f"{value:g}" for value in box[:4]))


Reader = Callable[[Path, Mapping[str, Size]], Found]


# --- COCO


def read_coco(path: Path, sizes: Mapping[str, Size]) -> Found:
    """One ``instances*.json``. Classes are numbered in the order of the categories' ids.

    Args:
        path: the file.
        sizes: of all images of the folder by name.
    """
    found = Found()
    content = found.read(path)
    if content is None:
        return found
    try:
        document = json.loads(content)
        listed = document["images"]
        images = {entry["id"]: str(PurePosixPath(entry["file_name"])) for entry in listed}
        categories = sorted(document["categories"], key=lambda one: one["id"])
        names = {entry["id"]: str(entry["name"]) for entry in categories}
        entries = [*document["annotations"]]
    except json.JSONDecodeError as error:
        found.problems.append(f"{path}:{error.lineno}: no JSON ({error.msg})")
        return found
    except KeyError as error:
        found.problems.append(f"{path}: not as COCO has it: no {error}")
        return found
    except (TypeError, UnicodeDecodeError, AttributeError) as error:
        found.problems.append(f"{path}: not as COCO has it: {error}")
        return found
    found.names = tuple(names.values())
    for what, rows, ids in (("images", listed, images), ("categories", categories, names)):
        if len(ids) < len(rows):
            found.problems.append(f"{path}: {len(rows)} {what} have {len(ids)} different ids")
    found.problems += [
        f"{path}: the image {name} is listed {times} times, and its boxes would be counted for each"
        for name, times in collections.Counter(images.values()).items()
        if times > 1
    ]
    for number, entry in enumerate(listed):
        found.compare(
            images[entry["id"]], sizes, (entry.get("height"), entry.get("width")), f"{path}: images[{number}]"
        )
    _fit_images(found, list(images.values()), sizes, str(path), listed=True)
    for number, entry in enumerate(entries):
        place = f"{path}: annotations[{number}]"
        try:
            image, category, bbox = images.get(entry["image_id"]), names.get(entry["category_id"]), entry["bbox"]
        except KeyError as error:
            found.problems.append(f"{place}: not as COCO has it: no {error}")
            continue
        except TypeError:  # no object, or an id that is none
            found.problems.append(f"{place}: not as COCO has it: {str(entry)[:60]}")
            continue
        try:
            x, y, width, height = map(float, bbox)
        except (TypeError, ValueError):
            found.problems.append(f"{place}: bbox is not x, y, width, height: {str(bbox)[:60]}")
            continue
        if image is None:
            found.problems.append(f"{place}: there is no image with id {entry['image_id']}")
        elif category is None:
            found.problems.append(f"{place}: unknown class, there is no category with id {entry['category_id']}")
        elif image in found.boxes:
            kind = CROWD if entry.get("iscrowd") else PLAIN
            found.add(image, sizes[image], Box(x, y, x + width, y + height, category, kind), place)
    return found


def _fit_images(found: Found, named: Sequence[str], sizes: Mapping[str, Size], place: str, *, listed: bool) -> None:
    """Start the lists of boxes; annotated images that are missing are problems, and images that are not listed."""
    for name in named:
        if name in sizes:
            found.boxes[name] = []
        else:
            found.problems.append(f"{place}: the image {name} is missing")
    if listed:
        found.problems += [f"{place}: the image {name} is not listed" for name in sizes if name not in found.boxes]


# --- Pascal VOC


def read_voc(folder: Path, sizes: Mapping[str, Size]) -> Found:
    """A folder with an .xml file per image, of the image's name; ``xmin, ymin, xmax, ymax`` are taken as corners."""
    found = Found()
    images = _by_stem(sizes)
    for path in sorted(folder.rglob("*.xml")):
        image = images.pop(stem := _stem(path, folder), None)
        content = found.read(path)
        if content is None:
            continue
        if image is None:
            found.problems.append(f"{path}: the image {stem} is missing")
            continue
        found.boxes[image] = []
        try:
            size, objects = _voc_objects(content)
        except xml.parsers.expat.ExpatError as error:
            what = "is empty" if not content.strip() else f"no XML ({xml.parsers.expat.ErrorString(error.code)})"
            found.problems.append(f"{path}:{error.lineno}: {what}")
            continue
        found.compare(image, sizes, (size.get("height"), size.get("width")), str(path))
        for line, values in objects:
            place = f"{path}:{line}"
            try:
                x1, y1, x2, y2 = (float(values["bndbox", key]) for key in ("xmin", "ymin", "xmax", "ymax"))
                name = values["name",]
            except KeyError as error:
                found.problems.append(f"{place}: an object without {'/'.join(error.args[0])}")
            except ValueError as error:
                found.problems.append(f"{place}: {error}")
            else:
                kind = DIFFICULT if values.get(("difficult",), "0") == "1" else PLAIN
                found.add(image, sizes[image], Box(x1, y1, x2, y2, name, kind), place)
    found.problems += [
        f"{folder}: there is no {stem}.xml for {image} (one without objects says that there are none)"
        for stem, image in images.items()
    ]
    return found


def _by_stem(sizes: Mapping[str, Size]) -> dict[str, str]:
    """Images by name without suffix, which is how annotation files are named after them."""
    stems: dict[str, str] = {}
    for name in sizes:
        if (other := stems.setdefault(os.path.splitext(name)[0], name)) != name:
            raise DataError(
                f"{other} and {name} have one name but for the suffix, so that annotations of both have one name, too.",
                fix="rename one of them, and its annotation.",
            )
    return stems


def _stem(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder))[: -len(path.suffix)]


def _voc_objects(content: bytes) -> tuple[dict[str, int], list[tuple[int, dict[tuple[str, ...], str]]]]:
    """The whole numbers of ``size``; and the line of every object, and its texts by path of tags."""
    path: list[str] = []
    size: dict[str, int] = {}
    objects: list[tuple[int, dict[tuple[str, ...], str]]] = []
    parser = xml.parsers.expat.ParserCreate()

    def start(tag: str, _: Any) -> None:
        path.append(tag)
        if path[1:] == ["object"]:
            objects.append((parser.CurrentLineNumber, {}))

    def text(data: str) -> None:
        if path[1:2] == ["object"] and data.strip():
            values = objects[-1][1]
            key = tuple(path[2:])
            values[key] = values.get(key, "") + data.strip()
        elif path[1:2] == ["size"] and data.strip().isdecimal():
            size[path[-1]] = int(data)

    parser.buffer_text = True
    parser.StartElementHandler, parser.CharacterDataHandler = start, text
    parser.EndElementHandler = lambda tag: path.pop()
    parser.Parse(content, True)
    return size, objects


# --- YOLO


def read_yolo(folder: Path, sizes: Mapping[str, Size], names: tuple[str, ...]) -> Found:
    """A folder with a .txt per image: ``class x y width height`` per line, of the centre, in fractions of the image.

    An image without a file, or with an empty one, has no boxes.
    """
    found = Found()
    found.names = names
    found.boxes = {image: [] for image in sizes}
    images = _by_stem(sizes)
    for path in sorted(folder.rglob("*.txt")):
        stem = _stem(path, folder)
        image = images.get(stem)
        if image is None and path.name in CLASS_LISTS:
            continue
        content = found.read(path)
        if content is None:
            continue
        if image is None:
            found.problems.append(f"{path}: the image {stem} is missing")
            continue
        height, width = sizes[image]
        for number, line in enumerate(content.decode("utf-8-sig", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                label, x, y, w, h = line.split()
                index, (x1, y1, bw, bh) = int(label), (float(x), float(y), float(w), float(h))
            except ValueError:
                found.problems.append(f"{place}: {line.strip()[:60]!r} is not: class x y width height")
                continue
            if not 0 <= index < len(names):
                found.problems.append(f"{place}: unknown class {index}, of {len(names)} classes")
                continue
            corners = (x1 - bw / 2) * width, (y1 - bh / 2) * height, (x1 + bw / 2) * width, (y1 + bh / 2) * height
            found.add(image, sizes[image], Box(*corners, names[index]), place)
    return found


CLASS_LISTS = ("classes.txt", "obj.names", "classes.names")
YAMLS = ("data.yaml", "data.yml", "dataset.yaml")


def yolo_names(folders: Sequence[Path]) -> tuple[tuple[str, ...], Path] | None:
    """The classes of YOLO labels and the file that names them, from the first folder that has one; else None.

    Raises:
        DataError: a file whose names cannot be read, or leave open which number a class has; files that disagree.
    """
    files = [folder / name for folder in folders for name in (*CLASS_LISTS, *YAMLS) if (folder / name).is_file()]
    found = [(_yaml_names if path.name in YAMLS else _listed_names)(path, _text(path)) for path in files]
    for path, names in zip(files, found, strict=True):
        if names != found[0]:
            raise DataError(
                f"The names of the classes differ: {files[0]} has {', '.join(found[0])}, and {path} "
                f"{', '.join(names)}.",
                expected="the same names in the same order, or one file.",
                fix="remove the file that the labels were not written with.",
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(
                f"{path} has two classes {twice[0]!r}.",
                expected="a name of its own for each class, in the order of the numbers from 0 on.",
                fix="rename one of them.",
            )
    return (found[0], files[0]) if files else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # Windows puts a mark before a text
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The names of the classes in {path} cannot be read: {error}.",
            expected="a text in UTF-8.",
            fix="save it again in UTF-8.",
        ) from None


def _listed_names(path: Path, text: str) -> tuple[str, ...]:
    """One name per line."""
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise DataError(
            f"Line {lines.index('') + 1} of {path} is empty: does it count in the numbers of the classes below it?",
            expected="a name in every line, in the order of the numbers from 0 on.",
            fix="remove the empty line, or write a name there.",
        )
    return tuple(lines)


def _yaml_names(path: Path, text: str) -> tuple[str, ...]:
    """``names`` of a data.yaml: a list, or a table by number."""
    import yaml

    try:
        document = yaml.load(text, Loader=yaml.BaseLoader)  # which leaves all as texts: no is a class, not False
        names, count = document["names"], document.get("nc")
        if isinstance(names, dict):
            names = [names[str(number)] for number in range(len(names))]
    except (yaml.YAMLError, KeyError, TypeError):
        names, count = [], None
    if not (isinstance(names, list) and names and all(name and isinstance(name, str) for name in names)):
        raise DataError(
            f"The names of the classes in {path} cannot be read.",
            expected='names: ["a", "b"], or {0: a, 1: b}, or one per line.',
            fix="write the classes into a classes.txt beside it, one per line, and remove it.",
        )
    if count is not None and count != str(len(names)):
        raise DataError(
            f"{path} has nc = {count}, and names {len(names)} classes: {', '.join(names)}.",
            expected="a name for each class.",
            fix="correct nc or names.",
        )
    return tuple(names)
