"""The sections of a report, in order: each is a function from a report to blocks, and one entry in ``SECTIONS``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edgeprune.report import format as fmt
from edgeprune.report import headline
from edgeprune.report.allocation import allocation, gone_channels
from edgeprune.report.answers import answers, figures_by_output
from edgeprune.report.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Facts,
    Figure,
    Figures,
    Messages,
    Paragraph,
    Table,
)  # fmt: skip
from edgeprune.report.boards import matrix
from edgeprune.report.compared import regression
from edgeprune.report.conversion import integers, parity
from edgeprune.report.graph import graph_figure, operators_table
from edgeprune.report.plots import Line, Point, curves, scatter
from edgeprune.report.profile_plots import axis_label, memory_svg
from edgeprune.report.schema import Epoch, Gate, Imported, Report, TaskOutput, Training, Variant
from edgeprune.report.variants import Setup, setups, variants_table

Blocks = Sequence[Block]


@dataclass(frozen=True)
class Section:
    """``blocks`` gives what the section shows; nothing: the section is left out."""

    anchor: str
    title: str
    blocks: Callable[[Report], Blocks]
    in_markdown: bool = True


def variants(report: Report) -> Blocks:
    return [variants_table(report)]


def tradeoffs(report: Report, prefix: str = "plot") -> Blocks:
    """Cost against quality, one plot per cost that at least two variants have; ``prefix`` begins the drawings' ids."""
    costs: list[tuple[str, str, Callable[[Variant], float | None]]] = [
        ("File size (kB)", "file size", lambda variant: variant.bytes / 1000),
        ("Compressed size, gzip (kB)", "compressed size", lambda v: v.gzip_bytes and v.gzip_bytes / 1000),
        *_macs(report),
        *(
            (_axis(setup), f"latency measured on {setup.place}, {setup.software}", _median(setup))
            for setup in setups(report)
        ),
    ]
    figures = [_scatter(report, f"{prefix}{number}", *cost) for number, cost in enumerate(costs, 1)]
    return [Figures([figure for figure in figures if figure])] if any(figures) else []


def _macs(report: Report) -> list[tuple[str, str, Callable[[Variant], float | None]]]:
    """Multiply-accumulates as a cost, where variants differ in them."""
    if len({variant.macs for variant in report.variants} - {None}) < 2:
        return []
    return [("Multiply-accumulates (millions)", "multiply-accumulates", lambda v: v.macs and v.macs / 1e6)]


def _axis(setup: Setup) -> str:
    return f"Median latency measured on {setup.place} (ms)\n{setup.software}"


def _median(setup: Setup) -> Callable[[Variant], float | None]:
    def median(variant: Variant) -> float | None:
        entry = setup.find(variant)
        return entry.median_ms if entry else None

    return median


def _scatter(
    report: Report, prefix: str, label: str, words: str, cost: Callable[[Variant], float | None]
) -> Figure | None:
    factor, unit = (100, " (%)") if fmt.is_percent(report.metric) else (1, "")
    points = [
        Point(v.name, x, factor * v.metric.value, pick=v.name == report.pick, baseline=v.baseline, series=v.series)
        for v in report.variants
        if (x := cost(v)) is not None and v.metric and math.isfinite(v.metric.value)
    ]
    if len(points) < 2:
        return None
    name = fmt.metric_name(report.metric)
    y_label = f"{name}{unit}" if report.metric.higher_is_better else f"{name}{unit}, lower is better"
    listed = "; ".join(f"{p.name} at {fmt.short(p.x)}, {fmt.short(p.y, 4)}" for p in points)
    return Figure(
        draw=partial(scatter, points, label, y_label, report.metric.higher_is_better, prefix),
        alt=f"Scatter plot, {' '.join(label.split())} against {y_label}: {listed}.",
        caption=f"{name} against {words}.",
    )


def training(report: Report) -> Blocks:
    """Curves over epochs, and where each training ended."""
    trainings = [one for one in report.training if one.epochs]
    if not trainings:
        return []
    name = fmt.metric_name(report.metric)
    columns = [
        Column("Training", numeric=False, code=True), Column("Epochs"), Column("Loss", "train, last epoch"),
        Column("Loss", "validation, last epoch"), Column(name, "train, last epoch"),
        Column(name, "validation, last epoch"), Column(name, "validation, best epoch"),
    ]  # fmt: skip
    rows = [_training_row(report, one) for one in trainings]
    figures = [figure for number, one in enumerate(trainings, 1) for figure in _curves(report, one, f"train{number}")]
    return [Table("Training and selection saw train and validation data only.", columns, rows), Figures(figures)]


def _training_row(report: Report, one: Training) -> list[Cell]:
    last, metric = one.epochs[-1], report.metric
    known = [e.val_metric for e in one.epochs if e.val_metric is not None and math.isfinite(e.val_metric)]
    best = (max(known) if metric.higher_is_better else min(known)) if known else None
    losses = [
        fmt.absent() if loss is None else Cell(fmt.short(loss, 4), fmt.plain(loss))
        for loss in (last.loss, last.val_loss)
    ]
    metrics = [fmt.metric_value(metric, value) for value in (last.metric, last.val_metric, best)]
    return [Cell(one.name), Cell(f"{len(one.epochs)}"), *losses, *metrics]


def _curves(report: Report, one: Training, prefix: str) -> list[Figure]:
    factor, unit = (100, " (%)") if fmt.is_percent(report.metric) else (1, "")
    name = fmt.metric_name(report.metric)
    panels: list[tuple[str, float, Callable[[Epoch], float | None], Callable[[Epoch], float | None]]] = [
        ("Loss", 1, lambda e: e.loss, lambda e: e.val_loss),
        (f"{name}{unit}", factor, lambda e: e.metric, lambda e: e.val_metric),
    ]
    epochs = [epoch.epoch for epoch in one.epochs]
    figures = []
    for label, times, of_train, of_validation in panels:
        lines = [
            Line(split, [None if (y := get(epoch)) is None else times * y for epoch in one.epochs], split != "train")
            for split, get in (("train", of_train), ("validation", of_validation))
        ]
        figures.append(
            Figure(
                draw=partial(curves, lines, epochs, label, f"{prefix}-{'loss' if label == 'Loss' else 'metric'}"),
                alt=f"{label} over {len(epochs)} epochs of {one.name}, on train and validation data; the table above "
                "gives the last values.",
                caption=f"{label.removesuffix(unit)} over the epochs of {one.name}.",
            )
        )
    return figures


# Gate → what it limits, and how its figures read. A gate that is not here shows its name and plain numbers.
_GATES: dict[str, tuple[str, Callable[[Report, float], str]]] = {
    "max_drop": ("Drop against the baseline", lambda report, value: fmt.points(report.metric, value)),
    "max_size": ("File size", lambda report, value: fmt.scaled(value, "B")),
    "max_latency": ("Median latency", lambda report, value: fmt.milliseconds(value)),
    "max_flash": ("Flash", lambda report, value: f"{value:,.0f} B"),
    "max_ram": ("RAM", lambda report, value: f"{value:,.0f} B"),
}


def gates(report: Report) -> Blocks:
    """The limits that the user set, and whether the picks keep them."""
    none = Paragraph("No gates were set (--max-drop, --max-size, --max-latency, --max-flash, --max-ram).")
    return gates_tables(report) or [none]


def gates_tables(report: Report) -> list[Table]:
    """A row per gate; of several targets, a table for each."""
    columns = [
        Column("Gate", numeric=False),
        Column("Limit", "at most"),
        Column("Pick"),
        Column("Result", numeric=False),
    ]
    boards = [(f" for {board.name}", board.pick, board.gates) for board in report.targets]
    return [
        Table(f"The pick{of}, {pick}, against the limits.", columns, [_gate(report, g) for g in gates])
        for of, pick, gates in boards or [("", report.pick, report.gates)]
        if gates
    ]


def _gate(report: Report, gate: Gate) -> list[Cell]:
    words, show = _GATES.get(gate.name, (gate.name, lambda _, value: fmt.plain(value)))
    matches = [e for e in report.picked.latency.measured if gate.name == "max_latency" and e.median_ms == gate.value]
    note = f"measured on {Setup.of(matches[0]).place}, {Setup.of(matches[0]).software}" if matches else gate.source
    value = fmt.absent() if gate.value is None else Cell(show(report, gate.value), fmt.plain(gate.value), note)
    result = Cell("passed", tone="good") if gate.passed else Cell("missed", tone="bad")
    return [Cell(words, gate.name), Cell(show(report, gate.limit), fmt.plain(gate.limit)), value, result]


_WORTH_A_TABLE = 0.01  # below, a variant was not pruned: quantization alone makes a few zeros


def layers(report: Report) -> Blocks:
    """Zeros per layer, for variants that were pruned."""
    columns = [Column("Layer", numeric=False, code=True), Column("Weights", "number"), Column("Sparsity", "zeros")]
    columns += [
        Column("Stored", "bytes in the file"),
        Column("Encoding", numeric=False),
        Column("Expected kernels", "XNNPACK on ARM", numeric=False),
    ]
    tables = []
    for variant in report.variants:
        if variant.kernels and (variant.weight_sparsity or 0) >= _WORTH_A_TABLE:
            rows = [
                [
                    Cell(kernel.name),
                    fmt.count(kernel.weights, "weights"),
                    fmt.share(kernel.sparsity, "of the weights are zero"),
                    fmt.size(kernel.stored_bytes),
                    Cell(kernel.encoding or ""),
                    Cell(kernel.expected_kernels or ""),
                ]
                for kernel in variant.kernels
            ]
            tables.append(
                Table(
                    f"{variant.name}: zeros by layer, counted in the .tflite.{_path(variant)}",
                    columns,
                    rows,
                    folded=True,
                )
            )
    return tables


def _path(variant: Variant) -> str:
    path = variant.sparse_path
    if path is None:
        return ""
    if path.expected:
        return f" Sparse inference is expected: {path.zero_share:.1%} of the weights of its 1x1 convolutions are zero."
    return f" Dense kernels are expected, because {'; '.join(path.reasons)}."


def pruning(report: Report) -> Blocks:
    """Removed blocks, chosen channels, penalties before and after, lottery tickets beside their controls."""
    block_columns = [
        Column("Block", numeric=False, code=True), Column("Layers", numeric=False, code=True), Column("MACs"),
        Column("Score", "lowest goes first"), Column("Difference", "from the bypassed original, relative"),
    ]  # fmt: skip
    penalty_columns = [
        Column("Penalty", numeric=False, code=True), Column("Weight", "in the loss"), Column("Before"), Column("After"),
    ]  # fmt: skip
    ticket_columns = [
        Column("Variant", numeric=False, code=True), Column("Ticket", "early weights"),
        Column("Control", "other weights"), Column("Difference", "points"),
    ]  # fmt: skip
    blocks: list[Block] = []
    for number, one in enumerate(report.pruning, 1):
        if one.layers:
            rows = [
                [Cell(b.name), Cell(", ".join(b.layers)), Cell(fmt.scaled(b.macs), f"{b.macs:,}"),
                 Cell(fmt.short(b.score, 4)), Cell(f"{b.oracle_difference:.1e}")]
                for b in one.layers.removed
            ]  # fmt: skip
            blocks.append(Table(f"{one.name}: blocks removed, by {one.layers.criterion}.", block_columns, rows))
        if one.sparsify:
            rows = [
                [Cell(p.name), Cell(fmt.short(p.weight, 4)), Cell(fmt.short(p.before, 4)), Cell(fmt.short(p.after, 4))]
                for p in one.sparsify.penalties
            ]
            caption = f"{one.name}: penalties before and after {one.sparsify.epochs} epochs of training with them."
            blocks.append(Table(caption, penalty_columns, rows))
        if one.allocation:
            blocks += allocation(one.name, one.allocation, f"widths{number}")
        if one.channels:
            blocks.append(gone_channels(one))
        if one.lottery and (rows := _tickets(report, one.name)):
            caption = (
                f"{one.name}: the mask keeps {one.lottery.kept:.1%} of the weights, rounds: {one.lottery.round}; "
                "the control trains other random weights under it."
            )
            blocks.append(Table(caption, ticket_columns, rows))
    return blocks


def _tickets(report: Report, model: str) -> list[list[Cell]]:
    """The variants of a lottery ticket beside their controls; none for the control itself, or if there is none."""
    controls = {v.control_of: v for v in report.variants if v.control_of}
    tickets = [v for v in report.variants if v.name in controls and v.name.startswith(f"{model}-")]
    rows = []
    for ticket in tickets:
        pair = [v.metric.value if v.metric else math.nan for v in (ticket, controls[ticket.name])]
        shown = [fmt.metric_value(report.metric, value) for value in pair]
        rows.append([Cell(ticket.name), *shown, Cell(f"{(pair[0] - pair[1]) * report.metric.points:+.2f}")])
    return rows


def on_target(report: Report) -> Blocks:
    """The pick's graph: where it spends its time, on the target; and its memory, as the interpreter plans it."""
    pick = report.picked
    blocks: list[Block] = []
    if pick.operators:
        guess = pick.latency.estimated
        times = f" {' '.join(axis_label(report.target.name, guess.model_dump()).split())}." if guess else ""
        blocks += [
            Figures([graph_figure(pick.name, pick.operators)], wide=True),
            operators_table(pick.name, pick.operators, times),
        ]
    if timeline := pick.memory.timeline_bytes:
        memory = Figure(
            draw=partial(memory_svg, timeline, "memory"),
            alt=f"Memory of the arena in use over {len(timeline)} operators; at most "
            f"{fmt.scaled(max(timeline), 'B')} at operator {timeline.index(max(timeline))}.",
            caption=f"Arena in use while each operator of {pick.name} runs, with the built-in kernels.",
        )
        blocks.append(Figures([memory]))
    return blocks


def stages(report: Report) -> Blocks:
    """How long each stage took."""
    columns = [Column("Stage", numeric=False, code=True), Column("Time"), Column("", numeric=False)]
    rows = [
        [
            Cell(stage.name),
            Cell(fmt.seconds(stage.seconds), f"{stage.seconds:.6g} s"),
            Cell("reused from an earlier run" if stage.reused else ""),
        ]
        for stage in report.stages
    ]
    worked = sum(stage.seconds for stage in report.stages if not stage.reused)
    reused = sum(stage.reused for stage in report.stages)
    caption = f"Stages: {fmt.seconds(worked)} of work in this run" + (f", {reused} reused." if reused else ".")
    return [Table(caption, columns, rows, folded=True)] if rows else []


def warnings(report: Report) -> Blocks:
    messages = headline.warning_messages(report)
    return [Messages(messages)] if messages else [Paragraph("No warnings.")]


def facts(report: Report) -> Blocks:
    """What went in: model, data, recipe, environment."""
    model, data = report.model, report.data
    macs = "" if model.macs is None else f", {fmt.scaled(model.macs)} MACs"
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = ", ".join(f"{'–' if number is None else f'{number:,}'} {split}" for split, number in splits.items())
    items = [
        ("Model", Cell(f"{model.name}, from {model.source}")),
        ("Model size", Cell(f"{fmt.scaled(model.params)} parameters{macs}", f"{model.params:,} parameters")),
        ("Input and output", Cell(f"{fmt.shape(model.input_shape)} → {fmt.shape(model.output_shape)}")),
        *(
            [("Sizes left open", Cell(f"{fmt.shape(model.given_shape)}, fixed by {model.sizes_from}"))]
            if model.given_shape
            else []
        ),
        *(
            [
                (
                    "Before the file, on the host",
                    Cell(f"{', '.join(model.on_host.layers)}; the code beside the file has it"),
                )
            ]
            if model.on_host
            else []
        ),
        *([("Read from a .tflite", Cell(_imported(model.imported)))] if model.imported else []),
        ("Target", Cell(report.target.name)),
        ("Data", Cell(f"{data.source}: {counts} samples")),
        *([("Table", Cell(data.table))] if data.table else []),
        *(("Task", Cell(_task(output, len(report.task) > 1))) for output in report.task),
        ("Recipe", Cell(f"{report.recipe}; every setting is in recipe*.toml")),
        *(
            (f"Pick, {role}", Cell(f"{getattr(report.picks, role) or '–'} ({words})"))
            for role, words in headline.ROLES.items()
        ),
        *((name, Cell(str(value))) for name, value in report.environment.items() if value is not None),
    ]
    return [Facts(items)]


def _imported(facts: Imported) -> str:
    """How the model compares with its file, in a line."""
    parts = [f"outputs differ from the file's by {facts.difference:.1e} of the largest"]
    if facts.steps is not None:
        parts.append(f"with its rounding by {facts.steps:.0f} steps of their quantization")
    if facts.unchecked:
        parts.append(f"not verified: {', '.join(facts.unchecked)}")
    if facts.states:
        parts.append(f"inputs and outputs now: {', '.join(facts.states)}")
    return "; ".join(parts)


def _task(output: TaskOutput, named: bool) -> str:
    name = f"{output.name}: " if named else ""
    if output.loss is None:
        return f"{name}not trained ({output.origin})"
    weight = f", weight {output.weight:.3g}" if output.weight != 1 else ""
    return f"{name}{output.kind or 'a loss of your own'} by {output.loss}{weight}, {output.origin}"


def files(report: Report) -> Blocks:
    columns = [
        Column("Variant", numeric=False, code=True),
        Column("File", numeric=False, code=True),
        Column("Bytes"),
        Column("Needs", "TensorFlow Lite, at least"),
        Column("SHA-256", numeric=False, code=True),
    ]
    rows = [[Cell(v.name), Cell(v.file), Cell(f"{v.bytes:,}"), _needs(v), Cell(v.sha256)] for v in report.variants]
    return [Table("The files that the figures were measured on.", columns, rows, folded=True)]


def _needs(variant: Variant) -> Cell:
    return fmt.absent("not known") if variant.min_runtime is None else Cell(variant.min_runtime)


def reproduce(report: Report) -> Blocks:
    promise = (
        "With --deterministic, the same command on the same machine gives the same artifacts, byte for byte."
        if report.deterministic
        else "Without --deterministic, the same command may give slightly different weights and figures."
    )
    started = [Code(report.command)] if report.command else [Paragraph("Built from Python with edgeprune.build().")]
    return [*started, Paragraph(f"Seed {report.seed}. {promise}")]


SECTIONS: tuple[Section, ...] = (
    Section("warnings", "Warnings", warnings),
    Section("variants", "Variants", variants),
    Section("outputs", "Figures by output", figures_by_output),
    Section("tradeoffs", "Quality against cost", tradeoffs, in_markdown=False),
    Section("gates", "Gates", gates),
    Section("boards", "Variants on each target", matrix),
    Section("regression", "Against an earlier build", regression),
    Section("answers", "Where answers differ", answers),
    Section("operators", "The pick by operator", on_target, in_markdown=False),
    Section("training", "Training", training),
    Section("pruning", "What was removed, and why", pruning),
    Section("parity", "Parity with the Keras model", parity),
    Section("integers", "Mixed precision, grids of encoded weights, equalization, rounding", integers),
    Section("layers", "Sparsity by layer", layers, in_markdown=False),
    Section("stages", "Stages", stages, in_markdown=False),
    Section("facts", "What went in", facts),
    Section("reproduce", "How to reproduce", reproduce),
    Section("files", "Files", files, in_markdown=False),
)
