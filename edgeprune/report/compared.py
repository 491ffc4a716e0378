"""What became of the figures of an earlier build, as blocks and sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgeprune.report import format as fmt
from edgeprune.report.blocks import Block, Cell, Column, Messages, Table
from edgeprune.report.schema import RegressionRow, Report

Show = Callable[[Report, float], Cell]

# Figure of a row → its words, and how a value of it is shown.
_FIGURES: dict[str, tuple[str, Show]] = {
    "metric": ("", lambda report, value: fmt.metric_value(report.metric, value)),
    "bytes": ("File", lambda report, value: fmt.size(int(value))),
    "latency_ms": ("Latency", lambda report, value: Cell(fmt.milliseconds(value), f"{fmt.plain(value)} ms")),
    "arena_bytes": ("Arena", lambda report, value: fmt.size(int(value))),
    "cpu_ops": ("Operators off the accelerator", lambda report, value: Cell(fmt.plain(int(value)))),
}
_COLUMNS = (
    Column("Variant", numeric=False, code=True),
    Column("Figure", numeric=False),
    Column("Before"),
    Column("Now"),
    Column("Worst", "that passes"),
    Column("Result", numeric=False),
)


def regression_line(report: Report) -> str:
    """How the files compare with the earlier build's, in a sentence; empty if there is none."""
    found = report.regression
    if found is None:
        return ""
    since = f"than in {found.baseline.source} of {found.baseline.created[:10]}"
    if not found.worse:
        return f"None of {len(found.rows)} figures is worse {since} by more than it may."
    count = len(found.worse)
    return f"{count} of {len(found.rows)} figures {'is' if count == 1 else 'are'} worse {since} by more than allowed."


def regression_table(report: Report, rows: Sequence[RegressionRow], caption: str) -> Table:
    return Table(caption, _COLUMNS, [_row(report, row) for row in rows])


def regression(report: Report) -> Sequence[Block]:
    """Every figure then and now, what got worse first; nothing without an earlier build."""
    found = report.regression
    if found is None:
        return []
    rows = [*found.worse, *(row for row in found.rows if row.passed)]
    notes = [Messages([("", note) for note in found.notes])] if found.notes else []
    return [regression_table(report, rows, regression_line(report)), *notes]


def _row(report: Report, row: RegressionRow) -> list[Cell]:
    words, show = _FIGURES.get(row.figure, (row.figure, lambda _, value: Cell(fmt.plain(value))))
    same = row.variant == row.before_variant
    return [
        Cell(row.variant if same else f"{row.variant}, before: {row.before_variant}"),
        Cell(words or fmt.metric_name(report.metric), note=row.source),
        *(show(report, value) for value in (row.before, row.after, row.limit)),
        Cell("passed", tone="good") if row.passed else Cell("worse", tone="bad"),
    ]
