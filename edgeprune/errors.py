"""All errors for users. A class has an exit code; a message says what happened, what was expected, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# What a message quotes from a file may be of any length.
_LONG = re.compile(r"\S{1000,}")


class EdgepruneError(Exception):
    """An error that the user can act on.

    Args:
        what: what happened, one sentence.
        expected: what was expected instead.
        fix: what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, expected: str | None = None, fix: str | None = None):
        self.what = _shortened(what)
        self.expected = expected and _shortened(expected)
        self.fix = fix and _shortened(fix)
        parts = [
            self.what,
            f"Expected: {self.expected}" if expected else None,
            f"To fix: {self.fix}" if fix else None,
        ]
        super().__init__("\n".join(part for part in parts if part))

    def __reduce__(self) -> tuple[Any, ...]:
        """From one process to another."""
        return _restored, (type(self), self.what, self.expected, self.fix), self.__dict__


def _shortened(text: str) -> str:
    return _LONG.sub(lambda long: f"{long[0][:120]}… ({len(long[0]):,} characters)", text)


def _restored(cls: type[EdgepruneError], what: str, expected: str | None, fix: str | None) -> EdgepruneError:
    return cls(what, expected=expected, fix=fix)


class UsageError(EdgepruneError):
    """Wrong options, or options that do not go together."""


class RecipeError(EdgepruneError):
    """A recipe that cannot be read or does not validate."""


class TargetError(EdgepruneError):
    """An unknown target, or a target file that does not validate."""


class ModelError(EdgepruneError):
    """A model file that is missing, damaged, unsafe, of another format, or of a kind that edgeprune cannot use."""


class DataError(EdgepruneError):
    """A data source that is missing, damaged or does not fit the model."""


class ConversionError(EdgepruneError):
    """The converter refused the model."""


class VerificationError(EdgepruneError):
    """A result is not what was asked for: for example, zeros were lost in conversion."""


class MissingError(EdgepruneError):
    """Something outside edgeprune is missing: a tool, a device, a runtime."""

    exit_code = 3


class DeviceError(MissingError):
    """A device cannot be reached, the connection was lost, or a program did not end in time.

    Attributes:
        output: what the program on the device had printed until then.
        results: the results of what was measured until then, see :data:`edgeprune.devices.protocol.Tool`.
    """

    def __init__(self, what: str, *, expected: str | None = None, fix: str | None = None, output: bytes = b""):
        super().__init__(what, expected=expected, fix=fix)
        self.output = output
        self.results: list[dict[str, Any]] = []


class OutputError(EdgepruneError):
    """The output could not be written: no space, no permission."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The rest of a sentence about an unknown word, with the nearest known one; empty where none is near."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
