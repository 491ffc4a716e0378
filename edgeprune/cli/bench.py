"""``edgeprune bench``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import device_options
from edgeprune.files import JsonObject

if TYPE_CHECKING:
    from edgeprune.evaluate.sample import Sample


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE.tflite...")
@click.option("--device", required=True, help="host, emulator, ssh://USER@HOST[:PORT] or adb://SERIAL.")
@click.option(
    "--target",
    help="The board, from `edgeprune targets list`: noted with the results, and gives the default of --threads.",
)
@click.option("--compare", is_flag=True, help="Measure two files in turns, and report the ratio of their times.")
@click.option("--data", help="Also measure the metrics on the device: a data source, as for `edgeprune build --data`.")
@click.option(
    "--recipe",
    help="A recipe, whose [data] and [task] say how to prepare the data and what to measure, such as recipe.toml of a "
    "run.  [default: ./edgeprune.toml]",
)
@click.option(
    "--seed", default=0, show_default=True, help="Of the build: chooses the samples, and the test part of data without."
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads that one inference may use.  [default: the target's, else 1; on the emulator always 1]",
)
@click.option(
    "--runs", type=click.IntRange(10), default=50, show_default=True, help="Inferences to time per file, at least."
)
@click.option(
    "--delegate",
    default="default",
    show_default=True,
    help="default (the runtime's choice), builtin (no XNNPACK), compiled (LiteRT's CompiledModel on the CPU), edgetpu "
    "on a board; xnnpack, gpu or nnapi on Android.",
)
@device_options
@click.option(
    "--runtime", help="On the emulator: ai-edge-litert, tflite-runtime, or 'NAME VERSION'.  [default: ai-edge-litert]"
)
@click.option(
    "--max-instructions",
    type=click.IntRange(1),
    help="Gate on the emulator: exit with code 1 when an inference takes more.",
)
@click.option(
    "--operators",
    is_flag=True,
    help="Also report each operator: on Android, where it slows the file down, and on the emulator.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="On the emulator: simulate where the time goes on the target (default: rpi4): cycles, cache misses and bytes, "
    "in total and by operator. Needs Debian's package llvm.",
)
@click.option(
    "--append",
    "table",
    type=click.Path(path_type=Path),
    help="Table to add a row per file to, such as measurements.csv, for `edgeprune targets fit`.  [default: none]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def bench(files: tuple[Path, ...], device: str, as_json: bool, **options: Any) -> None:
    """Measure FILE.tflite on a device: latency, memory, and the metrics of its task if data is given.

    The device needs Python with NumPy and one of ai-edge-litert, tflite-runtime or TensorFlow; Android needs TensorFlow
    Lite's benchmark_model. Nothing stays on the device.
    """
    from edgeprune.devices import bench as benching
    from edgeprune.devices import table
    from edgeprune.devices.protocol import Job
    from edgeprune.errors import DeviceError
    from edgeprune.target import load_target

    device = _address(device, options)
    target = load_target(options["target"]) if options["target"] else None
    counts = device.partition("://")[0] == "emulator"
    if options["table"] and not counts:  # the table is for times; counted instructions are no times
        table.check(options["table"])
    job = Job(
        files,
        threads=options["threads"] or (target.threads if target and not counts else 1),
        runs=options["runs"],
        delegate=options["delegate"],
        python=options["python"],
        benchmark_binary=options["benchmark_binary"],
        profile_operators=options["operators"],
        explain=(target or load_target("rpi4")) if options["explain"] else None,
    )

    def keep(result: JsonObject) -> None:
        if options["table"]:
            table.append(options["table"], [result])

    try:
        document = benching.bench(
            device,
            job,
            compare=options["compare"],
            target=target.name if target else None,
            sample=_sample(files, options["data"], options["recipe"], options["seed"]),
            keep=keep,
        )
    except DeviceError as error:
        if error.results:
            left = {"results": error.results, "comparison": None, "warnings": [], "gates": []}
            _print({"device": {"address": device}, **left}, as_json)
        raise
    document["gates"] = list(_gates(document["results"], options["max_instructions"]))
    _print(document, as_json)
    broken = [gate for gate in document["gates"] if not gate["passed"]]
    for gate in broken:
        click.echo(
            f"edgeprune: {gate['file']} takes {gate['value']:,} instructions; the limit is {gate['limit']:,}.", err=True
        )
    if broken:
        raise SystemExit(1)


_OF_EMULATOR = ("runtime", "max_instructions", "explain")


def _address(device: str, options: dict[str, Any]) -> str:
    """The device's address with the runtime in it; options of the emulator are refused elsewhere."""
    from edgeprune.errors import UsageError

    given = [f"--{name.replace('_', '-')}" for name in _OF_EMULATOR if options[name]]
    if given and device.partition("://")[0] != "emulator":
        raise UsageError(
            f"{' and '.join(given)} cannot be used with --device {device}.",
            expected="--device emulator.",
        )
    return f"emulator://{options['runtime']}" if options["runtime"] else device


def _gates(results: list[JsonObject], max_instructions: int | None) -> Iterator[JsonObject]:
    for result in results if max_instructions else ():
        value = result["instructions"]
        passed = value <= max_instructions
        gate = {"name": "max_instructions", "limit": max_instructions, "value": value, "passed": passed}
        yield {"file": result["file"], **gate}


def _sample(files: tuple[Path, ...], data: str | None, recipe: str | None, seed: int) -> Sample | None:
    if data is None:
        return None
    from edgeprune._tensorflow import import_tf
    from edgeprune.evaluate.files import require_same_inputs

    require_same_inputs(files)  # first, because importing TensorFlow and reading data take time

    import_tf()
    from edgeprune.evaluate.sample import load_sample
    from edgeprune.recipe.load import resolve_recipe

    resolved = resolve_recipe(recipe)
    return load_sample(files, data, resolved.data, resolved.task, seed, resolved.detection)


def _print(document: JsonObject, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from rich.console import Console

    from edgeprune.cli.bench_tables import bench_tables

    console = Console()
    for part in bench_tables(document):
        console.print(part)
