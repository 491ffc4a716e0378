"""Drawings as inline SVG. The same input gives the same bytes; colours are the page's CSS variables."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import MissingError
from edgeprune.report import labels, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib knows no CSS variables: it draws with stand-ins that nothing else uses, and they are replaced afterwards.
COLORS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "accent": "#040404",
    "baseline": "#050505",
    "point": "#060606",
    "bad": "#070707",
}
# The same of the bright page in report.css, for files that stand alone.
PNG_COLORS = {
    "ink": "#1c2128",
    "muted": "#59636e",
    "line": "#d9dee4",
    "accent": "#0b62c4",
    "baseline": "#9a5b00",
    "point": "#6b7683",
    "bad": "#b3261e",
}
_WIDTH, _HEIGHT = 5.6, 3.9  # inches of 72 points
_FONT = 9.0  # points
_LOG_FROM = 20  # a logarithmic axis where the largest is this many times the smallest


@dataclass(frozen=True)
class Point:
    """A variant in a scatter plot; one without a name has no label."""

    name: str
    x: float
    y: float
    pick: bool = False
    baseline: bool = False
    series: str | None = None  # points of one series are joined, in the order given


# A point is drawn with every look that it has: the pick may be the baseline.
_LOOKS: tuple[tuple[Callable[[Point], bool], dict[str, Any]], ...] = (
    (lambda p: not p.baseline, {"marker": "o", "s": 30, "color": COLORS["point"], "label": "variant"}),
    (lambda p: p.baseline, {"marker": "D", "s": 34, "color": COLORS["baseline"], "label": "baseline"}),
    (
        lambda p: p.pick,
        {
            "marker": "o",
            "s": 120,
            "facecolor": "none",
            "edgecolor": COLORS["accent"],
            "linewidth": 1.8,
            "label": "pick",
        },
    ),
)


@dataclass(frozen=True)
class Line:
    """A curve over epochs; ``None`` leaves a gap."""

    name: str
    values: Sequence[float | None]
    dashed: bool = False


def scatter(points: Sequence[Point], x_label: str, y_label: str, higher_is_better: bool, prefix: str) -> str:
    """Cost against value, with the Pareto front and a label at each point.

    Args:
        points: one per variant, all finite; x is a cost in the unit that ``x_label`` names.
        higher_is_better: direction of y.
        prefix: begins the SVG's ids; unique in the page.

    Returns:
        An ``<svg>`` element.
    """
    with svg_axes(prefix) as (figure, axes, result):
        best = [points[index] for index in pareto.front([(p.x, p.y) for p in points], higher_is_better)]
        axes.step(
            [p.x for p in best], [p.y for p in best], where="post", color=COLORS["muted"], linewidth=1.2,
            linestyle=(0, (4, 3)), label="Pareto front", zorder=1,
        )  # fmt: skip
        _join(axes, points)
        for has_look, look in _LOOKS:
            chosen = [p for p in points if has_look(p)]
            if chosen:
                axes.scatter([p.x for p in chosen], [p.y for p in chosen], zorder=3, **look)
        _limits(axes, points)
        axes.set_xlabel(x_label, parse_math=False)
        axes.set_ylabel(y_label, parse_math=False)
        figure.legend(
            loc="outside upper left",
            ncols=4 - any(p.series for p in points),
            frameon=False,
            handletextpad=0.4,
            columnspacing=1.2,
        )
        _label(figure, axes, points, best)
    return result[0]


_SERIES = tuple(itertools.product(("-", (0, (1, 1.5)), (0, (6, 2))), ("accent", "baseline", "muted", "ink")))


def _join(axes: Axes, points: Sequence[Point]) -> None:
    """A line through the points of each series, in the order in which they are given."""
    names = dict.fromkeys(point.series for point in points if point.series)
    for name, (style, color) in zip(names, itertools.cycle(_SERIES), strict=False):
        chosen = [(point.x, point.y) for point in points if point.series == name]
        axes.plot(*zip(*chosen, strict=True), color=COLORS[color], linewidth=1.5, linestyle=style, label=name, zorder=2)


def curves(lines: Sequence[Line], epochs: Sequence[int], y_label: str, prefix: str) -> str:
    """Curves over epochs as an ``<svg>`` element. ``prefix`` begins its ids; unique in the page."""
    from matplotlib.ticker import MaxNLocator

    colors = (COLORS["accent"], COLORS["baseline"])
    with svg_axes(prefix, height=_HEIGHT * 0.8) as (figure, axes, result):
        for color, line in zip(colors, lines, strict=False):
            values = [math.nan if value is None else value for value in line.values]
            style: Any = (0, (4, 2)) if line.dashed else "-"
            axes.plot(
                epochs, values, marker="o", markersize=3.5, linewidth=1.6, linestyle=style, color=color, label=line.name
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Epoch")
        axes.set_ylabel(y_label, parse_math=False)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return result[0]


@contextmanager
def svg_axes(prefix: str, height: float = _HEIGHT) -> Iterator[tuple[Figure, Axes, list[str]]]:
    """A figure in the page's style; on leaving, the list holds its SVG."""
    with drawing(_WIDTH, height) as figure:
        result: list[str] = []
        yield figure, styled(figure.add_subplot()), result
        result.append(to_svg(figure, prefix))


@contextmanager
def png_axes(path: Path, height: float = _HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """A figure in the colours of the bright page; on leaving, it is in the file."""
    with drawing(_WIDTH, height, PNG_COLORS) as figure:
        yield figure, styled(figure.add_subplot())
        figure.savefig(path, dpi=144, facecolor="white", metadata={"Software": None})


@contextmanager
def drawing(width: float, height: float, colors: Mapping[str, str] = COLORS) -> Iterator[Figure]:
    """An empty figure in the page's style, ``width`` x ``height`` in inches; save it before leaving."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise MissingError(
            "Plots need matplotlib, which is not installed.", fix="pip install 'edgeprune[build]'"
        ) from None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)  # a user's matplotlibrc must not change the bytes
    with matplotlib.rc_context(rc={**defaults, **_style(colors)}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)  # has the renderer that measures text
        figure.patch.set_visible(False)
        yield figure


def styled(axes: Axes) -> Axes:
    """Axes without a box around them, on a grid."""
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, zorder=0)
    return axes


def small_plots(
    figure: Figure, titles: Sequence[str], per_row: int, sharex: bool = False, sharey: bool = False
) -> list[Axes]:
    """A small plot per title, in rows; all may have the same scale along an axis."""
    rows, columns = math.ceil(len(titles) / per_row), min(len(titles), per_row)
    places = list(figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False).flat)
    for axes in places[len(titles) :]:
        axes.set_visible(False)
    for axes, title in zip(places, titles, strict=False):
        styled(axes).set_title(title, fontsize=8, loc="left", parse_math=False)
    return places[: len(titles)]


def shortened(name: str, length: int = 26) -> str:
    """A long name keeps its end, which tells layers apart."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def to_svg(figure: Figure, prefix: str) -> str:
    """The figure as an ``<svg>`` element; ``prefix`` begins its ids."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    # Figure.savefig would draw everything once more beforehand, for options that are not used here.
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(buffer.getvalue(), prefix)


def _style(colors: Mapping[str, str]) -> dict[Any, Any]:
    return {
        "backend": "agg",
        "svg.hashsalt": "edgeprune",  # else ids are random
        "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
        "font.size": _FONT,
        "text.color": colors["ink"],
        "axes.labelcolor": colors["muted"],
        "axes.edgecolor": colors["line"],
        "axes.axisbelow": True,
        "grid.color": colors["line"],
        "grid.linewidth": 0.6,
        "xtick.color": colors["line"],
        "ytick.color": colors["line"],
        "xtick.labelcolor": colors["muted"],
        "ytick.labelcolor": colors["muted"],
    }


def _limits(axes: Axes, points: Sequence[Point]) -> None:
    """Room around the points for labels; a logarithmic x where linear would crowd the small ones."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    xs, ys = [p.x for p in points], [p.y for p in points]
    if min(xs) > 0 and max(xs) / min(xs) >= _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        factor = (max(xs) / min(xs)) ** 0.15
        axes.set_xlim(min(xs) / factor, max(xs) * factor)
    else:
        margin = 0.15 * (max(xs) - min(xs)) or 0.2 * abs(max(xs)) or 1.0
        axes.set_xlim(max(0.0, min(xs) - margin), max(xs) + margin)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    margin = 0.18 * (max(ys) - min(ys)) or 0.01 * abs(max(ys)) or 1.0
    axes.set_ylim(min(ys) - margin, max(ys) + margin)


def _label(figure: Figure, axes: Axes, points: Sequence[Point], best: Sequence[Point]) -> None:
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)  # from here on data coordinates have their place
    figure.set_layout_engine("none")
    scale = 72 / figure.dpi  # pixels to points

    def position(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return scale * float(across), scale * float(up)

    obstacles = [position(p.x, p.y) for p in points]
    points = [point for point in points if point.name]
    positions = [position(p.x, p.y) for p in points]
    corners = [position(p.x, q.y) for p, q in zip(best[1:], best, strict=False)]
    path = [position(best[0].x, best[0].y)]
    for corner, point in zip(corners, best[1:], strict=True):
        path += [corner, position(point.x, point.y)]
    window = axes.get_window_extent()
    frame = labels.Box(scale * window.x0, scale * window.y0, scale * window.width, scale * window.height)
    sizes = _sizes(axes, points, scale)
    # Points on top of each other share a label: their names in lines, from the highest point down.
    groups = [sorted(group, key=lambda i: -points[i].y) for group in labels.clusters(positions)]
    anchors = [positions[group[len(group) // 2]] for group in groups]
    blocks = [(max(sizes[i][0] for i in group), sum(sizes[i][1] for i in group)) for group in groups]
    places = labels.place(anchors, blocks, frame, obstacles, _segments(path))
    for group, anchor, spot in zip(groups, anchors, places, strict=True):
        _write(axes, [points[i] for i in group], anchor, spot)


def _write(axes: Axes, points: Sequence[Point], anchor: tuple[float, float], spot: labels.Place) -> None:
    """Names in lines in their place, with a line to the point in the middle where the label is far off."""
    middle, box = points[len(points) // 2], spot.box

    def offset(x: float, y: float) -> dict[str, Any]:
        shift = (x - anchor[0], y - anchor[1])
        return {"xy": (middle.x, middle.y), "xytext": shift, "textcoords": "offset points", "va": "center"}

    if spot.leader:
        line = {"arrowstyle": "-", "color": COLORS["muted"], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", **offset(*box.nearest(*anchor)), arrowprops=line)
    height = box.height / len(points)
    side = "center" if len(points) == 1 else "left" if box.left >= anchor[0] else "right"
    x = box.left + box.width * {"left": 0, "center": 0.5, "right": 1}[side]
    for number, point in enumerate(points):
        y = box.bottom + box.height - (number + 0.5) * height
        weight = "bold" if point.pick else "normal"
        axes.annotate(
            point.name, **offset(x, y), ha=side, fontsize=_FONT, fontweight=weight, parse_math=False, zorder=4
        )  # fmt: skip


def _sizes(axes: Axes, points: Sequence[Point], scale: float) -> list[tuple[float, float]]:
    """(width, height) of each point's label in typographic points, with 8 % to spare: the page may use a wider font."""
    sizes = []
    for point in points:
        text = axes.text(
            0, 0, point.name, fontsize=_FONT, fontweight="bold" if point.pick else "normal", parse_math=False
        )
        extent = text.get_window_extent()
        sizes.append((1.08 * scale * float(extent.width), max(scale * float(extent.height), 1.2 * _FONT)))
        text.remove()
    return sizes


def _segments(path: Sequence[tuple[float, float]]) -> list[labels.Box]:
    """A path of horizontal and vertical steps as boxes of 3 points' thickness."""
    return [
        labels.Box(min(a[0], b[0]) - 1.5, min(a[1], b[1]) - 1.5, abs(a[0] - b[0]) + 3, abs(a[1] - b[1]) + 3)
        for a, b in itertools.pairwise(path)
    ]


def _inline(svg: str, prefix: str) -> str:
    """Make a stand-alone SVG file part of an HTML page: no prolog, no namespaces, own ids, the page's font and colours.

    Only tags are rewritten, never the text between them: a variant may be called anything.
    """
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub("<style.*?</style>", "", svg, flags=re.DOTALL)  # it would apply to the whole page

    def rewrite(tag: re.Match[str]) -> str:
        text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", tag.group()).replace("xlink:href", "href")
        text = re.sub(r'(?<=\bid=")|(?<=\bhref="#)|(?<=url\(#)', f"{prefix}-", text)
        text = re.sub(r"font-family: [^;\"]*; ", "", text)
        for name, color in COLORS.items():
            text = text.replace(color, f"var(--{name})")
        return text

    return re.sub(r"<[^>]*>", rewrite, svg)
