"""Sensitivity of groups as a plot (SVG, PNG) and an HTML page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.files import atomic_path, write_bytes
from edgeprune.report.blocks import Cell, Column, Figure, Figures, Table
from edgeprune.report.format import metric_word, short
from edgeprune.report.plots import COLORS, drawing, shortened, small_plots, to_svg
from edgeprune.report.schema import Metric
from edgeprune.selection import within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Document = Mapping[str, Any]

# What the page's variables are in its light dress: a PNG knows no variables.
PNG_COLORS = {
    "ink": "#1c2128", "muted": "#59636e", "line": "#d9dee4", "accent": "#0b62c4", "baseline": "#9a5b00",
    "point": "#b9c1ca",
}  # fmt: skip
_PER_ROW, _PANEL_WIDTH, _PANEL_HEIGHT = 4, 2.3, 1.75  # panels, inches


def write_views(document: Document, folder: Path) -> None:
    """Write ``sensitivity.html`` and ``sensitivity.png`` into ``folder``, each atomically.

    Raises:
        OutputError: the folder cannot be written to.
    """
    write_bytes(folder / "sensitivity.html", render(document).encode())
    with atomic_path(folder / "sensitivity.png") as path, panels(document, PNG_COLORS) as figure:
        figure.savefig(path, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def render(document: Document) -> str:
    """The page as text."""
    from edgeprune.report.views import environment

    measured = _measured(document)
    figure = Figure(
        draw=lambda: _svg(document),
        alt=f"{len(measured)} small plots, one per group: drop of {_metric(document)} against the pruning rate; the "
        "table below gives every value.",
        caption="Each group pruned alone, without training; the other groups in grey. The vertical line is the "
        f"recommended rate for {_goal(document)}; the dashed one is the drop that counts as tolerated.",
    )
    value = f"{_value(document)} {_metric(document)}"
    blocks = [Figures([figure]), table(document)]
    return environment().get_template("sensitivity.html").render(
        document=document, measured=measured, blocks=blocks, value=value
    )  # fmt: skip


def table(document: Document) -> Table:
    """Every group with its drop at every rate, the frozen ones with the reason."""
    heads = [Column(f"{100 * rate:g} %", group=f"Drop in {_unit(document)} at a rate of") for rate in document["rates"]]
    tolerated = f"at most {_drop(document, document['allowed_drop'])}, alone"
    columns = [
        Column("Group", numeric=False, code=True),
        Column("Filters"),
        Column("MACs", group="One filter saves"),
        Column("Parameters", group="One filter saves"),
        *heads,
        Column("Tolerates", tolerated),
        Column("Recommended", f"for {_goal(document)}"),
    ]
    rows = [_row(document, group) for group in document["groups"]]
    notes = [f"{g['name']} is frozen: {g['frozen']}." for g in document["groups"] if g["frozen"]]
    notes.append("Rates are rounded to whole filters; a negative drop is a gain.")
    return Table("Each group of filters pruned alone, without training.", columns, rows, notes)


def _row(document: Document, group: Document) -> list[Cell]:
    cells = [Cell(group["name"], ", ".join(group["layers"])), Cell(f"{group['channels']:,}")]
    cells += [Cell(f"{group[f'saves_{what}_per_channel']:,.0f}") for what in ("macs", "params")]
    if not group["points"]:
        return [*cells, *(Cell("–", "frozen", tone="absent") for _ in (*document["rates"], "tolerated", "recommended"))]
    for rate in document["rates"]:
        point = min(group["points"], key=lambda p: abs(p["rate"] - rate))
        exact = f"{point['removed']} removed, metric {point['metric']:.6g}, loss {point['loss']:.6g}"
        bad = not within(point["drop_points"], document["allowed_drop"])
        cells.append(Cell(_drop(document, point["drop_points"]), exact, tone="bad" if bad else ""))
    return [*cells, *(_rate(group[f"{kind}_rate"]) for kind in ("tolerated", "recommended"))]


def _rate(value: float | None) -> Cell:
    return Cell("–", "the budget cannot be reached", tone="absent") if value is None else Cell(f"{100 * value:.0f} %")


def _goal(document: Document) -> str:
    """The budget in words: "50 % of the MACs"."""
    ((kind, value),) = document["budget"].items()
    words = {"rate": "of the filters removed", "max_params": "of the parameters", "max_macs": "of the MACs"}
    return f"{100 * value:g} % {words[kind]}"


def _metric(document: Document) -> str:
    return metric_word(Metric.model_validate(document["metric"]))


def panels(document: Document, colors: Mapping[str, str]) -> Any:
    """A context that gives a figure with a panel per group; all panels share their axes."""
    import contextlib
    import math

    @contextlib.contextmanager
    def draw() -> Any:
        groups = _measured(document)
        rows = math.ceil(len(groups) / _PER_ROW)
        columns = min(len(groups), _PER_ROW)
        with drawing(_PANEL_WIDTH * max(columns, 2), _PANEL_HEIGHT * rows + 0.5, colors) as figure:
            _fill(figure, groups, document, colors)
            yield figure

    return draw()


def _fill(figure: Drawing, groups: Sequence[Document], document: Document, colors: Mapping[str, str]) -> None:
    lines = [_line(group) for group in groups]
    titles = [f"{shortened(group['name'])} ({group['channels']})" for group in groups]
    places = small_plots(figure, titles, _PER_ROW, sharex=True, sharey=True)
    for axes, group, own in zip(places, groups, lines, strict=True):
        for line in lines:
            axes.plot(*line, color=colors["point"], linewidth=0.6, alpha=0.6, zorder=1)
        axes.axhline(document["allowed_drop"], color=colors["muted"], linewidth=0.8, linestyle=(0, (3, 2)), zorder=2)
        if group["recommended_rate"] is not None:
            axes.axvline(100 * group["recommended_rate"], color=colors["baseline"], linewidth=1.2, zorder=2)
        axes.plot(*own, color=colors["accent"], linewidth=1.6, marker="o", markersize=3, zorder=3)
        axes.set_xlim(0, 100)
        axes.tick_params(labelbottom=True)
    _scale(next(iter(figure.axes)), lines, document)
    figure.supxlabel("Filters of the group removed (%)", fontsize=9, color=colors["muted"])
    label = f"Drop of {_metric(document)} ({_unit(document)})"
    figure.supylabel(label, fontsize=9, color=colors["muted"], parse_math=False)


def _scale(axes: Axes, lines: Sequence[tuple[list[float], list[float]]], document: Document) -> None:
    """Drops from just below the smallest to the largest."""
    import math

    values = [y for _, ys in lines for y in ys if math.isfinite(y)]
    low, high = min(values), max([*values, 2 * document["allowed_drop"]])
    axes.set_ylim(low - 0.05 * (high - low), high + 0.08 * (high - low or 1.0))


def _line(group: Document) -> tuple[list[float], list[float]]:
    points = group["points"]
    return [0.0, *(100 * p["rate"] for p in points)], [0.0, *(p["drop_points"] for p in points)]


def _svg(document: Document) -> str:
    with panels(document, COLORS) as figure:
        return to_svg(figure, "sensitivity")


def _measured(document: Document) -> list[Document]:
    return [group for group in document["groups"] if group["points"]]


def _unit(document: Document) -> str:
    return "points" if document["metric"]["points"] == 100 else f"units of {document['metric']['name']}"


def _drop(document: Document, value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if document["metric"]["points"] == 100 else short(value)


def _value(document: Document) -> str:
    value = document["baseline"]["metric"]
    return f"{100 * value:.2f} %" if document["metric"]["points"] == 100 else short(value, 4)
