"""``edgeprune init``."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.errors import UsageError


@click.command()
@click.option("--force", is_flag=True, help="Replace an edgeprune.toml that is there.")
def init(force: bool) -> None:
    """Write a commented edgeprune.toml into this folder."""
    import importlib.resources

    from edgeprune.files import write_bytes
    from edgeprune.schemas import schema_path

    path = Path("edgeprune.toml")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already.", fix="use --force to replace it.")
    template = importlib.resources.files("edgeprune.recipe").joinpath("template.toml.txt")
    # Editors complete and check the file by the schema that this line names (taplo, Even Better TOML, tombi).
    schema = f"#:schema {schema_path('recipe').as_uri()}\n"
    write_bytes(path, schema.encode() + template.read_bytes())
    click.echo(f"Wrote {path}. Edit it, then: edgeprune build MODEL --data FOLDER --target rpi4")
