"""What refits have solved: one that was interrupted, on disk; and others of nearly the same model, in memory."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.files import output_errors

if TYPE_CHECKING:
    import tf_keras

_KEY = "key"


@dataclasses.dataclass(frozen=True)
class Journal:
    """Arrays of the products that were solved, a file each, under a key.

    Attributes:
        folder: of the files.
        key: of what was refitted (:func:`key_of`).
    """

    folder: Path
    key: str

    @classmethod
    def open(cls, folder: Path, key: str) -> Journal:
        """The journal in a folder; one of another key is emptied.

        Raises:
            OutputError: the folder cannot be written to.
        """
        with output_errors(folder):
            name = folder / _KEY
            if not (name.is_file() and name.read_text() == key):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                name.write_text(key)
        return cls(folder, key)

    def load(self, product: str) -> Mapping[str, np.ndarray] | None:
        """The arrays of a product; None: it is not there, or damaged."""
        try:
            with np.load(self._path(product), allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, KeyError):
            return None

    def save(self, product: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of a product.

        Raises:
            OutputError: the folder cannot be written to.
        """
        path = self._path(product)
        with output_errors(path):
            whole = path.with_suffix(".part.npz")
            np.savez(whole, allow_pickle=False, **arrays)
            whole.replace(path)

    def _path(self, product: str) -> Path:
        return self.folder / f"{product}.npz"


class Memory:
    """Arrays of the products that were solved, in memory, for refits of models that are alike up to some layer.

    The refit says by what a product is known (``_Refitting.place``).
    """

    def __init__(self) -> None:
        self._found: dict[str, Mapping[str, np.ndarray]] = {}

    def load(self, product: str) -> Mapping[str, np.ndarray] | None:
        return self._found.get(product)

    def save(self, product: str, arrays: Mapping[str, np.ndarray]) -> None:
        self._found[product] = arrays


def key_of(model: tf_keras.Model, kept: Mapping[str, np.ndarray], settings: Sequence[object]) -> str:
    """The hash of what decides a refit beside the original model and the data."""
    digest = hashlib.sha256(repr(tuple(settings)).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    for name in sorted(kept):
        digest.update(name.encode() + kept[name].tobytes())
    return digest.hexdigest()
