"""A file's graph as inline SVG: operators in the order in which they run, with what each takes and where it runs.

Reading from the top, each operator reads the one above it; what it reads from further above comes along an arc at the
left. So any graph fits the page, and the columns at the right line up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from edgeprune.report import format as fmt
from edgeprune.report.blocks import Cell, Column, Figure, Table
from edgeprune.report.plots import shortened
from edgeprune.report.schema import Operator

_ROW, _TOP, _LANE, _WIDTH = 20, 30, 11, 700  # in the units of the drawing, about pixels
_BAR = 150


@dataclass(frozen=True)
class Arc:
    """From an operator to those further down that read it, in a lane of its own."""

    start: int
    ends: tuple[int, ...]
    lane: int


def arcs(operators: Sequence[Operator]) -> list[Arc]:
    """What is read from further above than the operator just before. Arcs in one lane do not overlap.

    Args:
        operators: in the order in which they run, with ``index`` counting from 0.
    """
    readers: dict[int, list[int]] = {}
    for operator in operators:
        for index in operator.reads or ():
            if index < operator.index - 1:
                readers.setdefault(index, []).append(operator.index)
    found: list[Arc] = []
    # The shortest first, so that the lanes next to the operators hold those.
    for start, ends in sorted(readers.items(), key=lambda item: (item[1][-1] - item[0], item[0])):
        busy = {arc.lane for arc in found if arc.start < ends[-1] and start < arc.ends[-1]}
        lane = next(lane for lane in range(len(found) + 1) if lane not in busy)
        found.append(Arc(start, tuple(ends), lane))
    return found


def graph_figure(name: str, operators: Sequence[Operator]) -> Figure:
    """The graph of a variant; the table of :func:`operators_table` says the same in words."""
    timed = [one for one in operators if one.estimated_ms]
    slowest = max(timed, key=lambda one: one.estimated_ms or 0, default=None)
    words = f"; the longest is {slowest.name} with {fmt.milliseconds(slowest.estimated_ms)}" if slowest else ""
    return Figure(
        draw=lambda: graph_svg(operators),
        alt=f"The graph of {name}: {len(operators)} operators from top to bottom{words}. The table below lists them.",
        caption=f"The graph of {name}, in the order in which operators run; lines lead to what an operator reads.",
    )


def graph_svg(operators: Sequence[Operator]) -> str:
    """The graph as an ``<svg>`` element without ids, in the page's colours."""
    lines = arcs(operators)
    left = 14 + _LANE * (1 + max((arc.lane for arc in lines), default=-1))  # of the operators' dots
    columns = _columns(operators, left + 14)
    height = _TOP + _ROW * len(operators)
    parts = [
        f'<svg viewBox="0 0 {left + _WIDTH} {height}" width="{left + _WIDTH}" class="graph">',
        *(_text(x, _TOP - 14, title, "head", anchor) for title, x, anchor in columns.values()),
        *(_arc(arc, left) for arc in lines),
        *(part for operator in operators for part in _row(operator, operators, columns, left)),
        "</svg>",
    ]
    return "\n".join(parts)


def _columns(operators: Sequence[Operator], x: int) -> Mapping[str, tuple[str, int, str]]:
    """Key of what is known of any operator → title, place and alignment of its column."""
    known = {
        "name": ("Operator", x, "start", True),
        "output_shape": ("Output", x + 190, "start", any(one.output_shape for one in operators)),
        "estimated_ms": ("Estimated time", x + 312, "start", any(one.estimated_ms for one in operators)),
        "weight_sparsity": ("Zeros", x + 570, "end", any(one.weight_sparsity is not None for one in operators)),
        "on_accelerator": ("Runs on", x + 592, "start", any(one.on_accelerator is not None for one in operators)),
    }
    return {key: (title, place, anchor) for key, (title, place, anchor, shown) in known.items() if shown}


def _y(index: int) -> int:
    return _TOP + _ROW * index + _ROW // 2


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    looks = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{looks}>{escape(text)}</text>'


def _arc(arc: Arc, left: int) -> str:
    """Down the lane from the start to the last end, with a bend into each."""
    x = left - _LANE * (arc.lane + 1)
    bends = [f"M{left},{_y(arc.start)} Q{x},{_y(arc.start)} {x},{_y(arc.start) + 8} V{_y(arc.ends[-1]) - 8}"]
    bends += [f"M{x},{_y(end) - 8} Q{x},{_y(end)} {left},{_y(end)}" for end in arc.ends]
    return f'<path class="edge" d="{" ".join(bends)}"/>'


def _row(
    operator: Operator, operators: Sequence[Operator], columns: Mapping[str, tuple[str, int, str]], left: int
) -> list[str]:
    y, base = _y(operator.index), _y(operator.index) + 4
    longest = max((one.estimated_ms or 0 for one in operators), default=0)
    above = operator.index - 1 in (operator.reads or ())
    kind = {True: "accelerator", False: "cpu", None: ""}[operator.on_accelerator]
    parts = [f"<g><title>{escape(_words(operator))}</title>"]
    if above:
        parts.append(f'<path class="edge" d="M{left},{y - _ROW} V{y}"/>')
    parts.append(f'<circle cx="{left}" cy="{y}" r="4" class="node {kind}"/>')
    parts.append(_text(columns["name"][1], base, f"{operator.index} {shortened(operator.name, 24)}"))
    if "output_shape" in columns and operator.output_shape:
        parts.append(_text(columns["output_shape"][1], base, fmt.shape(operator.output_shape), "quiet"))
    if operator.estimated_ms and longest:
        x, width = columns["estimated_ms"][1], _BAR * operator.estimated_ms / longest
        parts.append(f'<rect class="bar" x="{x}" y="{y - 5}" width="{width:.1f}" height="10"/>')
        parts.append(_text(x + width + 6, base, fmt.milliseconds(operator.estimated_ms), "quiet"))
    if operator.weight_sparsity is not None:
        parts.append(_text(columns["weight_sparsity"][1], base, f"{operator.weight_sparsity:.0%}", "quiet", "end"))
    if operator.on_accelerator is not None:
        parts.append(_text(columns["on_accelerator"][1], base, _place(operator), "quiet"))
    return [*parts, "</g>"]


def _place(operator: Operator) -> str:
    return {True: "accelerator", False: "CPU", None: ""}[operator.on_accelerator]


def _words(operator: Operator) -> str:
    return f"{operator.index} {operator.name}, {operator.output_name}; {fmt.scaled(operator.macs)} MACs"


def operators_table(name: str, operators: Sequence[Operator], times: str = "") -> Table:
    """The graph in words: what each operator reads, gives, takes, and where it runs; ``times``: what times are."""
    columns = [
        Column("Operator", numeric=False, code=True), Column("Reads", "operators", numeric=False),
        Column("Output", numeric=False, code=True), Column("Shape", numeric=False), Column("Type", numeric=False),
        Column("MACs"), Column("Weights", "in the file"), Column("Zeros", "of the weights"),
        Column("Time", "estimated"), Column("Runs on", numeric=False),
    ]  # fmt: skip
    rows = [
        [
            Cell(f"{one.index} {one.name}"),
            Cell(", ".join(map(str, one.reads or ())) or "–"),
            Cell(one.output_name),
            Cell(fmt.shape(one.output_shape)) if one.output_shape else fmt.absent("not known"),
            Cell(one.dtype or ""),
            fmt.count(one.macs, "multiply-accumulates"),
            fmt.size(one.weight_bytes),
            fmt.share(one.weight_sparsity, "of the weights are zero"),
            fmt.absent("not estimated") if one.estimated_ms is None else Cell(fmt.milliseconds(one.estimated_ms)),
            Cell(_place(one)) if one.on_accelerator is not None else fmt.absent("not known, or no accelerator"),
        ]
        for one in operators
    ]
    return Table(f"The operators of {name}.{times}", columns, rows, folded=True)
