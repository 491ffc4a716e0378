"""``edgeprune profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import targets_option

if TYPE_CHECKING:
    from edgeprune.hardware.latency.estimate import KernelSet
    from edgeprune.profiling.profile import Profile


@click.command()
@click.argument("file", type=click.Path())
@targets_option
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
    target: tuple[str, ...],
    kernels: KernelSet | None,
    threads: int | None,
    runtime: str | None,
    plot: Path | None,
    model_explorer: Path | None,
    as_json: bool,
) -> None:
    """Size, memory and operators of a .tflite FILE, and how long it should take on the target.

    For several targets: milliseconds, memory, placement and warnings of each.
    """
    import json

    from edgeprune.errors import EdgepruneError
    from edgeprune.profiling.profile import profile as profile_file
    from edgeprune.target import load_targets, with_runtime

    boards = [with_runtime(board, runtime) if runtime else board for board in load_targets(target)]
    found: list[Profile] = []
    missing: dict[str, EdgepruneError] = {}
    for board in boards:
        try:
            found.append(profile_file(file, board, kernels=kernels, threads=threads))
        except EdgepruneError as error:  # such as a compiler that is not installed
            missing[board.name] = error
    if not found:
        raise next(iter(missing.values()))
    documents = [one.to_dict() for one in found]
    if model_explorer:
        from edgeprune.profiling.model_explorer import write_node_data

        for one in found:
            write_node_data(one, model_explorer if len(boards) == 1 else model_explorer / str(one.target))
    if plot:
        from edgeprune.report.profile_plots import write_pngs

        for document in documents:
            write_pngs(document, plot if len(boards) == 1 else plot / str(document["target"]))
    if as_json:
        without = [{"target": name, "what": lost.what, "fix": lost.fix} for name, lost in missing.items()]
        several = {"file": file, "targets": documents, "missing": without}
        click.echo(json.dumps(documents[0] if len(boards) == 1 else several, indent=2))
    else:
        from rich.console import Console

        from edgeprune.cli.tables import profile_table, targets_table

        Console().print(profile_table(documents[0]) if len(boards) == 1 else targets_table(documents))
    for name, lost in missing.items():
        click.echo(f"edgeprune: {name}: {lost}", err=True)
    if missing:
        click.get_current_context().exit(max(lost.exit_code for lost in missing.values()))
