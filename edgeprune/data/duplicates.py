"""Samples that several splits have, found by the hash of their content."""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Hashable, Iterator, Mapping
from typing import Protocol, cast, runtime_checkable

import numpy as np

from edgeprune.data.split import Split

# Of which the second has no sample that the first has.
PAIRS = (("train", "test"), ("validation", "test"), ("train", "validation"))
ENDS_BYTES = 4096  # of a file, first and last, that are compared before the whole


@runtime_checkable
class Files(Protocol):
    """A store of files."""

    def path(self, i: int) -> str:
        """The path of file ``i``."""


@runtime_checkable
class Arrays(Protocol):
    """A store of numbers."""

    def samples(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """The inputs, one by one; those of a sample with several inputs as one array of bytes."""

    def name(self, i: int) -> str:
        """What sample ``i`` is called in messages."""


def shared_samples(splits: Mapping[str, Split]) -> list[str]:
    """A sentence for each two splits that have the same inputs: how many, and an example.

    Arrays are compared by the hash of each sample's inputs, files by the hash of their bytes; of files, only those are
    read whole whose size, first and last 4 KiB agree. Datasets of the user are not compared.
    """
    if all(isinstance(split.store, Files) for split in splits.values()):
        keys = _by_file(splits)
    elif all(isinstance(split.store, Arrays) for split in splits.values()):
        keys = {name: [_hash(sample) for sample in _samples(split)] for name, split in splits.items()}
    else:
        return []
    found = []
    for one, other in PAIRS:
        known = {key: place for place, key in enumerate(keys[one])}
        repeated = [place for place, key in enumerate(keys[other]) if key is not None and key in known]
        if repeated:
            copy, source = _name(splits[other], repeated[0]), _name(splits[one], known[keys[other][repeated[0]]])
            found.append(
                f"{len(repeated):,} of {splits[other].size:,} {other} samples have the same inputs as a {one} sample, "
                f"such as {copy} and {source}: figures on {other} look better than they would on new samples"
            )
    return found


def _by_file(splits: Mapping[str, Split]) -> dict[str, list[Hashable]]:
    """A key for each file that may be in another split, None for all others; equal keys are equal files."""
    keys: dict[str, list[Hashable]] = {name: [()] * split.size for name, split in splits.items()}
    for look in (_size, _ends, _whole):
        for name, split in splits.items():
            files = cast(Files, split.store)
            paths = (files.path(int(i)) for i in split.index)
            keys[name] = [
                None if key is None else (key, look(path)) for key, path in zip(keys[name], paths, strict=True)
            ]
        found = collections.Counter(key for own in keys.values() for key in set(own))
        keys = {name: [key if found[key] > 1 else None for key in own] for name, own in keys.items()}
    return keys


def _size(path: str) -> int:
    return os.stat(path).st_size


def _ends(path: str) -> bytes:
    with open(path, "rb") as file:
        first = file.read(ENDS_BYTES)
        file.seek(max(os.fstat(file.fileno()).st_size - ENDS_BYTES, 0))
        return hashlib.sha256(first + file.read()).digest()


def _whole(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _samples(split: Split) -> Iterator[np.ndarray]:
    return cast(Arrays, split.store).samples(split.index)


def _hash(sample: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(sample).data, digest_size=16).digest()


def _name(split: Split, place: int) -> str:
    i = int(split.index[place])
    return split.store.path(i) if isinstance(split.store, Files) else cast(Arrays, split.store).name(i)
