"""``edgeprune doctor``."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from edgeprune.external import find

BUILD = "pip install 'edgeprune[build]'"
# Package → what it is for, and how to install it.
PACKAGES = {
    "tensorflow": f"training and conversion: {BUILD}",
    "tf_keras": f"the Keras that models are pruned in: {BUILD}",
    "tensorflow-model-optimization": f"magnitude pruning and quantization-aware training: {BUILD}",
    "numpy": "arrays: pip install edgeprune",
}
RUNTIMES = {
    "ai-edge-litert": "runs .tflite files: pip install 'edgeprune[litert]'",
    "tflite-runtime": "runs .tflite files, the predecessor of ai-edge-litert: pip install 'edgeprune[tflite-runtime]'",
}
OPTIONAL = {
    "tflite-micro": "runs files as microcontrollers do, and says what RAM they take: pip install 'edgeprune[micro]'",
}
TOOLS = {
    "edgetpu_compiler": "compiles for Coral; Debian packages by Google, x86-64 only",
    "llvm-mca": "simulates where time goes on a Raspberry Pi (bench --explain): sudo apt install llvm",
    "vela": "compiles for Ethos-U: pip install 'edgeprune[vela]'",
}


@click.command()
def doctor() -> None:
    """What is installed, what is missing, and how to get it."""
    click.echo(f"Python {platform.python_version()} on {platform.platform()}")
    packages = [_line(name, purpose) for name, purpose in PACKAGES.items()]
    runtimes = [_line(name, purpose) for name, purpose in RUNTIMES.items()]
    click.echo("Optional tools, which are used when they are installed:")
    for name, purpose in OPTIONAL.items():
        _line(name, purpose)
    for name, purpose in TOOLS.items():
        where = find(name)
        click.echo(f"  {'ok     ' if where else 'missing'} {name}: {where or purpose}")
    _emulator()
    if all(packages) and any(runtimes):
        click.echo("edgeprune can build.")
        return
    from edgeprune.errors import MissingError

    raise MissingError(
        "Something that builds need is missing: profile, check and compare of .tflite files, bench on a board, encode "
        "and targets work.",
        fix=f"{BUILD}, or what is marked as missing above; one runtime for .tflite files is enough.",
    )


def _emulator() -> None:
    from edgeprune.devices.emulator_home import Home, qemu_version
    from edgeprune.errors import MissingError

    home = Home()
    try:
        home.require()
        line = f"ok      emulated Raspberry Pi, QEMU {qemu_version()}: {home.folder}"
    except MissingError as error:
        line = "missing emulated Raspberry Pi: " + " ".join(str(error).split("\n"))
    click.echo(f"  {line}")


def _line(name: str, purpose: str) -> bool:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        click.echo(f"  missing {name}: {purpose}")
        return False
    click.echo(f"  ok      {name} {version}")
    return True
