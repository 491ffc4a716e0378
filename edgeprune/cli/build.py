"""``edgeprune build``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import device_options, model_options

if TYPE_CHECKING:
    from edgeprune.report.schema import Report


@click.command()
@click.argument("model", required=False)
@click.option("--target", required=True, help="The board: a name from `edgeprune targets list`, or a TOML file.")
@click.option("--data", help="Folder of class folders, .npz, module:function, file.py:function, or demo.")
@click.option("--recipe", help="A built-in recipe or a TOML file.  [default: ./edgeprune.toml, else magnitude-int8]")
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/MODEL-TARGET]")
@click.option("--max-drop", type=float, help="Gate: points of the metric that the pick may lose.")
@click.option("--max-size", type=int, help="Gate: bytes of the pick.")
@click.option("--max-latency", type=float, help="Gate: milliseconds of the pick.")
@click.option("--seed", type=int, default=0, show_default=True, help="Every random choice derives from it.")
@click.option("--deterministic", is_flag=True, help="Same seed, same machine, same bytes. Slower.")
@click.option("--fresh", is_flag=True, help="Forget what an earlier run in the folder finished.")
@model_options
@click.option("--export-keras3", is_flag=True, help="Write the Keras models for Keras 3, too (.keras3.keras).")
@click.option("--verify/--no-verify", default=None, help="Check the removal of filters.  [default: as in the recipe]")
@click.option("--compress", is_flag=True, help="Write every .tflite as .tflite.gz, too.")
@click.option(
    "--device", help="Measure the variants there, too: host, emulator, ssh://USER@HOST[:PORT] or adb://SERIAL."
)
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print report.json, and nothing else.")
def build(model: str | None, target: str, as_json: bool, out: Path | None, **options: object) -> None:
    """Prune, fine-tune, quantize, convert and measure MODEL.

    MODEL is a Keras file (.keras, .h5) or a SavedModel folder; without it, a small CNN for handwritten digits is
    trained on the spot and built. A build that was broken off goes on where it was.
    """
    from edgeprune._tensorflow import import_tf
    from edgeprune.cli.progress import TerminalProgress
    from edgeprune.selection import Limits

    import_tf()
    from edgeprune.builder import build as build_model
    from edgeprune.builder import default_folder
    from edgeprune.devices.variants import OnDevice

    out = out or default_folder(model, target)
    limits = Limits(*(options.pop(name) for name in ("max_drop", "max_size", "max_latency")))  # type: ignore[arg-type]
    there = {name: options.pop(name) for name in ("python", "benchmark_binary")}
    if device := options.pop("device"):
        options["device"] = OnDevice(device, **there)  # type: ignore[arg-type]
    with TerminalProgress() as progress:
        report = build_model(
            model,
            target=target,
            out=out,
            limits=limits,
            progress=progress,
            command=shlex.join(["edgeprune", *sys.argv[1:]]),
            **options,  # type: ignore[arg-type]
        )
    _print(report, as_json, out)
    if not all(gate.passed for gate in report.gates):
        click.get_current_context().exit(1)


def _print(report: Report, as_json: bool, folder: Path) -> None:
    if as_json:
        click.echo((folder / "report.json").read_text("utf-8"), nl=False)
        return
    from rich.console import Console

    from edgeprune.report.terminal import terminal

    Console().print(terminal(report, folder))
