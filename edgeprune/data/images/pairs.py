"""Images and their masks: which belong together, and what is wrong with them, in one message."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.file_store import in_threads
from edgeprune.data.images.folder import (
    IMAGES,
    KEEP_DECODED_BYTES,
    SHOWN,
    Entry,
    Folder,
    broken_images,
    files_below,
    is_hidden,
    listing_hash,
    readable,
    said_left_out,
    some,
    split_folders,
)
from edgeprune.data.images.masks import Masks
from edgeprune.data.images.pixels import read_mask
from edgeprune.data.images.store import ImageStore, damage, look_at
from edgeprune.data.preprocess import CHANNELS, Preprocessing
from edgeprune.data.spec import Shape
from edgeprune.data.split import groups_of_paths
from edgeprune.errors import DataError

if TYPE_CHECKING:
    from edgeprune.recipe.config import DataConfig, MasksConfig

PAIR = ("images", "masks")  # folders beside each other, whose files belong together by their names
Pair = tuple[str, str]  # image and mask, relative to the source


def has_masks(root: Path, config: DataConfig) -> bool:
    """Whether images and masks lie in folders beside each other.

    Raises:
        DataError: in some splits only, or beside other folders, where they could be classes.
    """
    with readable():
        folders = split_folders(root, IMAGES)
        inside = {
            split: {entry.name for entry in os.scandir(path) if entry.is_dir() and not is_hidden(entry.name)}
            for split, path in folders.items()
        }
    lacking = [split for split, names in inside.items() if not names >= set(PAIR)]
    if len(lacking) == len(inside) and config.masks is None:
        return False
    if lacking:
        raise DataError(
            f"{folders[lacking[0]]} has no folders images/ and masks/"
            + (", and the recipe has [data.masks]." if len(lacking) == len(inside) else ", and other splits do."),
            expected="images/ and masks/ directly in the folder, or in each of train/, val/ and test/.",
            fix="move the images and masks there" + ("." if config.masks is None else ", or remove [data.masks]."),
        )
    others = sorted({name for names in inside.values() for name in names - set(PAIR)})
    if others and config.masks is None:
        raise DataError(
            f"The folder {root} has images/ and masks/ beside {some(others)}: masks, or class folders?",
            expected="images/ and masks/ alone, or a recipe that says that they belong together.",
            fix="write a section [data.masks] into the recipe if masks/ has the classes of the pixels of images/.",
        )
    return True


def open_pairs(root: Path, preprocessing: Preprocessing, config: DataConfig, output: Shape | None) -> Folder:
    """List a folder of ``images/`` and ``masks/``, or of splits with these, and look at all pairs.

    Args:
        preprocessing: with ``size`` and ``color`` resolved.
        config: classes, group, masks, broken.
        output: shape of the model's output, without the batch, where it has one only; None: not known.

    Raises:
        DataError: no images, files that cannot be read, masks that do not fit their images or the classes.
    """
    from edgeprune.recipe.config import MasksConfig

    assert preprocessing.size is not None
    assert preprocessing.color is not None
    with readable():
        folders = split_folders(root, IMAGES)
        images, masks = (
            {split: sorted(files_below(folder / kind, root, IMAGES)) for split, folder in folders.items()}
            for kind in PAIR
        )
    empty = [split for split in images if not images[split]]
    if empty:
        raise DataError(f"{folders[empty[0]] / 'images'} has no images.", expected="JPEG, PNG, BMP, GIF or WebP files.")
    pairs, problems = paired(images, masks)
    size, classes = preprocessing.size, len(config.classes) if config.classes else None
    if output is not None and len(output) == 3:
        # A model may give its classes for every fourth pixel: masks are made as large as its output.
        size = (output[0] or size[0], output[1] or size[1])
        width = max(output[2] or 0, 2)  # one value per pixel tells two classes apart
        if classes not in (None, width):
            raise DataError(
                f"[data] classes names {classes} classes, and the model gives {width} for every pixel.",
                expected="the name of each class, in the order of the model's outputs, without that of void pixels.",
                fix="correct [data] classes in the recipe.",
            )
        classes = width
    settings = config.masks or MasksConfig()
    values, left_out = check_pairs(root, pairs, problems, settings, classes, skip=config.broken == "skip")
    pairs = {split: [pair for pair in of_split if pair[0] not in left_out] for split, of_split in pairs.items()}
    count = sum(map(len, pairs.values()))
    pixels = preprocessing.size[0] * preprocessing.size[1] * CHANNELS[preprocessing.color] + 4 * size[0] * size[1]
    stores = {
        split: ImageStore(
            root,
            [image for image, _ in of_split],
            Masks(
                root,
                [mask for _, mask in of_split],
                size=size,
                void=settings.void,
                values=settings.values,
                found=values,
            ),
            size=preprocessing.size,
            color=preprocessing.color,
            keep_decoded=count * pixels <= KEEP_DECODED_BYTES,
            groups=groups_of_paths([image for image, _ in of_split], config.group),
        )
        for split, of_split in pairs.items()
    }
    entries = [entry for listing in (images, masks) for files in listing.values() for entry in files]
    identity = hashlib.sha256(listing_hash(entries) + repr((size, settings, sorted(left_out))).encode()).digest()
    return Folder(stores, None, identity, said_left_out(left_out))


def paired(
    images: Mapping[str, Sequence[Entry]], masks: Mapping[str, Sequence[Entry]]
) -> tuple[dict[str, list[Pair]], list[str]]:
    """Images and masks of the same name, apart from the ending, by split; and what has no partner."""
    pairs: dict[str, list[Pair]] = {}
    problems: list[str] = []
    for split in images:
        by_stem = {_stem(name): name for name, _, _ in masks[split] if name.lower().endswith(".png")}
        problems += [
            f"{name}: masks are PNG files, which keep numbers as they are"
            for name, _, _ in masks[split]
            if not name.lower().endswith(".png")
        ]
        taken: dict[str, str] = {}
        pairs[split] = []
        for name, _, _ in images[split]:
            stem = _stem(name)
            if stem in taken:
                problems.append(f"{name}: {taken[stem]} has the same name, and there is one mask for both")
            elif stem not in by_stem:
                problems.append(f"{name}: no mask {_mask_of(name)}")
            else:
                pairs[split].append((name, by_stem[stem]))
            taken.setdefault(stem, name)
        problems += [f"{name}: no image of this name" for stem, name in by_stem.items() if stem not in taken]
    return pairs, problems


def _stem(name: str) -> str:
    """What image and mask have in common: the path below images/ or masks/, without the ending."""
    parts = PurePath(name).parts
    below = next(i for i, part in enumerate(parts) if part in ("images", "masks")) + 1
    return str(PurePath(*parts[below:]).with_suffix(""))


def _mask_of(name: str) -> str:
    parts = list(PurePath(name).with_suffix(".png").parts)
    parts[parts.index("images")] = "masks"
    return str(PurePath(*parts))


def check_pairs(
    root: Path,
    pairs: Mapping[str, Sequence[Pair]],
    problems: Sequence[str],
    config: MasksConfig,
    classes: int | None,
    *,
    skip: bool,
) -> tuple[frozenset[int], set[str]]:
    """Look at every pair, once.

    Args:
        root: the folder that names are relative to.
        pairs: of all splits.
        problems: what is known to be wrong.
        config: void, values.
        classes: how many the model gives; None: not known.
        skip: whether files that cannot be read are left out.

    Returns:
        The numbers that occur in the masks, and the images that are left out, with their masks.

    Raises:
        DataError: of all that is wrong, with the names of the files.
    """
    if config.values is not None and classes not in (None, len(config.values)):
        raise DataError(
            f"[data.masks] values has {len(config.values)} numbers, and there are {classes} classes.",
            expected="the number of each class, in the order of the model's outputs.",
        )
    allowed = None if classes is None else range(classes)
    known = None if allowed is None and config.values is None else {*(config.values or allowed or ()), config.void}
    found: set[int] = set()
    odd: set[int] = set()
    problems, broken, left_out = list(problems), [], set()
    listed = [pair for of_split in pairs.values() for pair in of_split]
    looks = in_threads(_look, [(str(root / image), str(root / mask)) for image, mask in listed])
    for pair, (numbers, damaged, problem) in zip(listed, looks, strict=True):
        image, mask = pair
        wrong = sorted(numbers - known) if known is not None else []
        if any(damaged):
            broken += [(name, reason) for name, reason in zip(pair, damaged, strict=True) if reason]
            left_out.add(image)
            continue
        if problem:
            problems.append(f"{mask}: {problem.format(image=image)}")
        elif wrong:
            problems.append(f"{mask}: has {_numbers(wrong)}")
        found |= numbers
        odd.update(wrong)
    if broken and not skip:
        raise broken_images(root, broken, 2 * len(listed))
    if problems:
        raise _unfit(root, problems, len(listed), found, odd, config, classes)
    if found == {config.void}:
        raise DataError(
            f"All pixels of the masks of {root} are {config.void}, which does not count.",
            expected="pixels of the classes.",
            fix="correct [data.masks] void, or the masks.",
        )
    return frozenset(found), left_out


def _look(pair: Pair) -> tuple[frozenset[int], tuple[str | None, str | None], str | None]:
    """The numbers in a mask; why image and mask cannot be read; and what else is wrong with the mask."""
    image, mask = pair
    size, damaged = look_at(image)
    try:
        numbers = read_mask(mask)
    except ValueError as error:  # Pillow raises it for damaged files as well
        reason = damage(mask)
        return frozenset(), (damaged, reason), None if reason else str(error)
    except Exception as error:  # see damage()
        return frozenset(), (damaged, damage(mask) or str(error)), None
    if size and numbers.shape != size:
        sizes = (" x ".join(map(str, one)) for one in (numbers.shape, size))
        return frozenset(), (damaged, None), "{} pixels (height x width), and {{image}} has {}".format(*sizes)
    return frozenset(np.flatnonzero(np.bincount(numbers.reshape(-1))).tolist()), (damaged, None), None


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")


def _unfit(
    root: Path,
    problems: Sequence[str],
    count: int,
    found: set[int],
    odd: set[int],
    config: MasksConfig,
    classes: int | None,
) -> DataError:
    listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
    return DataError(
        f"The masks of {root} do not fit, in {len(problems)} {'place' if len(problems) == 1 else 'places'}"
        + (f", the first {SHOWN} of them:" if len(problems) > SHOWN else ":")
        + listed,
        expected="a PNG of class numbers or with a palette for every image, of its name and size"
        + ("." if classes is None else f", with the numbers {_allowed(config, classes)}."),
        fix=" ".join(_fixes(found, odd, config, classes)) or "correct these files.",
    )


def _allowed(config: MasksConfig, classes: int) -> str:
    numbers = f"0 to {classes - 1}" if config.values is None else _numbers(config.values)
    return numbers + ("" if config.void is None else f" and {config.void} (void)")


def _fixes(found: set[int], odd: set[int], config: MasksConfig, classes: int | None) -> Iterator[str]:
    if len(odd) == 1 and config.void is None:
        yield f'If pixels of {min(odd)} do not count, write "void = {min(odd)}" under [data.masks] in the recipe.'
    if odd and config.values is None and len(found - {config.void}) == classes:
        yield (
            "If these are the numbers of the classes, write "
            f'"values = {sorted(found - {config.void})}" under [data.masks], in the order of the model\'s outputs.'
        )
