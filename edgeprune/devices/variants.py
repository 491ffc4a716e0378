"""The variants of a build, measured on the board that they were built for."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from edgeprune.artifact import OnDeviceFacts
from edgeprune.devices.protocol import Device, Job, open_device, tool_of
from edgeprune.errors import DeviceError, EdgepruneError, MissingError
from edgeprune.files import sha256_file
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

    def key(self) -> dict[str, str | None]:
        """What a measurement there depends on: for the keys of stages."""
        binary = sha256_file(self.benchmark_binary) if self.benchmark_binary else None
        return {"address": self.address, "python": self.python, "benchmark_binary": binary}

    def check(self) -> None:
        """Reach the device once, before hours of training.

        Raises:
            DeviceError: it cannot be reached.
        """
        with open_device(self.address) as device:
            device.info()


class Connection:
    """The device of a build: reached when the first file is measured, left when the build ends. A context manager."""

    def __init__(self, where: OnDevice):
        self.where = where
        self._exits = contextlib.ExitStack()
        self._device: Device | None = None

    def device(self) -> Device:
        """The connected device.

        Raises:
            DeviceError: it cannot be reached.
        """
        if self._device is None:
            self._device = self._exits.enter_context(open_device(self.where.address))
        return self._device

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self._exits.close()


def measure_variant(connection: Connection, file: Path, target: Target) -> tuple[OnDeviceFacts, MissingError | None]:
    """Measure one file where a build is measured.

    Returns:
        What is known, and what ended the measuring early (the device went away, or lacks a runtime). A file that cannot
        be measured there has a warning instead of figures, and ends nothing.
    """
    where = connection.where
    try:
        device = connection.device()
        # A count is exact with one thread only, whatever the target has.
        threads = 1 if device.tool == "instructions" else target.threads or 1
        job = Job((file,), threads=threads, python=where.python, benchmark_binary=where.benchmark_binary)
        (result,) = tool_of(device)(device, job)
    except DeviceError as error:
        facts = _facts(where, error.results[0], target) if error.results else OnDeviceFacts()
        facts["warnings"] = [f"{where.address} went away while this file was measured."]
        return facts, error
    except MissingError as error:
        return OnDeviceFacts(warnings=[f"Not measured on {where.address}: {error.what}"]), error
    except EdgepruneError as error:
        return OnDeviceFacts(warnings=[f"Not measured on {where.address}: {error.what}"]), None
    return _facts(where, result, target), None


def _facts(where: OnDevice, result: dict[str, Any], target: Target) -> OnDeviceFacts:
    if "instructions" in result:
        counted = {key: result[key] for key in ("device", "runtime", "kernels")}
        return OnDeviceFacts(instructions={**counted, "count": result["instructions"]})
    if result.get("median_ms") is None:
        return OnDeviceFacts(warnings=[f"Not measured on {where.address}: its tool gives no median."])
    entry = {key: result[key] for key in _KEPT if key in result}
    # Measured where the target is meant; this machine is not.
    return OnDeviceFacts(measured=[entry if where.address == "host" else {**entry, "target": target.name}])
