"""The table of variants. A column is one entry: a head, and a function from a variant to a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.report import format as fmt
from edgeprune.report.blocks import EVERYWHERE, IN_FILES, IN_HTML, Cell, Column, Table
from edgeprune.report.schema import Estimated, Measured, Report, Variant

Entry = tuple[Column, Callable[[Variant], Cell]]

HOST_NOTE = (
    "Latency measured on the host compares the variants on that machine. It is not the latency on the target: "
    "a variant that gains nothing on a large processor may gain on a small one, and the other way round."
)
SPARSITY_NOTE = (
    "Zeroed weights shorten a file only once it is compressed (gzip) or stored sparse, and speed up only runtimes with "
    "sparse kernels."
)
ABSENT_NOTE = "– stands for a figure that was not measured or does not apply."


@dataclass(frozen=True)
class Setup:
    """Under which conditions a latency was measured; figures of different setups never share a column."""

    device: str
    runtime: str
    kernels: str | None
    threads: int

    @classmethod
    def of(cls, entry: Measured) -> Setup:
        return cls(entry.device, entry.runtime, entry.kernels, entry.threads)

    @property
    def place(self) -> str:
        """The device without its details: "host" of "host: Some CPU"."""
        return self.device.partition(": ")[0]

    @property
    def software(self) -> str:
        kernels = {None: "", "xnnpack": "XNNPACK kernels", "builtin": "built-in kernels"}
        parts = [self.runtime, kernels.get(self.kernels, f"{self.kernels} kernels"), threads(self.threads)]
        return ", ".join(part for part in parts if part)

    @property
    def details(self) -> str:
        """What the device is, if it says: "Some CPU" of "host: Some CPU"."""
        return self.device.partition(": ")[2]

    def find(self, variant: Variant) -> Measured | None:
        return next((entry for entry in variant.latency.measured if Setup.of(entry) == self), None)


def threads(count: int) -> str:
    return f"{count} thread" + ("" if count == 1 else "s")


def setups(report: Report) -> list[Setup]:
    """All measuring conditions in the report, in the order in which they first occur."""
    return list(dict.fromkeys(Setup.of(entry) for v in report.variants for entry in v.latency.measured))


def variants_table(report: Report) -> Table:
    """Every variant with every figure."""
    entries = [
        *_quality(report), *_size(report), *_micro(report), *_content(), *_placement(report), *_compiled(report),
        *(_measured(setup, first=not number) for number, setup in enumerate(setups(report))), *_estimated(report),
        *_instructions(report),
    ]  # fmt: skip
    heads: list[Column] = [Column("Variant", numeric=False, code=True), *(column for column, _ in entries)]
    rows = [[_name(report, variant), *(cell(variant) for _, cell in entries)] for variant in report.variants]
    table = Table(
        "Every variant built. Sizes in bytes with 1 kB = 1,000 bytes.",
        heads,
        rows,
        highlighted=next(index for index, variant in enumerate(report.variants) if variant.name == report.pick),
    )
    devices = dict.fromkeys(f"{setup.place} is {setup.details}." for setup in setups(report) if setup.details)
    rules = [
        (report.picked.placement is not None, placement_note(report.picked)),
        (bool(devices), "Devices: " + " ".join(devices)),
        (any(setup.place == "host" for setup in setups(report)), HOST_NOTE),
        (any(variant.weight_sparsity for variant in report.variants), SPARSITY_NOTE),
        (table.has_absent, ABSENT_NOTE),
    ]
    return Table(table.caption, heads, rows, [note for holds, note in rules if holds], table.highlighted)


def badges(report: Report, variant: Variant) -> tuple[str, ...]:
    """What a variant is in this report."""
    rules = [(variant.name == report.pick, "pick"), (variant.baseline, "baseline")]
    return tuple(word for holds, word in rules if holds)


def _name(report: Report, variant: Variant) -> Cell:
    return Cell(variant.name, exact=variant.file, badges=badges(report, variant))


def _quality(report: Report) -> list[Entry]:
    metric = report.metric
    grounds = {_ground(variant) for variant in report.variants if variant.metric}
    rules = [(not metric.higher_is_better, "lower is better"), (len(grounds) == 1, f"on {min(grounds, default='')}")]
    note = "; ".join(words for holds, words in rules if holds)

    def value(variant: Variant) -> Cell:
        cell = fmt.metric_value(metric, variant.metric.value if variant.metric else None)
        own = f"on {_ground(variant)}" if variant.metric and len(grounds) > 1 else None
        return Cell(cell.text, cell.exact, own, tone=cell.tone)

    return [
        (Column(fmt.metric_name(metric), note, "Quality of the .tflite"), value),
        (
            Column("Change", "against the baseline", "Quality of the .tflite"),
            lambda variant: fmt.change(metric, variant, report.baseline),
        ),
    ]


def _ground(variant: Variant) -> str:
    return f"{variant.metric.split}, {variant.metric.samples:,} samples" if variant.metric else ""


def _size(report: Report) -> list[Entry]:
    # Nothing is unzipped on a microcontroller, and the terminal has no room for more.
    packed = IN_HTML if report.picked.micro else EVERYWHERE
    return [
        (Column("File", "as it is", "Size"), lambda variant: fmt.size(variant.bytes)),
        (Column("gzip", "compressed", "Size", level=packed), lambda variant: fmt.size(variant.gzip_bytes)),
        (Column("zstd", "compressed", "Size", level=IN_HTML), lambda variant: fmt.size(variant.zstd_bytes)),
        (
            Column("Metadata", "part of the file", "Size", level=IN_HTML),
            lambda variant: fmt.size(variant.metadata_bytes),
        ),
    ]


def _micro(report: Report) -> list[Entry]:
    """Memory on a microcontroller; nothing for other targets."""
    made = next((variant.micro for variant in report.variants if variant.micro), None)
    if made is None:
        return []

    def cell(variant: Variant, key: str, plain: str) -> Cell:
        if variant.micro is None:
            return fmt.absent("not made for microcontrollers")
        size = fmt.size(variant.micro[key])  # type: ignore[arg-type]
        return Cell(size.text, f"{size.exact}; {variant.micro[plain]:,} bytes not encoded")

    source = "TFLM's arena" if made.recorded_by else "arena, estimated"
    level = EVERYWHERE if report.picked.micro else IN_HTML
    return [
        (
            Column("Flash", "encoded", "Memory", level=level),
            lambda variant: cell(variant, "flash_bytes", "plain_bytes"),
        ),
        (
            Column("RAM", source, "Memory", level=level),
            lambda variant: cell(variant, "ram_bytes", "plain_ram_bytes"),
        ),
    ]


def _content() -> list[Entry]:
    group = "Content"
    return [
        (
            Column("Parameters", "number", group, level=IN_HTML),
            lambda variant: fmt.count(variant.params, "parameters"),
        ),
        (
            Column("Nonzero", "parameters", group, level=IN_HTML),
            lambda variant: fmt.count(variant.nonzero_params, "non-zero parameters"),
        ),
        (
            Column("Sparsity", "weights that are zero", group, level=IN_FILES),
            lambda variant: fmt.share(variant.weight_sparsity, "of the weights are zero"),
        ),
        (
            Column("MACs", "per inference", group, level=IN_FILES),
            lambda variant: fmt.count(variant.macs, "multiply-accumulates"),
        ),
        (
            Column("Arena", "working memory", "Memory", level=IN_FILES),
            lambda variant: fmt.size(variant.memory.arena_bytes),
        ),
    ]


def _placement(report: Report) -> list[Entry]:
    """Nothing for targets without an accelerator."""
    if not any(variant.placement for variant in report.variants):
        return []

    def cell(variant: Variant) -> Cell:
        place = variant.placement
        if place is None:
            return fmt.absent("no placement")
        total = place.accelerator_ops + place.cpu_ops
        return Cell(f"{place.accelerator_ops:,} of {total:,}", tone="good" if place.fully_mapped else "")

    return [(Column("Accelerator", "operators", "Placement", level=IN_FILES), cell)]


def _compiled(report: Report) -> list[Entry]:
    """What the target's compiler estimates; nothing where none does."""
    if not any(variant.compiled and variant.compiled.performance for variant in report.variants):
        return []

    def cell(variant: Variant) -> Cell:
        estimate = variant.compiled.performance if variant.compiled else None
        if not estimate:
            return fmt.absent("not compiled")
        exact = f"{estimate['cycles']:,} cycles, {estimate['sram_bytes']:,} bytes of SRAM"
        return Cell(fmt.milliseconds(estimate["inference_ms"]), exact, note=f"{estimate['cycles']:,} cycles")

    made = next(variant.compiled for variant in report.variants if variant.compiled)
    note = f"estimated by {made.compiler} {made.version}"
    return [(Column(report.target.name, note, "Compiler", level=IN_FILES), cell)]


def placement_note(variant: Variant) -> str:
    """Where the operators of a variant run, and who says so."""
    place = variant.placement
    if place is None:
        return ""
    extra = place.model_extra or {}
    total = place.accelerator_ops + place.cpu_ops
    rows = {f"{row['name']} ({row['status']})" for row in extra.get("not_mapped", ()) if "status" in row}
    left = f" On the CPU or in doubt: {'; '.join(sorted(rows))}." if rows else ""
    estimate = variant.compiled.performance if variant.compiled else None
    time = f" It estimates {estimate['cycles']:,} cycles, {estimate['inference_ms']:.3f} ms." if estimate else ""
    return (
        f"{variant.name} on the {extra.get('processor', 'accelerator')}: {place.accelerator_ops:,} of {total:,} "
        f"operators ({extra.get('source', 'predicted')}).{left}{time}"
    )


def _measured(setup: Setup, first: bool) -> Entry:
    def cell(variant: Variant) -> Cell:
        entry = setup.find(variant)
        if entry is None:
            return fmt.absent("not measured under these conditions")
        exact = f"median {fmt.plain(entry.median_ms)} ms of {entry.runs:,} runs"
        if entry.p95_ms is None:
            return Cell(fmt.milliseconds(entry.median_ms), exact)
        return Cell(
            fmt.milliseconds(entry.median_ms),
            f"{exact}; 95th percentile {fmt.plain(entry.p95_ms)} ms",
            note=f"p95 {fmt.milliseconds(entry.p95_ms)}",
        )

    level = EVERYWHERE if first else IN_FILES
    return _latency(setup.place, f"{setup.software}, median", "measured", level), cell


def _latency(title: str, note: str, kind: Literal["measured", "estimated"], level: int = EVERYWHERE) -> Column:
    return Column(title, note, f"Latency, {kind}", level=level, latency=kind)


def _estimated(report: Report) -> list[Entry]:
    """One column per latency model and number of threads; one that says so if nothing was estimated."""
    made = [variant.latency.estimated for variant in report.variants if variant.latency.estimated]
    kinds = list(dict.fromkeys((entry.threads, entry.model_version) for entry in made))
    if not kinds:
        nothing = Cell("not estimated", tone="absent")
        return [(_latency(report.target.name, "no estimate", "estimated", IN_HTML), lambda variant: nothing)]
    return [
        (
            _latency(report.target.name, _estimator(kind, made), "estimated"),
            lambda variant, kind=kind: _estimate(variant.latency.estimated, kind),  # type: ignore[misc]
        )
        for kind in kinds
    ]


def _instructions(report: Report) -> list[Entry]:
    """What the emulated board counted; nothing where it was not asked. A build asks one board, with one runtime."""
    counted = next((variant.instructions for variant in report.variants if variant.instructions), None)
    if counted is None:
        return []
    note = f"of one inference, {counted.runtime} on an {counted.device.replace('emulator:', 'emulated')}"
    return [
        (
            Column("Instructions", note, "Counted", level=IN_FILES),
            lambda variant: fmt.count(variant.instructions.count if variant.instructions else None, "instructions"),
        )
    ]


def _estimator(kind: tuple[int, str | int], made: Sequence[Estimated]) -> str:
    """Who estimates: the latency model, or a compiler, which gives no range."""
    ranged = any(entry.low_ms < entry.high_ms for entry in made if (entry.threads, entry.model_version) == kind)
    return f"{threads(kind[0])}, latency model {kind[1]}, median and range" if ranged else f"by {kind[1]}"


def _estimate(entry: Estimated | None, kind: tuple[int, str | int]) -> Cell:
    if entry is None or (entry.threads, entry.model_version) != kind:
        return Cell("not estimated", tone="absent")
    if entry.low_ms == entry.high_ms:
        return Cell(fmt.milliseconds(entry.median_ms), exact=f"{fmt.plain(entry.median_ms)} ms")
    return Cell(
        fmt.milliseconds(entry.median_ms),
        exact=f"{fmt.plain(entry.median_ms)} ms, between {fmt.plain(entry.low_ms)} and {fmt.plain(entry.high_ms)} ms",
        note=f"{fmt.short(entry.low_ms)} to {fmt.milliseconds(entry.high_ms)}",
    )
