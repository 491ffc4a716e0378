"""Sections about answers: every metric of every output, and where the pick answers differently from the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from edgeprune.report import format as fmt
from edgeprune.report.answer_plots import confusion_svg, residuals_svg
from edgeprune.report.blocks import IN_FILES, IN_HTML, Block, Cell, Column, Figure, Figures, Paragraph, Table, Tone
from edgeprune.report.schema import (
    ClassFigures,
    Flipped,
    FlippedSample,
    Histogram,
    InputFigures,
    Metric,
    Outcome,
    Report,
    Variant,
)  # fmt: skip
from edgeprune.report.variants import badges

# Of boxes, by the number of their class; they can be told apart on photographs.
BOX_COLOURS = {
    "yellow": (255, 225, 25), "blue": (30, 120, 255), "red": (230, 25, 75), "green": (60, 200, 75),
    "magenta": (240, 50, 230), "cyan": (70, 240, 240), "orange": (245, 130, 48), "white": (255, 255, 255),
}  # fmt: skip
CLASSES_SHOWN = 25  # of a table, or of a drawn confusion matrix

# The files that are compared, with their outcomes of one output: the baseline, then the pick, unless they are one file.
Pair = Sequence[tuple[Variant, Outcome]]


def picture(index: int) -> str:
    """Where the picture of a sample of the test split is, relative to the run folder."""
    return f"samples/{index}.png"


def figures_by_output(report: Report) -> Sequence[Block]:
    """All metrics of all variants; nothing if there is only the one that the variants are compared by."""
    of = {variant.name: variant.metrics or {} for variant in report.variants}
    metrics = {
        name: Metric(name=name, higher_is_better=figure.higher_is_better, points=figure.points)
        for figures in of.values()
        for name, figure in figures.items()
    }
    if len(metrics) < 2:
        return []

    def cell(variant: Variant, metric: Metric) -> Cell:
        figure, base = (of[v.name].get(metric.name) if v else None for v in (variant, report.baseline))
        shown = fmt.metric_value(metric, figure.value if figure else None)
        if figure is None or base is None or variant.baseline:
            return shown
        change = fmt.difference(metric, figure.value, base.value)
        return Cell(shown.text, shown.exact, note=change.text, tone=shown.tone)

    columns = [Column("Variant", numeric=False, code=True)]
    columns += [Column(fmt.metric_name(m), "" if m.higher_is_better else "lower is better") for m in metrics.values()]
    rows = [
        [Cell(variant.name, badges=badges(report, variant)), *(cell(variant, metric) for metric in metrics.values())]
        for variant in report.variants
    ]
    return [Table("Every metric of every output, on the test split; below, the change.", columns, rows)]


def answers(report: Report) -> Sequence[Block]:
    """Confusion matrices, figures per class, residuals, and the samples that flipped; nothing without outcomes."""
    outputs = {name: _pair(report, name) for variant in report.variants for name in variant.outcomes or ()}
    if not outputs:
        return []
    blocks: list[Block] = [Paragraph(words) for words in [flips_line(report)] if words]
    for number, (name, pair) in enumerate(outputs.items(), 1):
        about = f"{name}: " if len(outputs) > 1 else ""
        for part in (_confusion, _classes, _residuals):
            blocks += part(report, pair, about, f"output{number}")
    return [*blocks, *_flipped(report)]


def flips_line(report: Report) -> str:
    """How many samples flipped, in one sentence; empty where pick and baseline are one file."""
    base, flips = report.baseline, report.flipped
    if base is None or report.picked.baseline or not report.picked.outcomes:
        return ""
    if flips is None:
        return "Which samples flipped is not known: the data did not give the same samples in the same order twice."
    pair = _pair(report, flips.output)
    samples = f"{pair[0][1].samples:,} test samples" if pair else "the test samples"
    place = f" in {flips.output}" if len(report.picked.outcomes) > 1 else ""
    if flips.kind == "classification":
        return (
            f"{report.pick} answers {flips.total:,} of {samples} differently from {base.name}{place}: "
            f"{flips.broken:,} right before and wrong now, {flips.repaired:,} wrong before and right now."
        )
    return (
        f"{report.pick} is worse than {base.name}{place} on {flips.broken:,} of {samples}, and better on "
        f"{flips.repaired:,}, by {_MEASURES.get(flips.kind, 'their figures')}."
    )


def worst_class_line(report: Report) -> str:
    """The class that lost most of its recall, in one sentence; empty where none lost any."""
    pair = _pair(report, report.flipped.output) if report.flipped else ()
    rows = _by_loss(pair) if len(pair) == 2 else []
    if not rows or _loss(rows[0]) <= 0:
        return ""
    before, after = rows[0]
    recalls = " → ".join(fmt.share(one.recall, "").text for one in (before, after))
    return f"The class that lost most: {_class_name(report, pair[0][1], before.index)}, recall {recalls}."


_MEASURES = {
    "detection": "the quality of the boxes",
    "multilabel": "the number of wrong labels",
    "regression": "the absolute error",
    "segmentation": "the share of right positions",
    "sequence": "the share of right positions",
}


def _pair(report: Report, output: str) -> Pair:
    files = [report.baseline, None if report.picked.baseline else report.picked]
    return [(file, file.outcomes[output]) for file in files if file and output in (file.outcomes or {})]  # type: ignore[index]


def _names(report: Report, outcome: Outcome) -> list[str] | None:
    """The data's names of the classes, if they are those of this output."""
    names = report.class_names
    return names if names and len(names) == len(outcome.per_class or ()) else None


def _class_name(report: Report, outcome: Outcome, index: int) -> str:
    names = _names(report, outcome)
    return names[index] if names else f"class {index}"


def _confusion(report: Report, pair: Pair, about: str, prefix: str) -> list[Block]:
    drawn = [
        _matrix(report, variant, outcome, outcome.confusion, about, f"{prefix}-confusion{number}")
        for number, (variant, outcome) in enumerate(pair)
        if outcome.confusion and len(outcome.confusion) <= CLASSES_SHOWN
    ]
    return [Figures(drawn)] if drawn else []


def _matrix(
    report: Report, variant: Variant, outcome: Outcome, matrix: list[list[int]], about: str, prefix: str
) -> Figure:
    names = [_class_name(report, outcome, index) for index in range(len(matrix))]
    wrong = [(n, t, a) for t, row in enumerate(matrix) for a, n in enumerate(row) if t != a and n]
    most, truth, answer = max(wrong, default=(0, 0, 0), key=lambda entry: entry[0])
    words = f"the most frequent: {names[truth]} taken for {names[answer]}, {most:,} times" if most else "none"
    role = f" ({' and '.join(badges(report, variant))})" if badges(report, variant) else ""
    ticks = _names(report, outcome) or [str(index) for index in range(len(names))]
    return Figure(
        draw=partial(confusion_svg, matrix, ticks, prefix),
        alt=f"Confusion matrix of {variant.name} over {len(matrix)} classes; confusions: {words}.",
        caption=f"{about}Confusion matrix of {variant.name}{role}, coloured by the share of each row. "
        f"Confusions: {words}.",
    )


def _loss(row: Sequence[ClassFigures]) -> float:
    """Recall lost from the first file to the last; less than anything where it is not defined."""
    first, last = row[0].recall, row[-1].recall
    return -2.0 if first is None or last is None else first - last


def _by_loss(pair: Pair) -> list[tuple[ClassFigures, ...]]:
    """The classes of one or two files side by side: most recall lost first; of one file, least recall first."""
    rows = list(zip(*(outcome.per_class or () for _, outcome in pair), strict=True))
    if len(pair) == 1:
        return sorted(rows, key=lambda row: 2.0 if row[0].recall is None else row[0].recall)
    return sorted(rows, key=_loss, reverse=True)


_FIGURES: tuple[tuple[str, int, Callable[[ClassFigures], float | None]], ...] = (
    ("Recall", IN_FILES, lambda figures: figures.recall),
    ("Precision", IN_FILES, lambda figures: figures.precision),
    ("F1", IN_HTML, lambda figures: figures.f1),
    ("IoU", IN_FILES, lambda figures: figures.iou),
)
_RECALL_NOTE = (
    "Recall: of the labels of a class, those that were answered right. Precision: of the answers of a class, those "
    "that were right."
)


def _classes(report: Report, pair: Pair, about: str, prefix: str) -> list[Block]:
    rows = _by_loss(pair)
    if not rows:
        return []
    figures = [one for one in _FIGURES if one[0] != "IoU" or any(row[0].iou is not None for row in rows)]
    names = [variant.name for variant, _ in pair]
    columns = [Column("Class", numeric=False), Column("Support", "labels")]
    for title, level, _ in figures:
        columns += [Column(title, name, level=level) for name in names]
        columns += [Column("Change", "of recall", level=level)] * (title == "Recall" and len(pair) > 1)

    def cells(row: Sequence[ClassFigures]) -> list[Cell]:
        shown = [Cell(_class_name(report, pair[0][1], row[0].index)), Cell(f"{row[0].support:,}")]
        for title, _, get in figures:
            values = [get(one) for one in row]
            shown += [fmt.share(v, "") if v is not None else fmt.absent("not defined: none of them") for v in values]
            if title == "Recall" and len(pair) > 1:
                shown.append(_points(*values))
        return shown

    order = "most recall lost first" if len(pair) > 1 else "least recall first"
    count = f"{CLASSES_SHOWN} of {len(rows):,} classes" if len(rows) > CLASSES_SHOWN else "Figures by class"
    return [Table(f"{about}{count}, {order}.", columns, [cells(row) for row in rows[:CLASSES_SHOWN]], [_RECALL_NOTE])]


def _points(before: float | None, after: float | None) -> Cell:
    """A change of a fraction in points."""
    if before is None or after is None:
        return fmt.absent("not defined: none of them")
    return fmt.difference(Metric(name="recall", higher_is_better=True, points=100.0), after, before)


def _residuals(report: Report, pair: Pair, about: str, prefix: str) -> list[Block]:
    known = [(variant, outcome, outcome.residuals) for variant, outcome in pair if outcome.residuals]
    if not known:
        return []
    quantiles = list(known[0][2].quantiles)
    columns = [
        Column("Variant", numeric=False, code=True), Column("Mean", "bias"), Column("Standard deviation"),
        Column("Mean absolute"),
        *(Column(f"{100 * float(q):g} %", "quantile", level=IN_FILES) for q in quantiles),
    ]  # fmt: skip
    rows = []
    for variant, outcome, residuals in known:
        numbers = [residuals.mean, residuals.std, residuals.mean_abs, *residuals.quantiles.values()]
        note = f"{residuals.not_finite:,} answers are no numbers" if residuals.not_finite else None
        rows.append([Cell(variant.name, note=note, badges=badges(report, variant)), *map(_value, numbers)])
        rows += [
            [
                Cell(f"{variant.name}, value {number}"),
                *map(_value, (one.mean, one.std, one.mean_abs)),
                *[Cell("")] * len(quantiles),
            ]
            for number, one in enumerate(outcome.per_value or ())
        ]
    table = Table(f"{about}Residuals, truth minus answer, in units of the output.", columns, rows)
    drawn = [(variant.name, residuals.histogram) for variant, _, residuals in known if residuals.histogram.counts]
    if not drawn:
        return [table]
    return [table, Figures([_histogram(drawn, about, prefix)])]


def _histogram(drawn: Sequence[tuple[str, Histogram]], about: str, prefix: str) -> Figure:
    names = " and ".join(name for name, _ in drawn)
    return Figure(
        draw=partial(residuals_svg, drawn, f"{prefix}-residuals"),
        alt=f"Distribution of the residuals of {names}; the table above gives their quantiles.",
        caption=f"{about}Residuals of {names}; what is beyond the 0.5 % and 99.5 % quantiles is in the outer bins.",
    )


def _value(value: float | None) -> Cell:
    return fmt.absent("no answer was a number") if value is None else Cell(fmt.short(value), fmt.plain(value))


def _flipped(report: Report) -> list[Block]:
    """The samples that flipped, worst first: as pictures where the first input is an image, else as numbers."""
    flips, base = report.flipped, report.baseline
    if flips is None or base is None or not flips.samples:
        return []
    pair = _pair(report, flips.output)
    pictures = flips.spectrograms is not None or any(is_image(one.shape) for one in flips.samples[0].inputs or ())
    has_truth = any(sample.label is not None or sample.truth is not None for sample in flips.samples)
    measure = "" if has_truth else _MEASURES.get(flips.kind, "").removeprefix("the ")
    columns = [
        Column("Sample", "of the test split", numeric=False),
        *([Column("Truth", numeric=False)] if has_truth else []),
        *(Column(name, measure or "answer", numeric=False) for name in (base.name, report.pick)),
        *([] if pictures or not flips.samples[0].inputs else [Column("Inputs", "after preprocessing", numeric=False)]),
    ]
    rows = []
    for sample in flips.samples:
        answer = partial(_answer, report, flips, pair[0][1] if pair else None)
        truth = sample.label if sample.label is not None else sample.truth
        before = sample.before, sample.confidence_before
        row = [
            Cell(f"{sample.index:,}", picture=picture(sample.index) if pictures else None),
            *([answer(truth, None)] if has_truth else []),
            answer(*before),
            answer(sample.after, sample.confidence_after, tone=_tone(sample)),
        ]
        if len(columns) > len(row):
            row.append(_inputs(sample.inputs or ()))
        rows.append(row)
    listed = flips.total if flips.kind == "classification" else flips.broken
    what = "Samples with another answer" if flips.kind == "classification" else "Samples that became worse"
    count = f"{what}, worst first" + (f": {len(rows)} of {listed:,}." if len(rows) < listed else ".")
    notes = []
    if flips.masks:
        notes.append(f"At the right of each picture, the classes of its pixels: {', '.join(flips.masks)}.")
    if flips.boxes:
        notes.append(
            f"From left to right, the boxes with a score of at least one half: {', '.join(flips.boxes)}."
            f"{_colours(report.class_names or ())} Quality: "
            "overlaps of right boxes, which overlap one of their class by half, over all boxes found and wanted."
        )
    if flips.spectrograms:
        notes.append(f"Pictures are spectrograms of what the model hears, {flips.spectrograms}: louder is brighter.")
    return [Table(count, columns, rows, notes)]


def _colours(names: Sequence[str]) -> str:
    """Which class has which colour, where each has one of its own."""
    if len(names) > len(BOX_COLOURS):
        return ""
    return f" {', '.join(f'{colour}: {name}' for colour, name in zip(BOX_COLOURS, names, strict=False))}."


def _answer(
    report: Report, flips: Flipped, outcome: Outcome | None, value: object, confidence: float | None, tone: Tone = ""
) -> Cell:
    """A class with its confidence, the values of a regression, or a figure of a sample."""
    if value is None:
        return fmt.absent("not a number")
    if isinstance(value, list):
        numbers = [fmt.absent().text if number is None else fmt.short(number) for number in value]
        return Cell(", ".join(numbers), exact=", ".join(map(str, value)), tone=tone)
    assert isinstance(value, int | float)
    if flips.kind == "classification":
        sure = None if confidence is None else f"{100 * confidence:.1f} %"
        return Cell(_class_name(report, outcome, int(value)) if outcome else f"class {value}", note=sure, tone=tone)
    if flips.kind in ("detection", "segmentation", "sequence"):
        return Cell(fmt.share(value, "").text, fmt.plain(value), tone=tone)
    return Cell(fmt.short(value), fmt.plain(value), tone=tone)


def _tone(sample: FlippedSample) -> Tone:
    """Of the pick's answer, where there is right and wrong."""
    if sample.label is None:
        return ""
    return "bad" if sample.before == sample.label else "good" if sample.after == sample.label else ""


def is_image(shape: Sequence[int]) -> bool:
    """Whether an input of this shape, without the batch, can be shown as a grey or coloured picture."""
    return len(shape) == 3 and shape[-1] in (1, 3, 4) and min(shape[:2]) > 1


def _inputs(inputs: Sequence[InputFigures]) -> Cell:
    """The values of small inputs; of larger ones, range, mean and shape."""
    parts = []
    for one in inputs:
        if one.values is not None:
            parts.append(", ".join("–" if value is None else fmt.short(value) for value in one.values))
        elif one.min is not None and one.max is not None and one.mean is not None:
            low, high, mean = map(fmt.short, (one.min, one.max, one.mean))
            parts.append(f"{low} to {high}, mean {mean} ({' × '.join(map(str, one.shape))})")
        else:
            parts.append("no finite values")
    return Cell("; ".join(parts))
