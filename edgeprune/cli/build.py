"""``edgeprune build``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import LIMITS, device_options, memory_options, model_options, targets_option
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.report.regression import Baseline
    from edgeprune.report.schema import Report
    from edgeprune.selection import Limits


@click.command()
@click.argument("model", required=False)
@targets_option
@click.option("--data", help="Folder of class folders, .npz, module:function, file.py:function, or demo.")
@click.option(
    "--recipe",
    multiple=True,
    help="A built-in recipe or a TOML file; may be given again, for the variants of several in one build.  "
    "[default: ./edgeprune.toml, else magnitude-int8 and filters30-int8]",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run folder.  [default: runs/MODEL-TARGET]")
@click.option(
    "--max-drop",
    metavar="DROP",
    help="Gate: what the pick may lose against the unpruned float32 file: points of a metric that is a fraction (1), "
    "or a part of any metric's value (5%).",
)
@click.option("--max-size", type=int, help="Gate: largest size of the pick, in bytes.")
@click.option("--max-latency", type=float, help="Gate: largest latency of the pick on the target, in milliseconds.")
@memory_options("Gate")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="REPORT.json",
    help="Gate: nothing gets worse than in an earlier build: its report.json, or its run folder.",
)
@click.option(
    "--max-regression-drop",
    metavar="DROP",
    help="What the metric may lose against --baseline: points of a fraction (1), or a part of any metric's value (2%). "
    " [default: the recipe's, else 1 or 2%]",
)
@click.option("--max-regression-size", metavar="PART", help="What a file may grow.  [default: the recipe's, else 1%]")
@click.option(
    "--max-regression-latency", metavar="PART", help="What a latency may grow.  [default: the recipe's, else 10%]"
)
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write gates, and figures compared with --baseline, as JUnit XML.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")
@click.option(
    "--deterministic", is_flag=True, help="The same command on the same machine gives the same bytes. Slower."
)
@click.option("--fresh", is_flag=True, help="Do not reuse the stages that an earlier build in the run folder finished.")
@model_options
@click.option("--export-keras3", is_flag=True, help="Also write the Keras models for Keras 3 (.keras3.keras).")
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Verify that removing filters gives the outputs of masking them.  [default: the recipe's]",
)
@click.option("--compress", is_flag=True, help="Also write every .tflite as .tflite.gz.")
@click.option(
    "--device",
    help="Also measure the variants for the first target on a device: host, emulator, ssh://USER@HOST[:PORT] or "
    "adb://SERIAL.",
)
@device_options
@click.option("--json", "as_json", is_flag=True, help="Print report.json, and nothing else.")
def build(model: str | None, target: tuple[str, ...], as_json: bool, out: Path | None, **options: object) -> None:
    """Prune, fine-tune, quantize, convert and measure MODEL.

    MODEL is a Keras file (.keras, .h5) or a SavedModel folder; without it, a small CNN for handwritten digits is
    trained on the spot and built. A build that was interrupted continues where it stopped.
    """
    from edgeprune._tensorflow import import_tf
    from edgeprune.cli.progress import TerminalProgress
    from edgeprune.convert.converter import CONVERTER
    from edgeprune.runtime.interpreter import INTERPRETER
    from edgeprune.selection import Limits

    limits = Limits(**{name: options.pop(name) for name in LIMITS})  # type: ignore[arg-type]
    options["baseline"] = _baseline(options)
    INTERPRETER.start()
    import_tf()
    CONVERTER.start()
    from edgeprune.builder import build as build_model
    from edgeprune.builder import default_folder
    from edgeprune.devices.variants import OnDevice

    out = out or default_folder(model, target)
    there = {name: options.pop(name) for name in ("python", "benchmark_binary")}
    if device := options.pop("device"):
        options["device"] = OnDevice(device, **there)  # type: ignore[arg-type]
    recipe = options.pop("recipe") or None
    with TerminalProgress() as progress:
        report = build_model(
            model,
            target=target,
            recipe=recipe,  # type: ignore[arg-type]
            out=out,
            limits=limits,
            progress=progress,
            command=shlex.join(["edgeprune", *sys.argv[1:]]),
            **options,  # type: ignore[arg-type]
        )
    _print(report, as_json, out)
    if not report.gates_passed and _can_search(target, limits):
        command = _search(model, target, recipe, limits, options)
        click.echo(f"A gate was not met. This looks for a recipe that meets it:\n  {command}", err=True)
    if not report.passed:
        click.get_current_context().exit(1)


def _baseline(options: dict[str, Any]) -> Baseline | None:
    """The earlier report with the tolerances of the command line, which are taken out of ``options``."""
    from edgeprune.report.regression import Baseline

    path = options.pop("baseline")
    tolerances = {f"max_{what}": options.pop(f"max_regression_{what}") for what in ("drop", "size", "latency")}
    if path is None:
        if given := [key for key, value in tolerances.items() if value is not None]:
            raise UsageError(
                f"--{given[0].replace('_', '-regression-', 1)} says how much worse than an earlier build files may be, "
                "and none is given.",
                fix="add --baseline REPORT.json.",
            )
        return None
    return Baseline(path, **tolerances)


def _can_search(target: tuple[str, ...], limits: Limits) -> bool:
    """Whether a search knows what the gates limit: a latency that was measured on this machine it does not."""
    from edgeprune.hardware.latency.source import latency_source
    from edgeprune.target import load_targets

    return limits.max_latency is None or all(latency_source(board) for board in load_targets(target))


def _search(
    model: str | None, target: tuple[str, ...], recipe: object, limits: Limits, options: Mapping[str, object]
) -> str:
    """The command that searches where this build did not get: the same model, data and gates."""
    words: list[object] = ["edgeprune", "search", *([model] if model else [])]
    words += [word for name in target for word in ("--target", name)]
    given = {"--data": options["data"], "--max-drop": limits.max_drop, "--max-size": limits.max_size}
    given |= {"--max-latency": limits.max_latency, "--max-flash": limits.max_flash, "--max-ram": limits.max_ram}
    given |= {"--seed": options["seed"] or None}
    given["--custom-objects"] = options["custom_objects"]
    if isinstance(recipe, tuple) and len(recipe) == 1:
        given["--recipe"] = recipe[0]
    for name, value in given.items():
        words += [] if value is None else [name, value]
    shapes: Any = options["input_shape"] or ()
    named = shapes.items() if isinstance(shapes, Mapping) else (("", shape) for shape in shapes)
    for name, shape in named:
        words += ["--input-shape", f"{name}{'=' if name else ''}{','.join(map(str, shape))}"]
    if options["trust_model"]:
        words += ["--trust-model"]
    return shlex.join(map(str, words))


def _print(report: Report, as_json: bool, folder: Path) -> None:
    if as_json:
        click.echo((folder / "report.json").read_text("utf-8"), nl=False)
        return
    from rich.console import Console

    from edgeprune.report.terminal import terminal

    Console().print(terminal(report, folder))
