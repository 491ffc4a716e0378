"""``edgeprune check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import load_given, model_options
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.checking.finding import Finding
    from edgeprune.models.sizes import InputShapes
    from edgeprune.target import Target


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="The board: a name from `edgeprune targets list`, or a TOML file.")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def check(
    model: Path,
    target: str,
    trust_model: bool,
    custom_objects: Path | None,
    input_shape: InputShapes | None,
    as_json: bool,
) -> None:
    """What of MODEL will not run, or not run fast, on a target, and what to change.

    MODEL is a .tflite file, or a Keras model, trained or not: it is converted with noise for calibration, and the
    findings name its layers. Exit code 1 when something will not run.
    """
    import json

    from edgeprune._tensorflow import import_tf
    from edgeprune.checking.model import check as find
    from edgeprune.convert.converter import CONVERTER
    from edgeprune.runtime.interpreter import INTERPRETER
    from edgeprune.target import load_target

    chosen = load_target(target)
    is_file = model.suffix == ".tflite"
    if is_file and input_shape:
        raise UsageError(
            f"{model} is a .tflite file, whose sizes are fixed.", expected="--input-shape with a Keras model only."
        )
    if not is_file:
        INTERPRETER.start()
        import_tf()
        CONVERTER.start()
    loaded = model if is_file else load_given(str(model), trust_model, custom_objects, input_shape)
    findings = find(loaded, chosen)
    if as_json:
        document = {"model": str(model), "target": chosen.name, "findings": [item.to_dict() for item in findings]}
        click.echo(json.dumps(document, indent=2))
    else:
        _print(findings, model, chosen)
    if any(item.severity == "error" for item in findings):
        click.get_current_context().exit(1)


def _print(findings: list[Finding], model: Path, target: Target) -> None:
    from rich.console import Console
    from rich.text import Text

    from edgeprune.checking.check import AS_IT_IS

    styles = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    console = Console()
    console.print(Text(f"{model} on {target.name}: {_counts(findings)}"))
    for item in findings:
        text = Text.assemble(("\n" + item.severity, styles[item.severity]), f": {item.what}")
        where = ", ".join(item.where[:6]) + (f" and {len(item.where) - 6} more" if len(item.where) > 6 else "")
        formats = ", ".join(name for name in item.formats if name != AS_IT_IS)
        details = [("in", where), ("fix", item.fix), ("format", formats)]
        lines = [f"  {name}: {value}" for name, value in details if value]
        console.print(Text("\n").join([text, *map(Text, lines)]))


def _counts(findings: list[Finding]) -> str:
    from collections import Counter

    counts = Counter(item.severity for item in findings)
    words = [f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items()]
    return ", ".join(words) or "nothing found"
