"""Arrays by name: .npz files, and mappings with the same names."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeprune.errors import DataError
from edgeprune.models.types import Structure

EXPECTED = (
    "arrays named x_train, y_train, x_test, y_test (and x_val, y_val if there are), or x, y; with sample weights also "
    "w_train, ..., or w; for data without labels nothing but x_train, x_test (and x_val), or x."
)
SUFFIX = {"train": "_train", "test": "_test", "validation": "_val", "whole": ""}
WEIGHTS = ("w", "sample_weight")
# What others call validation, and what would be overlooked although it means a part of the samples, or their weights.
_VALIDATION = ("_validation", "_valid")
_NO_PART = ("_dev", "_eval")
_NO_KEY = {"sample_weights": "sample_weight"}


@dataclasses.dataclass(frozen=True)
class Samples:
    """Arrays as the user gives them, not checked yet; ``()`` where there are no targets y or no sample weights w."""

    x: Structure
    y: Structure = ()
    w: Structure = ()


def read_npz(path: Path, inputs: Sequence[str] = ()) -> tuple[dict[str, Samples], bytes]:
    """Read the arrays of an .npz file into memory. Pickled objects are refused.

    Args:
        inputs: names of the model's inputs; arrays of several inputs may go by them: ``image_train``, ``image_test``.

    Returns:
        ({split: samples} as :func:`named_splits` gives it, sha256 of the file).

    Raises:
        DataError: not an .npz file, damaged, holds objects, or arrays are missing.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array (.npy)")
        with archive:
            splits = named_splits(_inputs_together(archive, inputs), str(path))
        return splits, _sha256(path)
    except DataError:
        raise
    except ValueError as error:
        if "Object arrays" not in str(error):  # NumPy takes any other bytes for a pickle, too
            raise _damaged(path, error) from error
        raise DataError(
            f"The file {path} holds arrays of Python objects, which would have to be unpickled, and pickles run code.",
            expected="arrays of numbers or of texts.",
            fix="write it again: texts as numpy.savez(PATH, x=numpy.array(texts, dtype=str), y=y); sequences of "
            "different lengths filled up to one: tf_keras.utils.pad_sequences(x).",
        ) from error
    except Exception as error:  # damaged bytes make NumPy raise errors of a dozen kinds, from tokenize to zlib
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"The file {path} cannot be read as .npz: {error}",
        expected="a file written by numpy.savez or numpy.savez_compressed, without pickled objects.",
        fix="write it again with arrays of numbers.",
    )


def named_splits(given: Mapping[str, Structure], name: str) -> dict[str, Samples]:
    """Put the arrays of each split together: train and test, perhaps validation; or all.

    Raises:
        DataError: arrays are missing, or would be overlooked; validation or sample weights given twice.
    """
    arrays = _usual_names(given, name)
    splits = ["train", "test"] if "x_train" in arrays or "x" not in arrays else ["whole"]
    if splits != ["whole"] and {f"{key}_val" for key in ("x", "y", *WEIGHTS)} & set(arrays):
        splits.append("validation")
    # Labels of another name would be overlooked, so only an archive of nothing but x (and weights) has none.
    unlabelled = {f"{key}{SUFFIX[split]}" for key in ("x", *WEIGHTS) for split in splits} >= set(arrays)
    wanted = [f"{key}{SUFFIX[split]}" for split in splits for key in ("x",) + ("y",) * (not unlabelled)]
    missing = [key for key in wanted if key not in arrays]
    if missing:
        there = [part for key, value in given.items() for part in (value if isinstance(value, Mapping) else [key])]
        raise DataError(
            f"{name} has no {missing[0]}; it has: {', '.join(there) or 'nothing'}.",
            expected=EXPECTED,
            fix="call the labels y; those of several outputs come from a function that returns a dict of them.",
        )
    found = {}
    for split in splits:
        labels = () if unlabelled else given[arrays[f"y{SUFFIX[split]}"]]
        weights = _weights(arrays, SUFFIX[split], name)
        found[split] = Samples(given[arrays[f"x{SUFFIX[split]}"]], labels, given[weights] if weights else ())
    return found


def _usual_names(arrays: Mapping[str, Structure], name: str) -> dict[str, str]:
    """The usual name of each array → the name that it has.

    Raises:
        DataError: validation under two names; samples or weights that would be overlooked, so that figures would be
            those of others.
    """
    usual = {key: key for key in arrays}
    for key in ("x", "y", *WEIGHTS, *_NO_KEY):
        for suffix in (*SUFFIX.values(), *_VALIDATION, *_NO_PART):
            given = f"{key}{suffix}"
            if given not in arrays:
                continue
            part = "_val" if suffix in (*_VALIDATION, *_NO_PART) else suffix
            wanted = f"{_NO_KEY.get(key, key)}{part}"
            if key in _NO_KEY or suffix in _NO_PART:
                raise DataError(
                    f"{name} has {given}, which is no name of samples or weights, and would be overlooked.",
                    expected=EXPECTED,
                    fix=f"call it {wanted}.",
                )
            if wanted != given and wanted in usual:
                raise DataError(f"{name} has both {usual[wanted]} and {given}.", expected="one of them.")
            usual[wanted] = usual.pop(given)
    parts = [usual[key] for key in usual if key.removesuffix("_val").removesuffix("_test") in ("x", "y", *WEIGHTS)]
    others = [key for key in parts if key not in ("x", "y", *WEIGHTS)]
    if "x" in usual and "x_train" not in usual and others:
        raise DataError(
            f"{name} has x beside {', '.join(others)}: are the samples of x those to train with, or all?",
            expected=EXPECTED,
            fix="call them x_train and y_train; or leave the others out, and a part of x is held out.",
        )
    return usual


def _inputs_together(arrays: Mapping[str, Structure], inputs: Sequence[str]) -> Mapping[str, Structure]:
    """The arrays, those of a model's inputs in one dict by input under ``x`` and the split's ending."""
    if not inputs or any(f"x{suffix}" in arrays for suffix in SUFFIX.values()):
        return arrays
    found = {
        f"x{suffix}": {name: f"{name}{suffix}" for name in inputs}
        for suffix in (*SUFFIX.values(), *_VALIDATION)
        if all(f"{name}{suffix}" in arrays for name in inputs)
    }
    used = {key for keys in found.values() for key in keys.values()}
    rest = {key: arrays[key] for key in arrays if key not in used}
    return {**rest, **{x: {name: arrays[key] for name, key in keys.items()} for x, keys in found.items()}}


def _weights(arrays: Mapping[str, str], suffix: str, name: str) -> str | None:
    """The name of the sample weights of a split."""
    found = [arrays[f"{key}{suffix}"] for key in WEIGHTS if f"{key}{suffix}" in arrays]
    if len(found) > 1:
        raise DataError(f"{name} has both {' and '.join(found)}.", expected="sample weights under one name.")
    return found[0] if found else None


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()
