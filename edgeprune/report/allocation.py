"""Which channels went, and why: limits and their prices, the steps around every width, curves of the predicted loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgeprune.report import format as fmt
from edgeprune.report.blocks import IN_HTML, Block, Cell, Column, Figure, Figures, Table
from edgeprune.report.plots import COLORS, drawing, shortened, small_plots, to_svg
from edgeprune.report.schema import Allocation, Pruning, WidthReason, WidthStep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is limited → its words, and how an amount of it reads; limits of files may name a target behind it.
_LIMITED: dict[str, tuple[str, Callable[[float], str]]] = {
    "filters": ("Filters kept", lambda amount: f"{amount:,.0f}"),
    "macs": ("Multiply-accumulates", lambda amount: f"{fmt.scaled(amount)} MACs"),
    "params": ("Parameters", lambda amount: f"{fmt.scaled(amount)} parameters"),
    "latency": ("Latency, estimated", lambda amount: _time(amount)),
    "memory": ("Arena", lambda amount: fmt.scaled(amount, "B")),
    "size": ("File", lambda amount: fmt.scaled(amount, "B")),
}
_FOLDED_FROM = 20  # rows; a longer table is opened by those who want it
_PLOTS, _PER_ROW = 12, 3  # of more groups, those that lost most
_WIDTH, _HEIGHT = 5.6, 1.6  # of all plots in a row, in inches


def allocation(name: str, one: Allocation, prefix: str) -> list[Block]:
    """All about the choice of channels of one model; ``prefix`` begins ids in the page."""
    if not one.reasons or one.loss <= 0:
        return [_limits(name, one)]
    return [_limits(name, one), _widths(name, one), Figures([_curves(name, one, prefix)])]


def gone_channels(one: Pruning) -> Table:
    """Which channels of every group went."""
    columns = [
        Column("Group", numeric=False, code=True),
        Column("Channels"),
        Column("Gone", "numbers in the original model, from 0", numeric=False, level=IN_HTML, wraps=True),
        Column("Layers", numeric=False, code=True, level=IN_HTML, wraps=True),
    ]
    rows = [
        [
            Cell(group.name, note=f"stays: {group.frozen}" if group.frozen else None),
            fmt.absent("not known") if group.gone is None
            else Cell(f"{group.original:,} → {group.original - len(group.gone):,}"),
            fmt.absent("a step between had other groups") if group.gone is None
            else Cell(ranges(group.gone) or "none"),
            Cell(", ".join(group.layers)),
        ]
        for group in one.channels
    ]  # fmt: skip
    return Table(
        f"{one.name}: which channels went. In each group, those went that the criterion {one.criterion} ranks lowest.",
        columns, rows, folded=True,
    )  # fmt: skip


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in words: 1, 2, 3 and 7 are "1–3, 7"."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def _limits(name: str, one: Allocation) -> Table:
    """How good the choice is, and what each limit costs."""
    gap = max(one.loss - one.bound, 0.0) / max(abs(one.loss), 1e-300)
    found = "the best choice" if gap < 1e-6 else f"within {max(gap, 1e-4):.2%} of the best choice"
    caption = (
        f"{name}: channels chosen in {one.seconds:.1f} seconds, {found} under the model of loss and costs, in steps of "
        f"{one.multiple}{f', above {one.block} channels of {one.block}' if one.block else ''}."
    )
    if one.widths:
        caption += f" Of each layer, at most {one.widths} widths were looked at."
    if one.blocks:
        caption += f" Whole blocks went, too: {', '.join(one.blocks)}."
    columns = [
        Column("Limit", numeric=False), Column("Chosen"), Column("Allowed"),
        Column("Price", "fall of the predicted loss if one percent more is allowed"),
    ]  # fmt: skip
    rows = [
        [
            Cell(_limited(limit.name)),
            *(Cell(_amount(limit.name, amount), f"{amount:,}") for amount in (limit.value, limit.most)),
            fmt.absent("not known") if limit.price is None else _loss(one, limit.price),
        ]
        for limit in one.limits
    ]
    return Table(caption, columns, rows)


def _widths(name: str, one: Allocation) -> Table:
    """Every group with the step that led to its width, and the one that was not taken."""
    columns = [Column("Group", numeric=False, code=True), Column("Channels"), Column("Lost", "of the predicted loss")]
    for which in ("last step", "one more step"):
        columns += [Column("Loses", which), Column("Saves", which), Column("Worth", f"{which}, at the limits' prices")]
    rows = [
        [
            Cell(reason.name),
            Cell(f"{reason.channels:,} → {reason.kept:,}"),
            _loss(one, reason.loss),
            *_step(one, reason.last, "all channels stay"),
            *_step(one, reason.next, "as narrow as allowed"),
        ]
        for reason in one.reasons
    ]
    note = (
        "Losses are in percent of the predicted loss of all that went. A group becomes narrower as long as what a step "
        "saves is worth more than what it loses. Steps are whole and layers share what they cost, so that a few "
        "groups may stand one step off."
    )
    caption = f"{name}: why so many channels of each group went.{_example(one)}"
    return Table(caption, columns, rows, [note], folded=len(rows) > _FOLDED_FROM)


def _step(one: Allocation, step: WidthStep | None, why_none: str) -> list[Cell]:
    if step is None:
        return [fmt.absent(why_none)] * 3
    worth = fmt.absent("not known") if step.worth is None else _loss(one, step.worth)
    channels = f"by {step.channels:,} channel{'s' if step.channels != 1 else ''}"
    return [Cell(_loss(one, step.loss).text, f"{step.loss:.6g} {channels}"), Cell(_saved(one, step)), worth]


def _example(one: Allocation) -> str:
    """A row in words: the group that lost most, of those where the prices say why it lost no more."""
    for reason in sorted(one.reasons, key=lambda reason: -reason.loss):
        step = reason.next
        if step and step.worth is not None and step.worth <= step.loss:
            loses, worth = (_loss(one, value).text for value in (step.loss, step.worth))
            return (
                f" For example, {reason.name} keeps {reason.kept:,} of {reason.channels:,} channels, because the next "
                f"{step.channels:,} would lose {loses} to save {_saved(one, step)}, which is worth {worth} only."
            )
    return ""


def _saved(one: Allocation, step: WidthStep) -> str:
    """What is saved of the limits that bind; of all limits, if none does."""
    binding = [limit.name for limit in one.limits if limit.price] or [limit.name for limit in one.limits]
    return " and ".join(_amount(name, step.saved[name]) for name in binding if name in step.saved)


def _time(milliseconds: float) -> str:
    return fmt.milliseconds(milliseconds) if milliseconds >= 0.1 else f"{fmt.short(1e3 * milliseconds)} µs"


def _limited(name: str) -> str:
    """A limit in words: "latency on coral" is "Latency, estimated, on coral"."""
    what, _, board = name.partition(" on ")
    words = _LIMITED[what][0] if what in _LIMITED else what
    return f"{words}, on {board}" if board else words


def _amount(name: str, amount: float) -> str:
    what = name.partition(" on ")[0]
    return _LIMITED[what][1](amount) if what in _LIMITED else fmt.short(amount, 4)


def _percent(one: Allocation, loss: float) -> float:
    """Of the loss of the whole choice."""
    return 100 * loss / one.loss if one.loss > 0 else 0.0


def _loss(one: Allocation, loss: float) -> Cell:
    return Cell(f"{fmt.short(_percent(one, loss))} %", f"{loss:.6g}")


def _curves(name: str, one: Allocation, prefix: str) -> Figure:
    most = sorted(one.reasons, key=lambda reason: -reason.loss)[:_PLOTS]
    shown = [reason for reason in one.reasons if reason in most]
    which = f"the {len(shown)} groups that lost most" if len(shown) < len(one.reasons) else "every group"
    return Figure(
        draw=partial(_svg, one, shown, prefix),
        alt=f"{len(shown)} small plots, one per group: predicted loss against the channels that stay; the table above "
        "has the steps around each choice.",
        caption=f"{name}: predicted loss of {which} by the channels that stay, and the choice. The dashed line is what "
        "channels are worth there: where the curve is steeper, it is not worth going on.",
    )


def _svg(one: Allocation, shown: Sequence[WidthReason], prefix: str) -> str:
    height = _HEIGHT * math.ceil(len(shown) / _PER_ROW) + 0.4
    with drawing(_WIDTH, height) as figure:
        titles = [shortened(reason.name, 22) for reason in shown]
        for axes, reason in zip(small_plots(figure, titles, _PER_ROW, sharey=True), shown, strict=True):
            _draw(axes, one, reason)
        # Curves go on to what nobody would choose.
        top = max(_percent(one, reason.loss) for reason in shown)
        figure.axes[0].set_ylim(-0.05 * top, 2 * top)
        figure.supxlabel("Channels that stay", fontsize=9, color=COLORS["muted"])
        figure.supylabel("Predicted loss (% of all)", fontsize=9, color=COLORS["muted"])
        return to_svg(figure, prefix)


def _draw(axes: Axes, one: Allocation, reason: WidthReason) -> None:
    """A curve, the choice on it, and what channels are worth there as a slope."""
    from matplotlib.ticker import MaxNLocator

    losses = [_percent(one, point.loss) for point in reason.curve]
    axes.plot([p.channels for p in reason.curve], losses, color=COLORS["point"], linewidth=1.4, zorder=2)
    here = (reason.kept, _percent(one, reason.loss))
    step = reason.next or reason.last
    if step and step.worth is not None:
        slope = -_percent(one, step.worth) / step.channels
        axes.axline(here, slope=slope, color=COLORS["baseline"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.plot(*here, marker="o", markersize=5, color=COLORS["accent"], zorder=3)
    axes.set_xlim(reason.channels * 1.05, 0)  # narrower to the right, as the budget falls
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.tick_params(labelsize=7)
