"""Drawings of what files answered: confusion matrices and distributions of residuals, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeprune.report.plots import COLORS, svg_axes
from edgeprune.report.schema import Histogram

WITH_NUMBERS = 12  # classes up to which each cell shows its count
_NAME = 14  # characters of a class's name beside an axis
_STRONGEST = 0.55  # opacity of a cell that holds its whole row: text stays readable on it


def confusion_svg(matrix: Sequence[Sequence[int]], names: Sequence[str], prefix: str) -> str:
    """A confusion matrix as a heat map: rows truth, columns answers, coloured by their share of the row.

    The square root of the share gives the opacity, or rare confusions would not be seen beside right answers.

    Args:
        matrix: counts.
        names: one per class.
        prefix: begins the SVG's ids; unique in the page.

    Returns:
        An ``<svg>`` element.
    """
    from matplotlib.patches import Rectangle

    classes = range(len(matrix))
    with svg_axes(prefix, height=5.2) as (_, axes, result):
        for row in classes:
            whole = sum(matrix[row])
            for column in classes:
                count = matrix[row][column]
                if not count:
                    continue
                color, opacity = COLORS["accent" if row == column else "bad"], _STRONGEST * math.sqrt(count / whole)
                axes.add_patch(
                    Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=color, alpha=opacity, linewidth=0)
                )
                if len(matrix) <= WITH_NUMBERS:
                    axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7.5)
        short = [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in names]
        axes.set_xticks(classes, short, parse_math=False, rotation=90 if max(map(len, short)) > 2 else 0)
        axes.set_yticks(classes, short, parse_math=False)
        axes.tick_params(length=0, labelsize=7.5)
        axes.set_xlim(-0.5, len(matrix) - 0.5)
        axes.set_ylim(len(matrix) - 0.5, -0.5)  # the first class on top
        axes.set_aspect("equal")
        axes.grid(False)
        axes.set_xlabel("Answer")
        axes.set_ylabel("Truth")
    return result[0]


def residuals_svg(histograms: Sequence[tuple[str, Histogram]], prefix: str) -> str:
    """Distributions of residuals over each other as an ``<svg>`` element.

    Args:
        histograms: (name, histogram), the baseline's first; they need not have the same bins.
        prefix: begins the SVG's ids; unique in the page.
    """
    looks = ((COLORS["baseline"], (0, (4, 2))), (COLORS["accent"], "-"))
    with svg_axes(prefix, height=3.1) as (figure, axes, result):
        for (color, style), (name, histogram) in zip(looks, histograms, strict=False):
            edges, total = histogram.edges, sum(histogram.counts)
            density = [
                count / total / (high - low)
                for count, low, high in zip(histogram.counts, edges, edges[1:], strict=False)
            ]
            axes.stairs(density, edges, color=color, linestyle=style, linewidth=1.6, label=name)
        axes.axvline(0, color=COLORS["muted"], linewidth=0.8, zorder=1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Truth minus answer, in units of the output")
        axes.set_ylabel("Density")
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return result[0]
