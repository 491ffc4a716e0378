"""``edgeprune emulator``."""

from __future__ import annotations

import json
from typing import Any

import click


@click.group()
def emulator() -> None:
    """An emulated Raspberry Pi 4 (Cortex-A72) that counts instructions."""


@emulator.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def setup(as_json: bool) -> None:
    """Build it in the cache folder from Debian's arm64 packages and PyPI's aarch64 wheels (about 200 MB).

    Every download's hash is checked. No root; needs QEMU and gcc: sudo apt install qemu-user gcc libc6-dev
    """
    from edgeprune.cli.progress import TerminalProgress
    from edgeprune.devices.emulator_home import Home
    from edgeprune.devices.emulator_setup import setup as set_up

    home = Home()
    with TerminalProgress() as progress:
        done = set_up(home, progress)
    if as_json:
        click.echo(json.dumps({"folder": str(home.folder), **done}, indent=2))
        return
    click.echo(f"The emulated board is ready in {home.folder} ({done['bytes'] / 1e6:.0f} MB).")


@emulator.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--runtime", default="ai-edge-litert", show_default=True, help="Or tflite-runtime.")
@click.option("--delegate", default="default", show_default=True, help="Or builtin: without XNNPACK.")
@click.option("--operators", is_flag=True, help="Count per operator, too.")
@click.option("--max-instructions", type=click.IntRange(min=1), help="Exit with 1 when a file needs more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def count(
    files: tuple[str, ...], runtime: str, delegate: str, operators: bool, max_instructions: int | None, as_json: bool
) -> None:
    """Count the instructions of one inference of .tflite FILES. A count is exact and repeatable; it is not a time."""
    from pathlib import Path

    from edgeprune.devices.protocol import Job, open_device, tool_of

    job = Job(files=tuple(Path(file) for file in files), delegate=delegate, profile_operators=operators)
    with open_device(f"emulator://{runtime}") as device:
        results = tool_of(device)(device, job)
    gates = [
        {"name": "max_instructions", "file": file, "limit": max_instructions, "value": result["instructions"],
         "passed": result["instructions"] <= max_instructions}
        for file, result in zip(files, results, strict=True) if max_instructions
    ]  # fmt: skip
    if as_json:
        documents = [{"file": file, **result} for file, result in zip(files, results, strict=True)]
        click.echo(json.dumps({"results": documents, "gates": gates}, indent=2))
    else:
        _print(files, results)
    broken = [gate for gate in gates if not gate["passed"]]
    for gate in broken:
        click.echo(
            f"edgeprune: {gate['file']} needs {gate['value']:,} instructions; the limit is {gate['limit']:,}.", err=True
        )
    if broken:
        raise SystemExit(1)


def _print(files: tuple[str, ...], results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = results[0]
    table = Table(title=f"{first['device']}, {first['runtime']}, {first['threads']} thread, one inference")
    table.add_column("File", overflow="fold")
    table.add_column("Kernels")
    table.add_column("Instructions", justify="right")
    for file, result in zip(files, results, strict=True):
        table.add_row(file, result["kernels"], f"{result['instructions']:,}")
    console = Console()
    console.print(table)
    for file, result in zip(files, results, strict=True):
        if "operators" not in result:
            continue
        table = Table(title=file)
        for name in ("#", "Operator"):
            table.add_column(name)
        table.add_column("Output", no_wrap=True, max_width=30)
        for name in ("Instructions", "Share"):
            table.add_column(name, justify="right")
        for part in result["operators"]:
            share = f"{part['instructions'] / result['instructions']:.1%}"
            table.add_row(str(part["index"]), part["name"], part["output"], f"{part['instructions']:,}", share)
        console.print(table)
