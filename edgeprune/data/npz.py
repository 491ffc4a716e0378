"""Arrays by name: .npz files, and mappings with the same names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeprune.errors import DataError
from edgeprune.models.types import Structure

EXPECTED = "arrays named x_train, y_train, x_test, y_test (and x_val, y_val if there are), or x, y."
SUFFIX = {"train": "_train", "test": "_test", "validation": "_val", "all": ""}


def read_npz(path: Path) -> tuple[dict[str, tuple[Structure, Structure]], bytes]:
    """Read the arrays of an .npz file into memory. Pickled objects are refused.

    Returns:
        ({split: (x, y)} as :func:`named_splits` gives it, sha256 of the file).

    Raises:
        DataError: not an .npz file, damaged, holds objects, or arrays are missing.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array (.npy)")
        with archive:
            splits = named_splits(archive, str(path))
        return splits, _sha256(path)
    except DataError:
        raise
    except Exception as error:  # damaged bytes make NumPy raise errors of a dozen kinds, from tokenize to zlib
        raise DataError(
            f"The file {path} cannot be read as .npz: {error}",
            expected="a file written by numpy.savez or numpy.savez_compressed, without pickled objects.",
            fix="write it again with arrays of numbers.",
        ) from error


def named_splits(arrays: Mapping[str, Structure], name: str) -> dict[str, tuple[Structure, Structure]]:
    """Pair the arrays of each split: ``{"train": (x, y), "test": (x, y)}`` with ``validation``, or ``{"all": (x, y)}``.

    Raises:
        DataError: arrays are missing.
    """
    wanted: tuple[str, ...] = ("train", "test") if "x_train" in arrays or "x" not in arrays else ("all",)
    if wanted == ("train", "test") and {"x_val", "y_val"} & set(arrays):
        wanted += ("validation",)
    missing = [key for split in wanted for key in _keys(split) if key not in arrays]
    if missing:
        raise DataError(f"{name} has no {missing[0]}; it has: {', '.join(arrays) or 'nothing'}.", expected=EXPECTED)
    return {split: (arrays[_keys(split)[0]], arrays[_keys(split)[1]]) for split in wanted}


def _keys(split: str) -> tuple[str, str]:
    return f"x{SUFFIX[split]}", f"y{SUFFIX[split]}"


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()
