"""Several builds on one page: the pick of each, every variant, and what the builds did differently."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.files import JsonObject
from edgeprune.report import format as fmt
from edgeprune.report.blocks import IN_HTML, Block, Cell, Column, Figure, Figures, Table
from edgeprune.report.headline import gates_line
from edgeprune.report.plots import Point, scatter
from edgeprune.report.reading import NAME, read_report
from edgeprune.report.schema import Metric, Report, Variant
from edgeprune.report.variants import Setup, badges, threads

Read = Callable[["Run", Variant], float | None]


@dataclass(frozen=True)
class Run:
    """A build, and what it is called here."""

    name: str
    report: Report

    @property
    def pick(self) -> Variant:
        return self.report.picked


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """The builds in run folders, each named by its folder, or by the path as given where folders share a name.

    Raises:
        UsageError: one is given twice, or has no report that can be read.
    """
    places = [path.parent if path.name == NAME else path for path in map(Path, paths)]
    full = [place.resolve() for place in places]
    if again := next((str(place) for place, path in zip(places, full, strict=True) if full.count(path) > 1), None):
        raise UsageError(f"{again} is given twice.", expected="run folders, each once.")
    last = [path.stem if path.is_file() else path.name for path in full]
    names = [name if last.count(name) == 1 else str(place) for name, place in zip(last, places, strict=True)]
    return [Run(name, read_report(path)) for name, path in zip(names, paths, strict=True)]


def comparison(runs: Sequence[Run]) -> JsonObject:
    """The same as a JSON document: of every run what it was, how it ended, and the figures of all variants."""
    keys = ("name", "file", "sha256", "bytes", "gzip_bytes", "params", "macs", "weight_sparsity", "drop_points")
    return {
        "runs": [
            {
                "name": run.name,
                **{what: read(run) for what, read in _SETTINGS.items()},
                "metric_name": run.report.metric.name,
                "passed": run.report.passed,
                "pick": run.report.pick,
                "variants": [
                    {
                        **{key: variant[key] for key in keys},
                        "metric": variant.metric and variant.metric.value,
                        "estimated_ms": _estimated(run, variant),
                        "measured": [entry.model_dump(mode="json") for entry in variant.latency.measured],
                        "arena_bytes": variant.memory.arena_bytes,
                    }
                    for variant in run.report.variants
                ],
            }
            for run in runs
        ],
        "differs": [what for what, values in _differing(runs).items()],
    }


def answer(runs: Sequence[Run]) -> str:
    """Which picks are best in what."""
    merits: dict[str, list[str]] = {}
    for words, read in _merits(runs):
        known = [(value, run.name) for run in runs if (value := read(run, run.pick)) is not None]
        if len(known) == len(runs) and len({value for value, _ in known}) > 1:
            winners = [name for value, name in known if value == min(known)[0]]
            merits.setdefault(" and ".join(winners), []).append(words)
    won = [f"{' and the '.join(words)}: {names}" for names, words in merits.items()]
    if won:
        return f"Of the picks, {'; '.join(won)}."
    return (
        "The picks have the same figures." if _shared_metric(runs) else "What can be compared of the picks is the same."
    )


def blocks(runs: Sequence[Run]) -> list[tuple[str, list[Block]]]:
    """Title and content of each part of the page."""
    parts: list[tuple[str, list[Block]]] = [
        ("Picks", [picks_table(runs)]),
        ("Quality against cost", _figures(runs)),
        ("What was done differently", _settings(runs)),
        ("All variants", [_variants(runs)]),
    ]
    return [(title, content) for title, content in parts if content]


def render(runs: Sequence[Run]) -> str:
    """The page as text; the same reports give the same bytes."""
    from edgeprune.report.views import environment

    return environment().get_template("runs.html").render(runs=runs, answer=answer(runs), parts=blocks(runs))


def _shared_metric(runs: Sequence[Run]) -> Metric | None:
    """The metric, if all runs go by the same one, on as many test samples: on others it says nothing about which run is
    better. Where the data lie is no matter."""
    found = {
        (m.name, m.higher_is_better, m.points, run.report.data.test): m for run in runs for m in (run.report.metric,)
    }
    return next(iter(found.values())) if len(found) == 1 else None


def _estimator(run: Run) -> tuple[str, int, str | int] | None:
    """What the estimated latencies of a run are about, and who estimates."""
    guess = run.pick.latency.estimated
    return (run.report.target.name, guess.threads, guess.model_version) if guess else None


def _estimated(run: Run, variant: Variant) -> float | None:
    return variant.latency.estimated.median_ms if variant.latency.estimated else None


def _merits(runs: Sequence[Run]) -> list[tuple[str, Read]]:
    """What picks are compared by, less being better; only what is about the same thing in all runs."""
    metric = _shared_metric(runs)
    rules: list[tuple[bool, str, Read]] = [
        (metric is not None, f"best {fmt.metric_word(metric)}" if metric else "", _loss),
        (True, "smallest file", lambda run, variant: variant.bytes),
        (len(set(map(_estimator, runs))) == 1, "lowest estimated latency", _estimated),
    ]
    return [(words, read) for holds, words, read in rules if holds]


def _loss(run: Run, variant: Variant) -> float | None:
    if variant.metric is None or not math.isfinite(variant.metric.value):
        return None
    return -variant.metric.value if run.report.metric.higher_is_better else variant.metric.value


def picks_table(runs: Sequence[Run]) -> Table:
    """A row per run."""
    first, metric = runs[0], _shared_metric(runs)
    several_targets = len({run.report.target.name for run in runs}) > 1

    def quality(run: Run) -> Cell:
        shown = fmt.metric_value(run.report.metric, run.pick.metric.value if run.pick.metric else None)
        note = None if metric else fmt.metric_word(run.report.metric)
        return Cell(shown.text, shown.exact, note, tone=shown.tone)

    def change(run: Run) -> Cell:
        values = [one.pick.metric.value if one.pick.metric else None for one in (run, first)]
        if run is first:
            return Cell("first")
        if metric is None or values[0] is None or values[1] is None:
            return fmt.absent("not the same metric or test data, or not measured")
        return fmt.difference(metric, values[0], values[1])

    entries: list[tuple[Column, Callable[[Run], Cell]]] = [
        (
            Column("Run", numeric=False, code=True),
            lambda run: Cell(run.name),
        ),
        *([(Column("Target", numeric=False), lambda run: Cell(run.report.target.name))] if several_targets else []),
        (Column("Pick", numeric=False, code=True), lambda run: Cell(run.report.pick)),
        (Column(fmt.metric_name(metric) if metric else "Metric", "on test"), quality),
        (Column("Change", "against the first"), change),
        (Column("File", "as it is"), lambda run: fmt.size(run.pick.bytes)),
        (Column("gzip", "compressed", level=IN_HTML), lambda run: fmt.size(run.pick.gzip_bytes)),
        (Column("MACs", level=IN_HTML), lambda run: fmt.count(run.pick.macs, "multiply-accumulates")),
        (Column("Arena", level=IN_HTML), lambda run: fmt.size(run.pick.memory.arena_bytes)),
        *_latencies(runs),
        (Column("Gates", numeric=False), _gates),
    ]
    rows = [[cell(run) for _, cell in entries] for run in runs]
    return Table("The pick of each run.", [column for column, _ in entries], rows)


def _latencies(runs: Sequence[Run]) -> list[tuple[Column, Callable[[Run], Cell]]]:
    """A column per estimator, then one per way of measuring: figures of different kinds never share one."""
    estimators = dict.fromkeys(filter(None, map(_estimator, runs)))
    setups = dict.fromkeys(Setup.of(entry) for run in runs for entry in run.pick.latency.measured[:1])
    return [*map(_estimated_column, estimators), *map(_measured_column, setups)]


def _estimated_column(key: tuple[str, int, str | int]) -> tuple[Column, Callable[[Run], Cell]]:
    def cell(run: Run) -> Cell:
        return _milliseconds(_estimated(run, run.pick) if _estimator(run) == key else None)

    note = f"{threads(key[1])}, latency model {key[2]}"
    return Column(key[0], note, "Latency, estimated", latency="estimated"), cell


def _measured_column(setup: Setup) -> tuple[Column, Callable[[Run], Cell]]:
    def cell(run: Run) -> Cell:
        entry = setup.find(run.pick)
        return _milliseconds(entry.median_ms if entry else None)

    note = f"{setup.software}; {setup.details}" if setup.details else setup.software
    return Column(setup.place, note, "Latency, measured", level=IN_HTML, latency="measured"), cell


def _milliseconds(value: float | None) -> Cell:
    return fmt.absent() if value is None else Cell(fmt.milliseconds(value), f"{fmt.plain(value)} ms")


def _gates(run: Run) -> Cell:
    if not gates_line(run.report) and not run.report.regression:
        return fmt.absent("none were set")
    return Cell("passed", tone="good") if run.report.passed else Cell("missed", tone="bad")


def _figures(runs: Sequence[Run]) -> list[Block]:
    """Every variant of every run, where all have the same metric on the same data; the points of a run are joined."""
    metric = _shared_metric(runs)
    if metric is None:
        return []
    costs: list[tuple[str, str, float, Read]] = [("File size (kB)", "file size", 1e-3, lambda _, one: one.bytes)]
    if len(set(map(_estimator, runs))) == 1 and (key := _estimator(runs[0])):
        label = f"Estimated latency on {key[0]} (ms)\n{threads(key[1])}, latency model {key[2]}"
        costs.append((label, "estimated latency", 1.0, _estimated))
    drawn = [_scatter(runs, metric, f"runs{number}", *cost) for number, cost in enumerate(costs)]
    return [Figures(drawn)]


def _scatter(
    runs: Sequence[Run], metric: Metric, prefix: str, label: str, words: str, factor: float, read: Read
) -> Figure:
    times, unit = (100, " (%)") if fmt.is_percent(metric) else (1, "")
    points = [
        Point(
            run.name if one is run.pick else "",
            factor * cost,
            times * one.metric.value,
            pick=one is run.pick,
            baseline=one.baseline,
            series=run.name,
        )
        for run in runs
        for one in run.report.variants
        if (cost := read(run, one)) is not None and one.metric and math.isfinite(one.metric.value)
    ]
    points.sort(key=lambda point: point.x)  # the line of a run goes from left to right
    name = fmt.metric_name(metric)
    listed = "; ".join(f"{p.name} at {fmt.short(p.x)}, {fmt.short(p.y, 4)}" for p in points if p.pick)
    return Figure(
        draw=partial(scatter, points, label, f"{name}{unit}", metric.higher_is_better, prefix),
        alt=f"Scatter plot of all variants of all runs, {' '.join(label.split())} against {name}. Picks: {listed}.",
        caption=f"{name} against {words}; the variants of a run are joined, and its pick is named.",
    )


_SETTINGS: dict[str, Callable[[Run], Any]] = {
    "model": lambda run: run.report.model.name,
    "target": lambda run: run.report.target.name,
    "recipe": lambda run: run.report.recipe,
    "data": lambda run: run.report.data.source,
    "test_samples": lambda run: run.report.data.test,
    "metric": lambda run: run.report.metric.name,
    "seed": lambda run: run.report.seed,
    "deterministic": lambda run: run.report.deterministic,
    "edgeprune_version": lambda run: run.report.edgeprune_version,
    "tensorflow": lambda run: run.report.environment.get("tensorflow"),
    "runtime": lambda run: run.report.environment.get("runtime"),
    "cpu": lambda run: run.report.environment.get("cpu"),
    "created": lambda run: run.report.created,
}


def _differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    found = {what: [read(run) for run in runs] for what, read in _SETTINGS.items()}
    return {what: values for what, values in found.items() if any(value != values[0] for value in values)}


def _settings(runs: Sequence[Run]) -> list[Block]:
    columns = [Column("Setting", numeric=False), *(Column(run.name, numeric=False) for run in runs)]
    rows = [
        [Cell(what.replace("_", " ")), *(fmt.absent("not known") if v is None else Cell(str(v)) for v in values)]
        for what, values in _differing(runs).items()
    ]
    return [Table("Settings that are not the same in all runs.", columns, rows)] if rows else []


def _variants(runs: Sequence[Run]) -> Table:
    """Every variant of every run."""
    columns = [
        Column("Variant", numeric=False, code=True), Column("Run", numeric=False, code=True),
        Column("Metric", "on test"), Column("Change", "against the run's baseline"), Column("File"), Column("gzip"),
        Column("Sparsity"), Column("MACs"), Column("Arena"), Column("Latency", "estimated on the run's target"),
    ]  # fmt: skip
    rows = [
        [
            Cell(one.name, badges=badges(run.report, one)),
            Cell(run.name),
            fmt.metric_value(run.report.metric, one.metric.value if one.metric else None),
            fmt.change(run.report.metric, one, run.report.baseline),
            fmt.size(one.bytes),
            fmt.size(one.gzip_bytes),
            fmt.share(one.weight_sparsity, "of the weights are zero"),
            fmt.count(one.macs, "multiply-accumulates"),
            fmt.size(one.memory.arena_bytes),
            _milliseconds(_estimated(run, one)),
        ]
        for run in runs
        for one in run.report.variants
    ]
    return Table("Every variant of every run.", columns, rows)
