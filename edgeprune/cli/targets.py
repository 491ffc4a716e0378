"""``edgeprune targets``."""

from __future__ import annotations

import json

import click


@click.group()
def targets() -> None:
    """The boards that edgeprune knows."""


@targets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def list_(as_json: bool) -> None:
    """Name every target."""
    from edgeprune.target import load_target, target_names

    found = [load_target(name) for name in target_names()]
    if as_json:
        click.echo(
            json.dumps([{"name": t.name, "title": t.title, "aliases": list(t.aliases)} for t in found], indent=2)
        )
        return
    width = max(len(target.name) for target in found)
    for target in found:
        also = f" (also: {', '.join(target.aliases)})" if target.aliases else ""
        click.echo(f"{target.name:<{width}}  {target.title}{also}")


@targets.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def show(name: str, as_json: bool) -> None:
    """Show what is known about target NAME, and where each fact comes from."""
    from edgeprune.target import load_target

    target = load_target(name)
    if as_json:
        click.echo(target.model_dump_json(indent=2))
        return
    import tomli_w

    click.echo(tomli_w.dumps(target.model_dump(mode="json", exclude_none=True)), nl=False)
