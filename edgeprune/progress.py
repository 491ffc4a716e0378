"""Progress of long work. The command line shows it; the Python API reports none unless a listener is given."""

from __future__ import annotations


class Progress:
    """A listener that ignores everything; a subclass overrides what it wants to show."""

    def stage(self, number: int, total: int, name: str, reused: bool) -> None:
        """Stage ``number`` of ``total`` begins, or is reused from an earlier build."""

    def begin(self, what: str, total: int | None) -> None:
        """A task with ``total`` units of work begins; None when the number is not known."""

    def advance(self, units: int = 1) -> None:
        """``units`` more of the task are done."""

    def end(self) -> None:
        """The task is done."""

    def note(self, text: str) -> None:
        """A message for the user."""
