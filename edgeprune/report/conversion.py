"""Sections about conversion: how far each file is from its Keras model, and what was done for its integers."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.report import format as fmt
from edgeprune.report.blocks import Block, Cell, Column, Table
from edgeprune.report.schema import Coded, Mixed, OutputParity, Parity, Report, Variant
from edgeprune.report.variants import badges

_ERRORS = [
    Column("Largest difference", "absolute, in units of the output"),
    Column("Mean difference", "absolute, in units of the output"),
    Column("Same top-1", "answers that agree"),
]
_VARIANT = Column("Variant", numeric=False, code=True)


def parity(report: Report) -> Sequence[Block]:
    """How far each .tflite is from the Keras model that it came from: in all, per output, and where it begins."""
    rows = [[Cell(v.name, badges=badges(report, v)), *_errors(v.parity)] for v in report.variants]
    whole = Table("Each .tflite against the Keras model that it was converted from.", [_VARIANT, *_ERRORS], rows)
    return [whole, *_by_output(report), *_origins(report)]


def _errors(parity: Parity | OutputParity | None) -> list[Cell]:
    errors = [parity.max_abs_error, parity.mean_abs_error] if parity else [None, None]
    cells = [fmt.absent() if value is None else Cell(f"{value:.3g}", f"{value!r}") for value in errors]
    agree = parity.top1_agreement if parity else None
    absent = fmt.absent("not measured, or the model does not classify")
    return [*cells, absent if agree is None else fmt.share(agree, "", 2)]


def _by_output(report: Report) -> list[Table]:
    """Nothing for models with one output, whose figures stand above."""
    rows = [
        [Cell(variant.name), Cell(output.name), *_errors(output)]
        for variant in report.variants
        if variant.parity and len(variant.parity.outputs or ()) > 1
        for output in variant.parity.outputs or ()
    ]
    columns = [_VARIANT, Column("Output", numeric=False, code=True), *_ERRORS]
    return [Table("By output, for models with several.", columns, rows)] if rows else []


def _origins(report: Report) -> list[Table]:
    columns = [
        _VARIANT,
        Column("Layer", numeric=False, code=True),
        Column("Operator", numeric=False, code=True),
        Column("Before", "signal over error, in dB"),
        Column("Behind", "signal over error, in dB"),
    ]
    rows = [
        [Cell(v.name), Cell(origin.layer or origin.tensor), Cell(origin.operator),
         Cell(f"{origin.sqnr_before_db:.1f}"), Cell(f"{origin.sqnr_db:.1f}")]
        for v in report.variants
        if v.parity and (origin := v.parity.origin)
    ]  # fmt: skip
    return (
        [Table("Where the difference arises, for variants that agree on less than 98 %.", columns, rows)]
        if rows
        else []
    )


def integers(report: Report) -> Sequence[Block]:
    """The trials of mixed precision, the grids of encoded weights, and what equalization and rounding changed."""
    tables = [_trials(report, variant, variant.mixed) for variant in report.variants if variant.mixed]
    # Files of one model in several formats share its grids; integers come last.
    coded = {str(variant.coded): variant for variant in report.variants if variant.coded}
    tables += [table for variant in coded.values() if variant.coded for table in _coded(report, variant, variant.coded)]
    return [*tables, *_prepared(report)]


def _trials(report: Report, variant: Variant, mixed: Mixed) -> Table:
    columns = [
        Column("Operators in float", "the worst ones"),
        Column("Drop", "on validation"),
        Column("Size", "without metadata"),
        Column("Allowed drop", numeric=False),
    ]
    rows = [
        [
            Cell(f"{trial.float_operators}", badges=("chosen",) if trial.chosen else ()),
            Cell(fmt.points(report.metric, trial.drop_points), fmt.plain(trial.drop_points)),
            fmt.size(trial.bytes),
            Cell("met", tone="good") if trial.met else Cell("missed", tone="bad"),
        ]
        for trial in mixed.trials
    ]
    kept = ", ".join(dict.fromkeys(mixed.float_layers)) or "none"
    return Table(f"{variant.name}: files tried. Layers kept in float: {kept}.", columns, rows)


def _coded(report: Report, variant: Variant, coded: Coded) -> list[Table]:
    """The sizes that were tried, and the grids of the chosen one."""
    trials = [
        [
            fmt.size(trial.bytes),
            Cell(f"{trial.loss:.3g}"),
            Cell(fmt.points(report.metric, trial.drop_points), fmt.plain(trial.drop_points)),
            Cell("met", tone="good") if trial.met else Cell("missed", tone="bad"),
        ]
        for trial in coded.trials
    ]
    grids = [
        [Cell(one.layer), Cell(f"{one.weights:,}"), Cell(f"{2 * one.levels + 1}"), Cell(f"{one.dead:g}")]
        for one in coded.tensors
    ]
    columns = [
        Column("Encoded weights"),
        Column("Loss", "foreseen, in nats"),
        Column("Drop", "the most, on validation or training samples"),
    ]
    return [
        Table(
            f"{variant.name}: sizes tried; the last one was chosen.",
            [*columns, Column("Limit", numeric=False)],
            trials,
        ),
        Table(
            f"{variant.name}: what weights are rounded to.",
            [
                Column("Layer", numeric=False, code=True),
                Column("Weights"),
                Column("Values", "of a channel, at most"),
                Column("Dead zone", "in steps; 0.5: none"),
            ],
            grids,
        ),
    ]


def _prepared(report: Report) -> list[Table]:
    columns = [_VARIANT, Column("Step", numeric=False), Column("Layers"), Column("", numeric=False, code=True)]
    rows = []
    for variant in report.variants:
        done = variant.prepared
        if done and done.equalized is not None:
            pairs = [f"{pair.producer} → {pair.consumer}" for pair in done.equalized]
            rows.append([Cell(variant.name), Cell("pairs equalized"), Cell(f"{len(pairs)}"), Cell(", ".join(pairs))])
        if done and done.rounded is not None:
            how = done.rounded
            step = "rounded by moments" if how.used else "rounded to nearest, which is as good"
            error = f"error of the outputs {how.moments:.2e}; to nearest {how.nearest:.2e}"
            rows.append([Cell(variant.name), Cell(step), Cell(f"{how.layers}"), Cell(error)])
        if ranges := variant.activation_ranges:
            error = "; ".join(f"{name} {value:.2e}" for name, value in ranges.differences.items())
            step = f"ranges of activations: {ranges.method}"
            rows.append([Cell(variant.name), Cell(step), Cell(""), Cell(f"error of the outputs: {error}")])
    return [Table("How weights and activations became integers.", columns, rows)] if rows else []
