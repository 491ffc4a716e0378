"""Errors that TensorFlow raises while data streams, translated into DataError."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from edgeprune.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf


class Searchable(Protocol):
    """Samples in files."""

    def damaged(self, path: str, reason: str) -> DataError:
        """The error for a file that cannot be read."""

    def first_damaged(self) -> tuple[str, str] | None:
        """Path and reason of the first file that cannot be read, or None."""


# Lines of TensorFlow's messages that begin like this are no use to the user.
TENSORFLOWS_OWN = ("Graph execution error", "Detected at node", "<stack traces")

# TensorFlow's message does not say which file failed. The stores in use are remembered (weakly), the last one first, to
# find out.
_watched: list[weakref.ReferenceType[Searchable]] = []


def watch(store: Searchable) -> None:
    """Remember that a store is about to be read."""
    others = [known for known in _watched if known() not in (None, store)]
    _watched[:] = [weakref.ref(store), *others]


@contextlib.contextmanager
def data_errors() -> Iterator[None]:
    """Turn a failure to read data into one message that names the file.

    Wrap whatever consumes batches: ``with data_errors(): model.fit(...)``. Errors of other origin pass unchanged.

    Raises:
        DataError: a file is damaged or gone, or the user's dataset failed.
    """
    import tensorflow as tf

    errors = tf.errors
    try:
        yield
    except (
        errors.InvalidArgumentError,
        errors.NotFoundError,
        errors.PermissionDeniedError,
        errors.DataLossError,
        errors.UnknownError,
    ) as error:
        if "IteratorGetNext" not in str(error):
            raise
        raise _translate(error.message) from error


def damaged_image(path: str, reason: str) -> DataError:
    """The error for a file that cannot be decoded."""
    return DataError(
        f"The image {path} cannot be read: {reason}.",
        expected="a whole JPEG, PNG, BMP or GIF file.",
        fix="replace or remove this file.",
    )


def said(error: tf.errors.OpError) -> str:
    """What TensorFlow says of a failed operation, without its names for it."""
    return str(error.message).split("}} ")[-1].split(" [Op:")[0]


def _translate(message: str) -> DataError:
    for reference in _watched:
        store = reference()
        damage = store.first_damaged() if store else None
        if store and damage:
            return store.damaged(*damage)
    lines = [line.strip() for line in message.split("}} ", 1)[-1].splitlines()]
    said = next((line for line in lines if line and not line.startswith(TENSORFLOWS_OWN)), message)
    return DataError(
        f"Reading the data failed: {said}",
        fix="iterate over the dataset once outside of edgeprune to find the sample.",
    )
