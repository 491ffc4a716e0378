"""``edgeprune search``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import LIMITS, memory_options, model_options

if TYPE_CHECKING:
    from edgeprune.searching.results import SearchResult


@click.command()
@click.argument("model", required=False)
@click.option(
    "--target", required=True, multiple=True, help="The board; may be given again, for a front of each of several."
)
@click.option("--data", help="Folder of class folders, .npz, module:function, file.py:function, or demo.")
@click.option(
    "--recipe",
    help="What is varied, and within what, if it has [search].  [default: ./edgeprune.toml, else what suits]",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/MODEL-search]")
@click.option(
    "--max-drop",
    metavar="DROP",
    help="Goal: what may be lost against the unpruned float32 file: points of a metric that is a fraction (1), or a "
    "part of any metric's value (5%).",
)
@click.option("--max-size", type=int, help="Goal: largest size, in bytes.")
@click.option("--max-latency", type=float, help="Goal: largest latency on the target, in milliseconds.")
@memory_options("Goal")
@click.option(
    "--objective",
    metavar="NAMES",
    help="What the front is about, of accuracy, latency, size, flash and download.  [default: accuracy,latency,size; "
    "on microcontrollers accuracy,flash]",
)
@click.option(
    "--trials", type=click.IntRange(min=1), help="Recipes to try for each target.  [default: 50, or --timeout]"
)
@click.option("--timeout", metavar="TIME", help="No trial goes on after it: 90s, 40m, 2h.")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Trials at a time.  [default: 1, with --ray one for each processor]"
)
@click.option(
    "--ray", metavar="ADDRESS|local", help="Run trials on a Ray cluster: HOST:PORT of its head, auto, or this machine."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")
@click.option(
    "--deterministic", is_flag=True, help="The same command on the same machine gives the same bytes. Slower."
)
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print search.json, and nothing else.")
def search(model: str | None, target: tuple[str, ...], as_json: bool, objective: str | None, **options: object) -> None:
    """Find the recipes of MODEL with the best accuracy, latency and size, and build the one that meets the goal.

    Without MODEL, a small CNN for handwritten digits is searched for. A search that was ended goes on where it stopped.
    """
    from edgeprune.cli.progress import TerminalProgress
    from edgeprune.searching.search import search as find
    from edgeprune.selection import Limits

    limits = Limits(**{name: options.pop(name) for name in LIMITS})  # type: ignore[arg-type]
    with TerminalProgress() as progress:
        result = find(
            model,
            target=target,
            limits=limits,
            objectives=objective,
            progress=progress,
            command=shlex.join(["edgeprune", *sys.argv[1:]]),
            **options,  # type: ignore[arg-type]
        )
    _print(result, as_json)
    if not result.met:
        click.get_current_context().exit(1)


def _print(result: SearchResult, as_json: bool) -> None:
    if as_json:
        click.echo((result.folder / "search.json").read_text("utf-8"), nl=False)
        return
    from rich.console import Console

    from edgeprune.cli.tables import front_table

    console = Console()
    for front in result.fronts.values():
        console.print(front_table(front))
        click.echo(front.message)
        click.echo(
            f"{front.folder} holds the pick; `edgeprune build --recipe {front.folder / 'recipe.toml'}` repeats it."
        )
    click.echo(f"{result.folder / 'report.html'} shows all trials.")
