"""What ``edgeprune build`` says at the end."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.report import headline
from edgeprune.report.answers import flips_line, worst_class_line
from edgeprune.report.blocks import EVERYWHERE, Cell, Table
from edgeprune.report.boards import picks_lines
from edgeprune.report.compared import regression_line, regression_table
from edgeprune.report.schema import Judged, Report, parse
from edgeprune.report.sections import gates
from edgeprune.report.variants import variants_table

if TYPE_CHECKING:
    import rich.console
    import rich.table

_STYLES = {"": "", "good": "green", "bad": "red", "absent": "dim"}
_GOES = "this file goes to the device"


def terminal(report: Mapping[str, Any] | Report, folder: Path | None = None) -> rich.console.RenderableType:
    """The variants, the pick and why, gates, warnings, and where the files are.

    Args:
        report: a report.json document.
        folder: the run folder, so that paths can be given from where the user stands; None: relative to it.

    Raises:
        ValueError: the report does not follow the schema.
    """
    from rich.console import Group
    from rich.text import Text

    parsed = parse(report)
    parts: list[rich.console.RenderableType] = [
        Text(headline.built(parsed)),
        drawn(variants_table(parsed)),
        Text(headline.pick_figures(parsed), style="bold"),
        Text(headline.why(parsed)),
        *_answers(parsed),
        *_gates(parsed),
        *([Text("The pick for each target:\n  " + "\n  ".join(lines))] if (lines := picks_lines(parsed)) else []),
        *_regression(parsed),
        *(
            Text(f"Warning: {f'{about}: ' if about else ''}{text}", "yellow")
            for about, text in headline.warning_messages(parsed)
        ),
        Text(_files(parsed, folder)),
        *([Text(fits, style="bold")] if (fits := headline.fits_line(parsed)) else []),
    ]
    spaced = [part for block in parts for part in (Text(), block)]
    return Group(*spaced[1:])


def drawn(table: Table) -> rich.console.RenderableType:
    """The columns for which 80 characters have room; what latencies were measured with stands below."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = table.at_level(EVERYWHERE)
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    legend: list[str] = []
    for column in shown.columns:
        title = column.title
        if column.latency:
            legend.append(f"[{len(legend) + 1}] Time of one inference, {column.latency}: {title}, {column.note}.")
            title = f"Time [{len(legend)}]"
        grid.add_column(
            Text(textwrap.fill(title, 12, break_long_words=False)),
            justify="right" if column.numeric else "left",
            no_wrap=not column.code,
            overflow="fold",
        )
    for index, row in enumerate(shown.rows):
        grid.add_row(*map(_cell, row), style="bold" if index == shown.highlighted else "")
    return Group(grid, Text(), *(Text(note, style="dim") for note in (*legend, *shown.notes)))


def _cell(cell: Cell) -> Any:
    from rich.text import Text

    return Text(" ".join((cell.text, *(f"({badge})" for badge in cell.badges))), style=_STYLES[cell.tone])


def _answers(report: Report) -> list[Any]:
    from rich.text import Text

    lines = [line for line in (flips_line(report), worst_class_line(report)) if line]
    return [Text("\n".join(lines))] if lines else []


def _gates(report: Report) -> list[Any]:
    from rich.text import Text

    said = headline.gates_line(report)
    if not said:
        return []
    lines = [Text(said)]
    for block in gates(report):
        if isinstance(block, Table):
            for name, limit, value, result in block.rows:
                note = f" ({value.note})" if value.note else ""
                line = f"  {result.text}: {name.text} {value.text}{note}, at most {limit.text}"
                lines.append(Text(line, style=_STYLES[result.tone]))
    return [Text("\n").join(lines)]


def _regression(report: Report) -> list[Any]:
    """What got worse than in the earlier build, as a table."""
    from rich.text import Text

    found = report.regression
    if found is None:
        return []
    line = Text(regression_line(report), style="bold" if found.worse else "")
    notes = [Text(note, style="dim") for note in found.notes]
    return [line, *([drawn(regression_table(report, found.worse, ""))] if found.worse else []), *notes]


def _files(report: Report, folder: Path | None) -> str:
    def path(name: str) -> str:
        return str(folder / name) if folder else name

    pick, compiled = headline.pick_file(report), report.picked.compiled
    ending = compiled.file.rpartition("_")[2] if compiled else ""
    words = f"the pick, compiled by {compiled.compiler}: {_GOES}" if compiled else ""
    made = [(path(f"{Path(pick).stem}_{ending}"), words)] if compiled else []
    if report.picked.micro:
        made.append((path("micro"), "sources for the microcontroller; README.md says how they are used"))
    files = [
        (path(pick), _purpose(report)),
        *made,
        *(row for one in report.targets[1:] for row in _of_target(report, one, Path(pick).stem, path)),
        (path("variants"), "all variants"),
        (path("report.html"), "the report with plots; open it in a browser"),
        (path("report.json"), "every figure, for programs"),
    ]
    width = max(len(name) for name, _ in files)
    return "Files:\n" + "\n".join(f"  {name:{width}}  {words}" for name, words in files)


def _purpose(report: Report) -> str:
    """What the picked file is for: an accelerator with a compiler of its own cannot run it as it is."""
    picked, compiler = report.picked, (report.target.model_extra or {}).get("compiler")
    if picked.micro or picked.compiled:
        return "the pick"
    if compiler and picked.placement and picked.placement.accelerator_ops:
        return f"the pick, to be compiled for the device: {compiler['name']}, see edgeprune doctor"
    return f"the pick: {_GOES}"


def _of_target(report: Report, board: Judged, stem: str, path: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """The files of a further target."""
    yield path(f"{stem}-{board.name}.tflite"), f"the pick for {board.name}"
    pick = next(variant for variant in report.variants if variant.name == board.pick)
    if (pick.targets or {})[board.name].micro:
        yield path(f"micro-{board.name}"), f"sources for {board.name}; README.md says how they are used"
