"""One thing that a checker found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

# error: will not run as it is; warning: runs, but on the wrong processor or against the documentation; note: runs, and
# could run faster.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing to know before training or deploying.

    Attributes:
        what: what is the case, and the reason.
        fix: what to change; None where nothing can be.
        where: the layers of the Keras model, else operators as 'index NAME'; empty for the model as a whole.
        checker: who found it.
        formats: the number formats in which it was found.
    """

    severity: Severity
    what: str
    fix: str | None = None
    where: tuple[str, ...] = ()
    checker: str = ""
    formats: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """JSON types."""
        return {**asdict(self), "where": list(self.where), "formats": list(self.formats)}
