"""``edgeprune inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edgeprune.cli.options import load_given, model_options

if TYPE_CHECKING:
    from edgeprune.models.sizes import InputShapes


@click.command()
@click.argument("model", type=click.Path())
@model_options
@click.option("--target", help="A board: also show the milliseconds that channels save there, and what budgets leave.")
@click.option(
    "--mode",
    type=click.Choice(["int8", "float32"]),
    default="int8",
    show_default=True,
    help="The format of the file on the board; only with --target.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def inspect(
    model: str,
    trust_model: bool,
    custom_objects: Path | None,
    input_shape: InputShapes | None,
    target: str | None,
    mode: Literal["float32", "int8"],
    as_json: bool,
) -> None:
    """Layers, parameters and MACs of MODEL, and the groups of filters that can be pruned."""
    import json

    from edgeprune.target import load_target

    board = load_target(target) if target else None  # a wrong name is said before anything is loaded
    loaded = load_given(model, trust_model, custom_objects, input_shape)
    from edgeprune.errors import ModelError
    from edgeprune.prune.inspection import inspect_model

    facts = inspect_model(loaded)
    if board is not None:
        from edgeprune.models.sizes import for_a_look
        from edgeprune.tradeoff import channel_costs

        try:
            facts["on_target"] = channel_costs(for_a_look(loaded)[0], board, mode)
        except ModelError as error:  # of channels, the rest is known all the same
            why = f"What a channel costs on {board.name} is not known. {error.what}"
            facts["note"] = f"{facts['note']} {why}" if facts["note"] else why
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
