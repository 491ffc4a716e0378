"""``edgeprune targets``."""

from __future__ import annotations

import json
from pathlib import Path

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
    from edgeprune.target import load_target, to_toml

    target = load_target(name)
    click.echo(target.model_dump_json(indent=2) if as_json else to_toml(target), nl=as_json)


@targets.command()
@click.argument("name")
@click.option("--from", "table", type=click.Path(path_type=Path), required=True, help="CSV made by `edgeprune bench`.")
@click.option("--base", help="The target to start from.  [default: the one that the measurements name]")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.toml]")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def fit(name: str, table: Path, base: str | None, out: Path | None, force: bool) -> None:
    """Fit a target NAME of your own to measurements of a board.

    The result is a TOML file, to be used as --target FILE. Measure at least three models with each set of kernels; the
    more they differ, the better.
    """
    from edgeprune.errors import OutputError, TargetError
    from edgeprune.profile.measurements import base_name, fit_target, read_measurements
    from edgeprune.target import load_target, to_toml

    path = out or Path(f"{name}.toml")
    if path.exists() and not force:
        raise TargetError(f"{path} is there already.", fix="use --force to replace it, or --out for another file.")
    start = load_target(base or base_name(table))
    target = fit_target(name, start, read_measurements(table))
    try:
        path.write_text(to_toml(target), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}.", fix="choose another file with --out."
        ) from None
    assert target.latency is not None
    for kernels in ("builtin", "xnnpack"):
        if found := getattr(target.latency, kernels):
            score = found.heldout_median_error
            words = "too few files to measure the error" if score is None else f"{score:.1%} median error left out"
            click.echo(
                f"{kernels}: {found.measurements} measurements, {words}; 80 % range: factor {found.range_factor}"
            )
    click.echo(f"{path} written; use it as --target {path}")
