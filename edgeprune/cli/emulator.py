"""``edgeprune emulator``."""

from __future__ import annotations

import json

import click


@click.group()
def emulator() -> None:
    """An emulated Raspberry Pi 4 (Cortex-A72) that counts instructions."""


@emulator.command()
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="'NAME VERSION'",
    help="Also add this release of a runtime, such as 'ai-edge-litert 1.4.0'; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def setup(runtimes: tuple[str, ...], as_json: bool) -> None:
    """Build the emulated board in the cache folder (about 200 MB), from Debian's arm64 packages and PyPI's wheels.

    Every download's hash is checked. Root is not needed, but QEMU and gcc are: sudo apt install qemu-user gcc libc6-dev
    """
    from edgeprune.cli.progress import TerminalProgress
    from edgeprune.devices.emulator_home import Home
    from edgeprune.devices.emulator_setup import add_runtime
    from edgeprune.devices.emulator_setup import setup as set_up

    home = Home()
    with TerminalProgress() as progress:
        done = set_up(home, progress)
        for runtime in runtimes:
            add_runtime(home, runtime, progress)
    if as_json:
        click.echo(json.dumps({"folder": str(home.folder), **done}, indent=2))
        return
    click.echo(f"The emulated board is ready in {home.folder} ({done['bytes'] / 1e6:.0f} MB).")
