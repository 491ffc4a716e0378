"""The variants of a build, measured on the board that they were built for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.devices.protocol import Device, Job, open_device, tool_of
from edgeprune.errors import DeviceError, EdgepruneError, MissingError
from edgeprune.progress import Progress
from edgeprune.target import Target

_KEPT = (
    "device",
    "runtime",
    "threads",
    "kernels",
    "runs",
    "warmup",
    "init_ms",
    "first_ms",
    "median_ms",
    "p5_ms",
    "p95_ms",
    "min_ms",
    "max_ms",
    "mean_ms",
    "std_ms",
    "peak_bytes",
    "before",
    "after",
)


@dataclasses.dataclass(frozen=True)
class OnDevice:
    """Where the variants of a build are measured: an address, and what :class:`Job` needs to know there."""

    address: str
    python: str | None = None
    benchmark_binary: Path | None = None

    def check(self) -> None:
        """Reach the device once, before hours of training.

        Raises:
            DeviceError: it cannot be reached.
        """
        with open_device(self.address) as device:
            device.info()


@dataclasses.dataclass
class OfVariants:
    """What was measured, by variant; ``broken``: what ended it early.

    Attributes:
        entries: of ``latency.measured``.
        instructions: device, runtime and count, where the device counts and knows no time.
        warnings: why a variant has neither, or less than was asked for.
    """

    entries: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    instructions: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    warnings: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    broken: MissingError | None = None


def measure_variants(where: OnDevice, files: Mapping[str, Path], target: Target, progress: Progress) -> OfVariants:
    """Measure every variant's file.

    A file that cannot be measured there is a warning about its variant; a device that goes away ends the measuring, and
    what was measured until then stays: hours of training are not lost to an error about their last figure.
    """
    found = OfVariants()
    progress.begin(f"measuring on {where.address}", len(files))
    try:
        with open_device(where.address) as device:
            for name, file in files.items():
                _measure(device, where, name, file, target, found)
                progress.advance()
    except MissingError as error:
        found.broken = error
    progress.end()
    return found


def _measure(device: Device, where: OnDevice, name: str, file: Path, target: Target, found: OfVariants) -> None:
    # A count is exact with one thread only, whatever the target has.
    threads = 1 if device.tool == "instructions" else target.threads or 1
    job = Job((file,), threads=threads, python=where.python, benchmark_binary=where.benchmark_binary)
    try:
        (result,) = tool_of(device)(device, job)
    except DeviceError as error:
        for result in error.results:
            _keep(where, name, result, target, found)
            found.warnings[name] = [f"{where.address} went away while {name} was measured."]
        raise
    except MissingError:
        raise
    except EdgepruneError as error:
        found.warnings[name] = [f"Not measured on {where.address}: {error.what}"]
        return
    _keep(where, name, result, target, found)


def _keep(where: OnDevice, name: str, result: dict[str, Any], target: Target, found: OfVariants) -> None:
    if "instructions" in result:
        facts = {key: result[key] for key in ("device", "runtime", "kernels")}
        found.instructions[name] = {**facts, "count": result["instructions"]}
        return
    if result.get("median_ms") is None:
        found.warnings[name] = [f"Not measured on {where.address}: its tool gives no median."]
        return
    entry = {key: result[key] for key in _KEPT if key in result}
    # Measured where the target is meant; this machine is not.
    found.entries[name] = [entry if where.address == "host" else {**entry, "target": target.name}]
