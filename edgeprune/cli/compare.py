"""``edgeprune compare``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from edgeprune.evaluate.files import Accuracy
    from edgeprune.profiling.compare import Comparison, Figure


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option(
    "--target", help="Also estimate latency on a board: a name from `edgeprune targets list`, or a TOML file."
)
@click.option("--data", help="Also compare metrics and outputs: a data source, as for `edgeprune build --data`.")
@click.option(
    "--recipe",
    help="A recipe, whose [data] and [task] say how to prepare the data and what to measure, such as recipe.toml of a "
    "run.  [default: ./edgeprune.toml]",
)
@click.option("--seed", default=0, show_default=True, help="Of the build: chooses the test part of data that has none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def compare(a: str, b: str, target: str | None, data: str | None, recipe: str | None, seed: int, as_json: bool) -> None:
    """Two .tflite files A and B side by side: sizes, memory, MACs, operators, and the metrics of their task if data is
    given."""
    import json

    from edgeprune.profiling.compare import compare as compare_files

    comparison = compare_files(a, b, target, data=data, recipe=recipe, seed=seed)
    if as_json:
        click.echo(json.dumps(comparison, indent=2))
        return
    from rich.console import Console

    console = Console()
    for part in _parts(comparison):
        console.print(part)


def _parts(comparison: Comparison) -> Iterator[Table | Text]:
    from rich.table import Table
    from rich.text import Text

    from edgeprune.profiling.compare import FIGURES

    whole = Table(title=f"A: {comparison['a']}\nB: {comparison['b']}")
    for name in ("", "A", "B", "change"):
        whole.add_column(name, justify="right" if name else "left")
    for key, (label, less_is_better) in FIGURES.items():
        pair = comparison["figures"][key]
        if key == "estimated_ms":
            if comparison["target"]:
                shown = _milliseconds(pair["a"]), _milliseconds(pair["b"])
                change = _change(pair, less_is_better, fraction=False)
                whole.add_row(f"{label} on {comparison['target']}", *shown, change)
        else:
            whole.add_row(label, _shown(pair["a"]), _shown(pair["b"]), _change(pair, less_is_better))
    if comparison["accuracy"]:
        _add_metrics(whole, comparison["accuracy"])
    yield whole
    for warning in comparison["accuracy"]["warnings"] if comparison["accuracy"] else ():
        yield Text(f"Warning: {warning}", "yellow")
    kinds = Table(title="by operator (bytes: weights stored, outputs written)")
    for name in ("operator", "type", "count", "MACs", "weight bytes", "output bytes"):
        kinds.add_column(name, justify="left" if name in ("operator", "type") else "right")
    for row in comparison["operators"]:
        cells = [_both(row, key) for key in ("count", "macs", "weight_bytes", "output_bytes")]
        kinds.add_row(row["operator"], _types(row), *cells)
    yield kinds
    if comparison["aligned"]:
        yield _one_by_one(comparison["aligned"], estimated=bool(comparison["target"]))


def _one_by_one(rows: Sequence[Mapping[str, Any]], *, estimated: bool) -> Table:
    from rich.table import Table

    table = Table(title="one by one (conversions of number formats left out)")
    keys = ["macs", "weight_bytes", "written_bytes", *(["estimated_ms"] if estimated else [])]
    for name in ("#", "operator", "output", "type", *(key.replace("_", " ") for key in keys)):
        table.add_column(name, justify="left" if name in ("operator", "output", "type") else "right")
    for place, row in enumerate(rows):
        shapes = ["x".join(map(str, row[side]["output_shape"])) for side in ("a", "b")]
        types = [row[side]["dtype"] or "–" for side in ("a", "b")]
        cells = [_both(row, key) for key in keys]
        table.add_row(str(place), row["operator"], _arrow(shapes), _arrow(types), *cells)
    return table


def _arrow(sides: list[str]) -> str:
    return sides[0] if sides[0] == sides[1] else " → ".join(sides)


def _milliseconds(value: Figure) -> str:
    return "–" if value is None else f"{value:.3g}"


def _types(row: Mapping[str, Any]) -> str:
    sides = [", ".join(row[side]["dtypes"]) if row[side] else "–" for side in ("a", "b")]
    return _arrow(sides)


def _shown(value: Figure) -> str:
    if value is None:
        return "–"
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _change(pair: Mapping[str, Any], less_is_better: bool | None, *, fraction: bool = True) -> Text:
    """The change as text, green when B is better.

    Args:
        pair: a, b and change.
        less_is_better: None when neither is.
        fraction: whether a float is a fraction, whose change is shown in points.
    """
    from rich.text import Text

    change = pair["change"]
    if not change:
        same = pair["a"] == pair["b"]
        return Text("same" if same else "differs", style="dim" if same else "yellow")
    if isinstance(change, float) and fraction:
        text = f"{change * 100:+.1f} points"
    else:
        text = f"{change / pair['a']:+.1%}" if pair["a"] else f"{change:+,}"
    style = "yellow" if less_is_better is None else "green" if (change < 0) == less_is_better else "red"
    return Text(text, style=style)


def _add_metrics(table: Table, accuracy: Accuracy) -> None:
    """A row per metric, then how far B's outputs are from A's."""
    from rich.text import Text

    from edgeprune.report import format as fmt
    from edgeprune.report.schema import Metric

    samples = f"{accuracy['samples']:,} test samples"
    styles = {"good": "green", "bad": "red"}
    for name, pair in accuracy["metrics"].items():
        metric = Metric(name=name, higher_is_better=pair["higher_is_better"], points=pair["points"])
        a, b = pair["values"]
        change = fmt.difference(metric, b, a)
        shown = [fmt.metric_value(metric, value).text for value in (a, b)]
        table.add_row(Text(f"{name} on {samples}"), *shown, Text(change.text, styles.get(change.tone, "dim")))
    for name, output in accuracy["outputs"].items():
        of = f" of {name}" if len(accuracy["outputs"]) > 1 else ""
        table.add_row(Text(f"agreement{of} with A on {samples}"), "", f"{output['agreement']:.2%}", "")
        table.add_row(Text(f"largest difference{of} from A"), "", f"{output['max_abs_difference']:.3g}", "")


def _both(row: Mapping[str, Any], key: str) -> Text:
    """'3' if both values are 3, else '3 → 2', green if B's is smaller."""
    from rich.text import Text

    a, b = ((row[side] or {}).get(key) or 0 for side in ("a", "b"))
    shown = [f"{value:.3f}" if isinstance(value, float) else f"{value:,}" for value in (a, b)]
    return Text(_arrow(shown), style="dim" if a == b else "green" if b < a else "red")
