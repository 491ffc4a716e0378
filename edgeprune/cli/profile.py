"""``edgeprune profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeprune.hardware.latency.estimate import KernelSet


@click.command()
@click.argument("file", type=click.Path())
@click.option("--target", required=True, help="The board: a name from `edgeprune targets list`, or a TOML file.")
@click.option(
    "--kernels",
    type=click.Choice(["builtin", "xnnpack", "edgetpu"]),
    help="Kernels to estimate latency for.  [default: the target's]",
)
@click.option("--threads", type=int, help="Threads that one inference may use.  [default: the target's]")
@click.option(
    "--runtime", help="A runtime that you will install on the board: 'ai-edge-litert 2.1.6'.  [default: the target's]"
)
@click.option("--plot", type=click.Path(path_type=Path), help="Write latency.png and memory.png into this folder.")
@click.option(
    "--model-explorer",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write each figure of the operators as node data for Google's Model Explorer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def profile(
    file: str,
    target: str,
    kernels: KernelSet | None,
    threads: int | None,
    runtime: str | None,
    plot: Path | None,
    model_explorer: Path | None,
    as_json: bool,
) -> None:
    """Size, memory and operators of a .tflite FILE, and how long it should take on the target."""
    import json

    from edgeprune.profiling.profile import profile as profile_file
    from edgeprune.target import load_target, with_runtime

    chosen = load_target(target)
    chosen = with_runtime(chosen, runtime) if runtime else chosen
    found = profile_file(file, chosen, kernels=kernels, threads=threads)
    document = found.to_dict()
    if model_explorer:
        from edgeprune.profiling.model_explorer import write_node_data

        write_node_data(found, model_explorer)
    if plot:
        from edgeprune.report.profile_plots import write_pngs

        write_pngs(document, plot)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from rich.console import Console

    from edgeprune.cli.tables import profile_table

    Console().print(profile_table(document))
