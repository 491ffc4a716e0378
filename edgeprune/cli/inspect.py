"""``edgeprune inspect``."""

from __future__ import annotations

import click


@click.command()
@click.argument("model", type=click.Path())
@click.option("--trust-model", is_flag=True, help="Let code in the model file run (Lambda layers).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def inspect(model: str, trust_model: bool, as_json: bool) -> None:
    """Layers, parameters and MACs of MODEL, and the groups of filters that can be pruned."""
    import json

    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.models.load import load_model
    from edgeprune.prune.inspection import inspect_model

    found = inspect_model(load_model(model, trust=trust_model))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    from edgeprune.cli.tables import inspection_tables

    console = Console()
    for table in inspection_tables(found):
        console.print(table)
