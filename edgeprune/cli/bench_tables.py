"""The tables that ``edgeprune bench`` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from edgeprune.devices.explain import words_of_threads
from edgeprune.files import JsonObject

# A row of the table: label, key of a result, how its value is shown.
Row = tuple[str, str, Callable[[Any], str]]
_ROWS: tuple[Row, ...] = (
    ("runtime", "runtime", str),
    ("kernels", "kernels", str),
    ("threads", "threads", str),
    ("runs", "runs", lambda value: f"{value:,}"),
    ("loading (ms)", "init_ms", lambda value: f"{value:.2f}"),
    ("first inference (ms)", "first_ms", lambda value: f"{value:.3f}"),
    ("median (ms)", "median_ms", lambda value: f"{value:.3f}"),
    ("5th percentile (ms)", "p5_ms", lambda value: f"{value:.3f}"),
    ("95th percentile (ms)", "p95_ms", lambda value: f"{value:.3f}"),
    ("fastest (ms)", "min_ms", lambda value: f"{value:.3f}"),
    ("slowest (ms)", "max_ms", lambda value: f"{value:.3f}"),
    ("mean (ms)", "mean_ms", lambda value: f"{value:.3f}"),
    ("standard deviation (ms)", "std_ms", lambda value: f"{value:.3f}"),
    ("instructions", "instructions", lambda value: f"{value:,}"),
    ("peak memory (MiB)", "peak_bytes", lambda value: f"{value / 2**20:.1f}"),
)
# Rows whose values are given as before → after the measurement.
_CIRCUMSTANCES: tuple[Row, ...] = (
    ("governor", "governor", str),
    ("clock (MHz)", "clock_hz", lambda value: f"{value / 1e6:,.0f}"),
    ("temperature (°C)", "temperature_c", lambda value: f"{value:.1f}"),
    ("throttling", "throttling", lambda value: ", ".join(value) or "none"),
)
_OPERATORS_SHOWN = 10


def bench_tables(document: JsonObject) -> Iterator[Table | Text]:
    """The results of a measurement, without rows for figures that were not measured."""
    results = document["results"]
    table = Table(title=Text(results[0].get("device", document["device"]["address"])))
    table.add_column("")
    for result in results:
        table.add_column(Text(Path(result["file"]).name + ("" if result.get("complete", True) else " (interrupted)")))
    for label, key, show in _ROWS:
        values = [result.get(key) for result in results]
        if any(value is not None for value in values):
            table.add_row(label, *(Text("–" if value is None else show(value)) for value in values))
    _add_circumstances(table, results)
    _add_accuracy(table, results)
    yield table
    for result in results:
        if result.get("operators"):
            yield _operators(result)
        if result.get("explained"):
            yield from _explained(Path(result["file"]).name, result["explained"])
    if document["comparison"]:
        yield Text(_comparison(document["comparison"]), "bold")
    for warning in document.get("warnings", ()):
        yield Text(f"Warning: {warning}", "yellow")


def _add_circumstances(table: Table, results: list[JsonObject]) -> None:
    for label, key, show in _CIRCUMSTANCES:
        pairs = [[(result.get(moment) or {}).get(key) for moment in ("before", "after")] for result in results]
        if any(value is not None for pair in pairs for value in pair):
            shown = [" → ".join("–" if value is None else show(value) for value in pair) for pair in pairs]
            table.add_row(label, *map(Text, shown))


def _add_accuracy(table: Table, results: list[JsonObject]) -> None:
    accuracies = [result.get("accuracy") for result in results]
    known = next((one for one in accuracies if one), None)
    if known is None:
        return
    for label, show in _figures(known):
        cells = ["–" if not one else show(one) for one in accuracies]
        table.add_row(Text(f"{label}, {known['samples']} samples"), *map(Text, cells))


def _figures(known: JsonObject) -> Iterator[tuple[str, Callable[[JsonObject], str]]]:
    """Labels, and what each shows of a result's ``accuracy``."""
    from edgeprune.report import format as fmt
    from edgeprune.report.schema import Metric

    if known["metric"] is not None:
        name = known["metric"]["name"]
        facts = known["metrics"][name]
        metric = Metric(name=name, higher_is_better=facts["higher_is_better"], points=facts["points"])
        for key, where in (("value", "the device"), ("host_value", "this machine")):
            yield f"{name} on {where}", lambda one, key=key: fmt.metric_value(metric, one["metric"][key]).text  # type: ignore[misc]
    if known["top1_agreement"] is not None:
        yield "same class on both", lambda one: _percent(one["top1_agreement"])
    else:
        yield "agreement of both", lambda one: _percent(one["agreement"])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _operators(result: JsonObject) -> Table:
    counted = "instructions" in result
    key, unit, show = ("instructions", "instructions", "{:,}") if counted else ("mean_ms", "ms", "{:.3f}")
    rows = sorted(result["operators"], key=lambda row: -row[key])
    whole = sum(row[key] for row in rows) or 1.0
    table = Table(
        title=Text(f"{Path(result['file']).name}: {'costliest' if counted else 'slowest'} of {len(rows)} operators")
    )
    for name in ("operator", "name", unit, "share"):
        table.add_column(name, justify="right" if name in (unit, "share") else "left")
    for row in rows[:_OPERATORS_SHOWN]:
        table.add_row(Text(row["type"]), Text(row["name"]), show.format(row[key]), f"{row[key] / whole:.1%}")
    return table


def _explained(name: str, explained: JsonObject) -> Iterator[Table | Text]:
    """Where the time goes, simulated: a row per operator in order, and the whole file below."""
    levels = [f"L{level + 1} misses" for level in range(len(explained["misses"]))]
    times = [f"ms, {words_of_threads(each['threads'])}" for each in explained["simulated"]]
    table = Table(title=Text(f"{name} on {explained['target']}, simulated"))
    table.add_column("operator", overflow="fold")
    for column in ("instructions (k)", "cycles (k)", *levels, "memory (kB)", *times):
        table.add_column(column, justify="right")
    for operator in explained["operators"]:
        table.add_row(*_work(operator["type"], operator, operator["simulated_ms"]))
    table.add_section()
    table.add_row(*_work("whole file", explained, [each["ms"] for each in explained["simulated"]]))
    yield table
    for each in explained["simulated"]:
        parts = ", ".join(f"{part} {each[f'{part}_ms']:.3f}" for part in ("compute", "memory", "operators"))
        yield Text(f"{words_of_threads(each['threads'])}: {each['ms']:.3f} ms simulated, of which {parts}")
    yield Text(explained["bound"], "bold")
    error = explained["median_error"]
    llvm = f"LLVM {explained['llvm']['version']}'s {explained['llvm']['cpu']}"
    if error is None:
        yield Text(f"Warning: simulated with {llvm}; on this core, nothing was compared with measured times.", "yellow")
    else:
        kernels = explained["kernels"]
        yield Text(f"Simulated with {llvm}: median error {error:.0%} on published times of {kernels} kernels.")


def _work(label: str, work: JsonObject, times_ms: list[float]) -> Iterator[Text]:
    yield Text(label)
    for count in (work["instructions"], work["cycles"]):
        yield Text(f"{count / 1e3:,.1f}")
    for count in work["misses"]:
        yield Text(f"{count:,}")
    yield Text(f"{work['memory_bytes'] / 1e3:,.1f}")
    for value in times_ms:
        yield Text(f"{value:.3f}")


def _comparison(comparison: JsonObject) -> str:
    a, b = (Path(comparison[key]).name for key in "ab")
    if "instructions_ratio" in comparison:
        counted = f"{b} takes {comparison['instructions_ratio']:.3f} times as many instructions as {a}."
        explained = comparison.get("explained")
        return f"{counted}{_simulated_ratio(explained)}" if explained else counted
    text = f"{b} takes {comparison['ratio']:.3f} times as long as {a}"
    if comparison["low"] is None:
        return f"{text} ({comparison['rounds']} rounds: too few for an interval)."
    interval = f"{comparison['confidence']:.0%} interval {comparison['low']:.3f} to {comparison['high']:.3f}"
    return f"{text} ({interval}, {comparison['rounds']} rounds)."


def _simulated_ratio(explained: JsonObject) -> str:
    ratios = " and ".join(
        f"{each['ratio']:.3f} times as long on {words_of_threads(each['threads'])}" for each in explained["ratios"]
    )
    return f" Simulated, it takes {ratios}. {explained['because']}"
