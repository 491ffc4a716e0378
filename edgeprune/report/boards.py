"""Variants × boards, of a build for several targets."""

from __future__ import annotations

from edgeprune.report import format as fmt
from edgeprune.report.blocks import Block, Cell, Column, Table
from edgeprune.report.schema import Judged, OnTarget, Report, Variant


def matrix(report: Report) -> list[Block]:
    """One table of estimates, and one of the picks and gates of each target; nothing for one target."""
    return [_estimates(report), _picks(report)] if report.targets else []


def picks_lines(report: Report) -> list[str]:
    """A sentence for each of several targets."""
    lines = []
    for board in report.targets:
        pick = _variant(report, board.pick)
        lines.append(f"{board.name}: {board.pick}, {_words(pick, board)}; {_gates(board).text}.")
    return lines


def _estimates(report: Report) -> Table:
    columns = [Column("Variant", numeric=False, code=True), *(Column(board.name) for board in report.targets)]
    rows = [[Cell(variant.name), *(_cell(variant, board) for board in report.targets)] for variant in report.variants]
    return Table(
        "Estimated latency of every variant on every target, with the range that holds about 80 % of true latencies.",
        columns,
        rows,
        ["Own: a build for this target alone makes this file, too; picks are chosen among these."],
    )


def _cell(variant: Variant, board: Judged) -> Cell:
    there = (variant.targets or {}).get(board.name)
    if there is None:
        return fmt.absent("could not be profiled there")
    rules = [(variant.name == board.pick, "pick"), (variant.name in board.variants, "own")]
    badges = tuple(word for holds, word in rules if holds)
    found = there.latency.estimated
    if found is None:
        return Cell(fmt.absent().text, there.latency.unknown, _placed(there), badges, "absent")
    spread = f"{fmt.short(found.low_ms)} to {fmt.short(found.high_ms)}" if found.low_ms < found.high_ms else ""
    note = "; ".join(part for part in (spread, _placed(there)) if part)
    return Cell(fmt.milliseconds(found.median_ms), f"{fmt.plain(found.median_ms)} ms", note or None, badges)


def _placed(there: OnTarget) -> str:
    if there.placement is None:
        return ""
    total = there.placement.accelerator_ops + there.placement.cpu_ops
    return f"{there.placement.accelerator_ops} of {total} operators on the accelerator"


def _picks(report: Report) -> Table:
    columns = [
        Column("Target", numeric=False, code=True), Column("Pick", numeric=False, code=True), Column("Size"),
        Column(fmt.metric_name(report.metric)), Column("Arena", "memory at run time"), Column("Gates", numeric=False),
    ]  # fmt: skip
    rows = []
    for board in report.targets:
        pick = _variant(report, board.pick)
        arena = pick.targets[board.name].memory.arena_bytes if pick.targets else None
        value = fmt.metric_value(report.metric, pick.metric.value if pick.metric else None)
        rows.append(
            [
                Cell(board.name, board.title),
                Cell(board.pick),
                fmt.size(pick.bytes),
                value,
                fmt.size(arena),
                _gates(board),
            ]
        )
    return Table("The pick for each target.", columns, rows)


def _words(pick: Variant, board: Judged) -> str:
    found = pick.targets[board.name].latency.estimated if pick.targets else None
    if found is None:
        return "no estimate of its latency"
    return f"{fmt.milliseconds(found.median_ms)} estimated"


def _gates(board: Judged) -> Cell:
    missed = [gate for gate in board.gates if not gate.passed]
    if not board.gates:
        return Cell("no gates")
    if not missed:
        return Cell(f"{len(board.gates)} of {len(board.gates)} gates passed", tone="good")
    words = ", ".join(f"{gate.name} {fmt.short(gate.value or 0)} > {fmt.short(gate.limit)}" for gate in missed)
    return Cell(f"missed {words}", tone="bad")


def _variant(report: Report, name: str) -> Variant:
    return next(variant for variant in report.variants if variant.name == name)
