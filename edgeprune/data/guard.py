"""Errors that TensorFlow raises while data streams, translated into DataError."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from edgeprune.errors import DataError

# Lines of TensorFlow's messages that begin like this are no use to the user.
TENSORFLOWS_OWN = ("Graph execution error", "Detected at node", "<stack traces")

# How the message of a file that cannot be read passes through TensorFlow, which puts words of its own around it.
_UNREADABLE = re.compile(r"<unreadable>(.*?)<path>(.*?)<because>(.*?)<end>", re.DOTALL)
_WHOLE = {"image": "a whole JPEG, PNG, BMP, GIF or WebP file.", "sound file": "a whole WAV file."}


def unreadable(noun: str, path: str, reason: str) -> OSError:
    """What a function that TensorFlow calls raises about an "image" or a "sound file"; :func:`data_errors` knows it."""
    return OSError(f"<unreadable>{noun}<path>{path}<because>{reason}<end>")


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


def damaged(noun: str, path: str, reason: str) -> DataError:
    """The error for an "image" or a "sound file" that cannot be decoded."""
    return DataError(
        f"The {noun} {path} cannot be read: {reason}.",
        expected=_WHOLE[noun],
        fix="replace or remove this file.",
    )


def _translate(message: str) -> DataError:
    if unread := _UNREADABLE.search(message):
        return damaged(*unread.groups())
    lines = [line.strip() for line in message.split("}} ", 1)[-1].splitlines()]
    said = next((line for line in lines if line and not line.startswith(TENSORFLOWS_OWN)), message)
    return DataError(
        f"Reading the data failed: {said}",
        fix="iterate over the dataset once outside of edgeprune to find the sample.",
    )
