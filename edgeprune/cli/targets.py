"""``edgeprune targets``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import device_options
from edgeprune.files import JsonObject

if TYPE_CHECKING:
    from edgeprune.target import Target


@click.group()
def targets() -> None:
    """The boards that edgeprune knows, and fitting a board of your own."""


@targets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def list_(as_json: bool) -> None:
    """List the targets: name, board, aliases."""
    from edgeprune.target import load_target, target_names

    known = [load_target(name) for name in target_names()]
    if as_json:
        click.echo(
            json.dumps([{"name": t.name, "title": t.title, "aliases": list(t.aliases)} for t in known], indent=2)
        )
        return
    width = max(len(target.name) for target in known)
    for target in known:
        also = f" (also: {', '.join(target.aliases)})" if target.aliases else ""
        click.echo(f"{target.name:<{width}}  {target.title}{also}")


@targets.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else.")
def show(name: str, as_json: bool) -> None:
    """Show what is known about target NAME, and where each fact comes from."""
    from edgeprune.target import load_target, to_toml

    target = load_target(name)
    click.echo(target.model_dump_json(indent=2, exclude_none=True) if as_json else to_toml(target), nl=as_json)


@targets.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("kit"), show_default=True, help="The folder to write."
)
def kit(out: Path) -> None:
    """Write 20 small .tflite files to measure a board with, for `edgeprune targets fit`.

    They span operators, sizes and number formats. A README beside them has the commands.
    """
    from edgeprune._tensorflow import import_tf
    from edgeprune.convert.converter import CONVERTER

    CONVERTER.start()
    import_tf()
    from edgeprune.devices.kit import README, write_kit

    paths = write_kit(out)
    total = sum(path.stat().st_size for path in paths)
    click.echo(f"Wrote {len(paths)} files, {total:,} bytes, into {out}. {out / README} says how to measure with them.")


@targets.command()
@click.argument("name")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE.tflite...]")
@click.option("--from", "table", type=click.Path(path_type=Path), help="CSV made by `edgeprune bench`.")
@click.option("--device", help="Measure the FILEs first, on host, ssh://USER@HOST[:PORT] or adb://SERIAL.")
@click.option("--base", help="The target to start from.  [default: the one that the measurements name]")
@click.option(
    "--runs", type=click.IntRange(10), default=50, show_default=True, help="Inferences to time per file, with --device."
)
@device_options
@click.option(
    "--next",
    "candidates",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Also say which .tflite files of a folder, such as the kit, to measure next.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The file to write.  [default: NAME.toml]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def fit(
    name: str,
    files: tuple[Path, ...],
    table: Path | None,
    device: str | None,
    base: str | None,
    candidates: Path | None,
    out: Path | None,
    force: bool,
    **settings: Any,
) -> None:
    """Make a target NAME with a latency model fitted to measurements: from a table, or of FILEs that are measured now.

    The result is a TOML file for --target. Measure at least three models with each set of kernels; the more they differ
    in size and kind, the better. New measurements are added to NAME-measurements.csv beside the TOML file.
    """
    from edgeprune.errors import TargetError, UsageError
    from edgeprune.files import output_errors
    from edgeprune.hardware.latency import measurements
    from edgeprune.target import load_target, to_toml

    path = out or Path(f"{name}.toml")
    if path.exists() and not force:
        raise TargetError(f"{path} exists already.", fix="use --force to replace it, or --out for another file.")
    if (table is None) == (device is None) or bool(files) != bool(device) or (device and not base):
        raise UsageError(
            "It is not clear where the measurements come from.",
            expected="either --from TABLE.csv, or FILEs to measure with --device ADDRESS and --base NAME.",
        )
    rows = table or path.with_name(f"{name}-measurements.csv")
    start = load_target(base or measurements.base_name(rows))
    if device:
        _measure(device, files, rows, start, settings)
    left = measurements.left_out(rows)
    measured = measurements.read_measurements(rows)
    target = measurements.fit_target(name, start, measured, left)
    with output_errors(path):
        path.write_text(to_toml(target), encoding="utf-8")
    _print_fit(target, measurements.words_left_out(left))
    click.echo(f"Wrote {path}. Use it with --target {path}")
    if candidates:
        found = measurements.propose(start, measured, sorted(candidates.glob("*.tflite")))
        words = "\n".join(f"  {file}: the estimate may be {spread:.0%} off" for file, spread in found)
        click.echo(f"Measure next, best first:\n{words}" if found else "All files of the folder are measured.")


def _measure(device: str, files: tuple[Path, ...], table: Path, base: Target, settings: JsonObject) -> None:
    """Add a row to the table for each file, with each set of kernels that the base has coefficients for."""
    from edgeprune.devices import table as rows
    from edgeprune.devices.bench import bench
    from edgeprune.devices.protocol import Job
    from edgeprune.hardware.latency.estimate import available

    def keep(result: JsonObject) -> None:
        rows.append(table, [result])

    rows.check(table)
    delegates = {"xnnpack": "default", "builtin": "builtin"}
    for kernels in sorted(delegates.keys() & set(available(base)), reverse=True):
        job = Job(files, threads=base.threads, delegate=delegates[kernels], **settings)
        bench(device, job, target=base.name, keep=keep)


def _print_fit(target: Target, left_out: str) -> None:
    assert target.latency is not None
    for kernels in ("builtin", "xnnpack"):
        if fitted := getattr(target.latency, kernels):
            score = fitted.heldout_median_error
            words = "too few files for an error" if score is None else f"median error {score:.1%} on files left out"
            click.echo(
                f"{kernels}: {fitted.measurements} measurements, {words}; 80 % of latencies are expected within a "
                f"factor of {fitted.range_factor}"
            )
    if left_out:
        click.echo(left_out.strip())
