"""``edgeprune profile``."""

from __future__ import annotations

import click


@click.command()
@click.argument("file", type=click.Path())
@click.option("--target", required=True, help="The board: a name from `edgeprune targets list`, or a TOML file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def profile(file: str, target: str, as_json: bool) -> None:
    """Size, memory and operators of a .tflite FILE, as far as the file itself tells."""
    import json

    from edgeprune.profile import profile as profile_file
    from edgeprune.target import load_target

    found = profile_file(file, load_target(target)).to_dict()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    from edgeprune.cli.tables import profile_table

    Console().print(profile_table(found))
