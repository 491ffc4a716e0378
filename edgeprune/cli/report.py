"""``edgeprune report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN [RUN …]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="The page to write.  [default: report.html in the folder of one run; runs.html for several]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else; write only --out.")
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """The report of a run folder once more, or one page that compares several.

    RUN is the folder of a finished build, or its report.json. The pages of one RUN are written again from it.
    """
    from edgeprune.report.runs import read_runs

    (_one if len(runs) == 1 else _several)(read_runs(runs), runs, out, as_json)


def _one(found: Any, runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    from edgeprune.files import write_bytes
    from edgeprune.report.terminal import terminal
    from edgeprune.report.views import render, write_views

    parsed = found[0].report
    folder = runs[0] if runs[0].is_dir() else runs[0].parent
    if out:
        write_bytes(out, render(parsed, "report.html", folder).encode())
    if as_json:
        click.echo((runs[0] / "report.json" if runs[0].is_dir() else runs[0]).read_text("utf-8"), nl=False)
        return
    if not out:
        write_views(parsed, folder)
    _print(terminal(parsed, folder))


def _several(found: Any, runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    import json

    from edgeprune.files import write_bytes
    from edgeprune.report.runs import answer, comparison, picks_table, render
    from edgeprune.report.terminal import drawn

    if out or not as_json:
        out = out or Path("runs.html")
        write_bytes(out, render(found).encode())
    if as_json:
        click.echo(json.dumps(comparison(found), indent=2, ensure_ascii=False))
        return
    _print(drawn(picks_table(found)), answer(found), f"{out}: all variants, plots, and what was done differently.")


def _print(*parts: Any) -> None:
    from rich.console import Console

    console = Console()
    for part in parts:
        console.print(part, highlight=False)
