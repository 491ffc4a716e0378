"""What long work tells about itself. The command line shows it; who calls the API hears nothing by default."""

from __future__ import annotations


class Progress:
    """A listener; every method may be overridden, none needs to be."""

    def stage(self, number: int, total: int, name: str, reused: bool) -> None:
        """Stage ``number`` of ``total`` begins, or was found finished (``reused``)."""

    def begin(self, what: str, total: int | None) -> None:
        """A piece of work of ``total`` units begins (``None``: unknown)."""

    def advance(self, units: int = 1) -> None:
        """``units`` of the piece are done."""

    def end(self) -> None:
        """The piece is done."""

    def note(self, text: str) -> None:
        """A line worth reading."""
