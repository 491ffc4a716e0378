"""Drawings of one file's profile: milliseconds by operator, and memory in use over the operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import OutputError
from edgeprune.report.plots import COLORS, PNG_COLORS, png_axes, svg_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_BARS = 40  # more cannot be read; the rest shares one bar


@dataclass(frozen=True)
class Bar:
    """One operator, or what stands for several."""

    name: str
    ms: float


def bars(operators: Sequence[tuple[int, str, float]], limit: int = MAX_BARS) -> list[Bar]:
    """The slowest operators in the order in which they run, and the others together.

    Args:
        operators: (index, name, milliseconds), in the order in which they run.
        limit: the most bars.
    """
    timed = [operator for operator in operators if operator[2] > 0]
    slowest = sorted(timed, key=lambda operator: -operator[2])[: limit - (len(timed) > limit)]
    kept = {index for index, _, _ in slowest}
    shown = [Bar(f"{index} {name}", ms) for index, name, ms in timed if index in kept]
    rest = [ms for index, _, ms in timed if index not in kept]
    return [*shown, Bar(f"{len(rest)} others", sum(rest))] if rest else shown


def memory_svg(timeline_bytes: Sequence[int], prefix: str) -> str:
    """Memory in use over the operators as an ``<svg>`` element; ``prefix`` begins its ids, unique in the page."""
    with svg_axes(prefix, 3.1) as (_, axes, result):
        _draw_memory(axes, timeline_bytes, COLORS)
    return result[0]


def write_pngs(profile: Mapping[str, Any], folder: Path) -> list[Path]:
    """latency.png and memory.png of a profile (as its JSON document), as far as it has the figures.

    Raises:
        OutputError: the folder cannot be written.
    """
    written = []
    timed = [(row["index"], row["name"], row["estimated_ms"] or 0.0) for row in profile["operators"]]
    rows, estimated = bars(timed), profile["latency"]["estimated"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if estimated and rows:
            with png_axes(folder / "latency.png", _bars_height(rows)) as (_, axes):
                _draw_bars(axes, rows, axis_label(profile["target"], estimated), PNG_COLORS)
            written.append(folder / "latency.png")
        if profile["memory"]["timeline_bytes"]:
            with png_axes(folder / "memory.png", 3.1) as (_, axes):
                _draw_memory(axes, profile["memory"]["timeline_bytes"], PNG_COLORS)
            written.append(folder / "memory.png")
    except OSError as error:
        raise OutputError(
            f"The pictures cannot be written to {folder}: {error.strerror}.", fix="choose another folder with --plot."
        ) from None
    return written


def axis_label(target: str, estimated: Mapping[str, Any]) -> str:
    """Says that the figures are estimates, and for what."""
    count = estimated["threads"]
    threads = f"{count} thread{'s' if count != 1 else ''}"
    return f"Estimated latency on {target} (ms)\n{threads}, latency model {estimated['model_version']}"


def _bars_height(rows: Sequence[Bar]) -> float:
    return 1.0 + 0.17 * max(len(rows), 4)


def _draw_bars(axes: Axes, rows: Sequence[Bar], x_label: str, colors: Mapping[str, str]) -> None:
    places = range(len(rows))
    axes.barh(places, [row.ms for row in rows], color=colors["accent"], height=0.7, zorder=2)
    axes.set_yticks(places, [row.name for row in rows], parse_math=False)
    axes.tick_params(axis="y", labelsize=7.5, length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first operator on top
    axes.grid(False, axis="y")
    axes.set_xlabel(x_label, parse_math=False)


def _draw_memory(axes: Axes, timeline_bytes: Sequence[int], colors: Mapping[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    heights = [nbytes / 1000 for nbytes in timeline_bytes]
    peak = heights.index(max(heights))
    edges = [index - 0.5 for index in range(len(heights) + 1)]
    axes.stairs(heights, edges, fill=True, color=colors["accent"], alpha=0.35, zorder=2)
    axes.stairs([heights[peak]], edges[peak : peak + 2], fill=True, color=colors["accent"], zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.08 * max(heights) or 1)
    axes.set_xlabel("Operator, in the order in which they run")
    axes.set_ylabel("Arena in use (kB)")
