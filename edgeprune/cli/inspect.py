"""``edgeprune inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import load_given, model_options

if TYPE_CHECKING:
    from edgeprune.models.sizes import InputShapes


@click.command()
@click.argument("model", type=click.Path())
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def inspect(
    model: str, trust_model: bool, custom_objects: Path | None, input_shape: InputShapes | None, as_json: bool
) -> None:
    """Layers, parameters and MACs of MODEL, and the groups of filters that can be pruned."""
    import json

    loaded = load_given(model, trust_model, custom_objects, input_shape)
    from edgeprune.prune.inspection import inspect_model

    facts = inspect_model(loaded)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console

    from edgeprune.cli.tables import inspection_tables

    console = Console()
    if facts["note"]:
        console.print(facts["note"])
    for table in inspection_tables(facts):
        console.print(table)
