"""The one error tree. A class carries an exit code; a message says what happened, what was expected, what to do."""

from __future__ import annotations

from typing import Any


class EdgepruneError(Exception):
    """An error that the user can act on.

    Args:
        what: what happened, one sentence.
        expected: what was expected instead.
        fix: what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, expected: str | None = None, fix: str | None = None):
        self.what, self.expected, self.fix = what, expected, fix
        parts = [what, f"Expected: {expected}" if expected else None, f"To fix: {fix}" if fix else None]
        super().__init__("\n".join(part for part in parts if part))


class UsageError(EdgepruneError):
    """Wrong options, or options that do not go together."""


class RecipeError(EdgepruneError):
    """A recipe that cannot be read or does not validate."""


class TargetError(EdgepruneError):
    """An unknown target, or a target file that does not validate."""


class ModelError(EdgepruneError):
    """A model file that is missing, damaged, foreign, unsafe or of a kind that edgeprune cannot use."""


class DataError(EdgepruneError):
    """A data source that is missing, damaged or does not fit the model."""


class ConversionError(EdgepruneError):
    """The converter refused the model."""


class VerificationError(EdgepruneError):
    """A promise was not kept, for example the sparsity asked for did not survive conversion."""


class MissingError(EdgepruneError):
    """Something outside edgeprune is missing: a tool, a device, a runtime."""

    exit_code = 3


class DeviceError(MissingError):
    """A device cannot be reached, went away or did not answer in time.

    ``output`` is what the program on it had printed until then; ``results`` what that was worth.
    """

    def __init__(self, what: str, *, expected: str | None = None, fix: str | None = None, output: bytes = b""):
        super().__init__(what, expected=expected, fix=fix)
        self.output = output
        self.results: list[dict[str, Any]] = []


class OutputError(EdgepruneError):
    """The output could not be written: no space, no permission."""

    exit_code = 3
