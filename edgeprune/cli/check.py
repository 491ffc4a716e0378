"""``edgeprune check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeprune.check import Finding

_STYLES = {"error": "red", "warning": "yellow", "info": ""}


@click.command()
@click.argument("model", type=click.Path())
@click.option("--target", required=True, help="The board: a name from `edgeprune targets list`, or a TOML file.")
@click.option("--trust-model", is_flag=True, help="Let code in the model file run (Lambda layers).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def check(model: str, target: str, trust_model: bool, as_json: bool) -> None:
    """What of MODEL, a Keras model or a .tflite, will not run or not run fast on the target, and why.

    Nothing is trained or built. The exit code is 0 whatever is found.
    """
    import dataclasses
    import json

    from edgeprune.check import check as check_model
    from edgeprune.target import load_target

    board = load_target(target)
    found = check_model(model, board, trust=trust_model)
    if as_json:
        rows = [{"checker": name, **dataclasses.asdict(one)} for name, findings in found.items() for one in findings]
        click.echo(json.dumps({"model": model, "target": board.name, "findings": rows}, indent=2))
        return
    if not found:
        click.echo(f"Nothing to check for {board.name}.")
    for name, findings in found.items():
        _print(name, findings)


def _print(name: str, findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=name.replace("_", " "))
    for column in ("", "layer or operator", "what", "to change"):
        table.add_column(column)
    for one in findings:
        table.add_row(
            *(Text(text, _STYLES[one.severity]) for text in (one.severity, one.where, one.what, one.fix or ""))
        )
    Console().print(table)
