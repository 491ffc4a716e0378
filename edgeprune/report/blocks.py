"""What sections are made of. Sections build blocks, views draw them; no block knows a view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

ABSENT = "–"

Tone = Literal["", "good", "bad", "absent"]

EVERYWHERE, IN_FILES, IN_HTML = 1, 2, 3  # how far down a column is shown: terminal, Markdown, HTML


@dataclass(frozen=True)
class Cell:
    """A figure or a word, ready to be shown.

    Args:
        text: short and readable, with its unit ("95.4 kB").
        exact: the figure in full, or what an absent one means; the ``title`` in HTML.
        note: small print below the text.
        badges: labels after the text ("pick").
        tone: how to colour it. Colour only repeats what the text says.
        picture: a PNG file, relative to the run folder, above the text; only in HTML, and only if it is there.
    """

    text: str
    exact: str | None = None
    note: str | None = None
    badges: tuple[str, ...] = ()
    tone: Tone = ""
    picture: str | None = None


@dataclass(frozen=True)
class Column:
    """A column's head. ``group`` stands above neighbours that share it, ``note`` is small print below the title;
    ``latency`` says where the times in it come from, if it holds times of one inference. ``wraps``: its texts may be
    long, and break into lines."""

    title: str
    note: str = ""
    group: str = ""
    numeric: bool = True
    level: int = EVERYWHERE
    code: bool = False
    latency: Literal["measured", "estimated"] | None = None
    wraps: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row is its head."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    highlighted: int | None = None  # index of the row that matters most
    folded: bool = False

    def at_level(self, level: int) -> Table:
        """The same table without the columns that a shorter view leaves out."""
        keep = [index for index, column in enumerate(self.columns) if column.level <= level]
        rows = [[row[index] for index in keep] for row in self.rows]
        columns = [self.columns[index] for index in keep]
        return Table(self.caption, columns, rows, self.notes, self.highlighted, self.folded)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(group, number of columns) from left to right; empty if no column has a group."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(group for group, _ in spans) else []

    @property
    def has_absent(self) -> bool:
        return any(cell.text == ABSENT for row in self.rows for cell in row)


@dataclass(frozen=True)
class Figure:
    """A drawing: what gives its inline SVG, what it shows in words (``alt``), and a caption."""

    draw: Callable[[], str]  # called only by views that show drawings
    alt: str
    caption: str


@dataclass(frozen=True)
class Figures:
    """``wide``: one below the other, each as wide as it is drawn, in a window of its own where it is long."""

    kind: ClassVar[str] = "figures"
    items: Sequence[Figure]
    wide: bool = False


@dataclass(frozen=True)
class Facts:
    """Terms with their values."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Messages:
    """Sentences, each with what it is about (or "")."""

    kind: ClassVar[str] = "messages"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Code:
    kind: ClassVar[str] = "code"
    text: str


Block = Table | Figures | Facts | Messages | Paragraph | Code
