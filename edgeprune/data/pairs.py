"""Images and their masks: which belong together, and what is wrong with them, in one message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.file_store import in_threads
from edgeprune.data.images import image_size
from edgeprune.data.pixels import read_mask
from edgeprune.errors import DataError

if TYPE_CHECKING:
    from edgeprune.recipe.config import MasksConfig

SHOWN = 10  # problems that the message lists
Pair = tuple[str, str]  # image and mask, relative to the source
Entry = tuple[str, int, int]


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
) -> frozenset[int]:
    """Look at every pair.

    Args:
        root: the folder that names are relative to.
        pairs: of all splits.
        problems: what is known to be wrong.
        config: void, values.
        classes: how many the model gives; None: not known.

    Returns:
        The numbers that occur in the masks.

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
    problems = list(problems)
    listed = [pair for of_split in pairs.values() for pair in of_split]
    looks = in_threads(_look, [(str(root / image), str(root / mask)) for image, mask in listed])
    for (image, mask), (numbers, problem) in zip(listed, looks, strict=True):
        wrong = sorted(numbers - known) if known is not None else []
        if problem:
            problems.append(f"{mask}: {problem.format(image=image)}")
        elif wrong:
            problems.append(f"{mask}: has {_numbers(wrong)}")
        found |= numbers
        odd.update(wrong)
    if problems:
        raise _unfit(root, problems, len(listed), found, odd, config, classes)
    return frozenset(found)


def _look(pair: Pair) -> tuple[frozenset[int], str | None]:
    """The numbers in a mask, and what is wrong with it."""
    image, mask = pair
    try:
        numbers = read_mask(mask)
    except ValueError as error:
        return frozenset(), str(error)
    if numbers.shape != image_size(image):
        sizes = (" x ".join(map(str, size)) for size in (numbers.shape, image_size(image)))
        return frozenset(), "{} pixels (height x width), and {{image}} has {}".format(*sizes)
    return frozenset(np.flatnonzero(np.bincount(numbers.reshape(-1))).tolist()), None


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
        f"The masks of {root} do not fit, in {len(problems)} places"
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
