"""The interface of devices, which run files, and of tools, which measure on a device.

A *device* moves files and runs commands: ``connect, info, push, run, pull, close``. A *tool* pushes and runs what a
measurement needs, and reads the result; each class of devices names the tool that it works with. A new kind of device
is a class and a line in ``DEVICES``; a new way to measure is a function and a line in ``TOOLS``.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from edgeprune.errors import UsageError
from edgeprune.files import JsonObject

if TYPE_CHECKING:
    from edgeprune.target import Target

# Scheme of an address → "module:class" of a :class:`Device`; imported when it is used.
DEVICES = {
    "host": "edgeprune.devices.host:Host",
    "ssh": "edgeprune.devices.ssh:Ssh",
    "adb": "edgeprune.devices.adb:Adb",
    "emulator": "edgeprune.devices.emulator:Emulator",
}
FORMS = "host, emulator, ssh://USER@HOST[:PORT] or adb://SERIAL"
# Name of a tool → "module:function", a :data:`Tool`.
TOOLS = {
    "runner": "edgeprune.devices.python_runner:measure",
    "benchmark_model": "edgeprune.devices.benchmark_model:measure",
    "instructions": "edgeprune.devices.instructions:measure",
}


@dataclass(frozen=True)
class Completed:
    """The result of a command on the device: its exit code and output."""

    code: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class Info:
    """What a device reports about itself.

    Attributes:
        name: of the board or product, for people and for the column ``device``: 'Raspberry Pi 4 Model B Rev 1.4'.
        machine: the architecture, as ``uname -m`` gives it: 'aarch64'.
        system: operating system and release.
    """

    name: str
    machine: str
    system: str


def broken_off(results: Sequence[JsonObject]) -> list[JsonObject]:
    """The results of a job that was interrupted after these files, for ``DeviceError.results``."""
    return [{**result, "complete": False, "model": number} for number, result in enumerate(results)]


class Device(abc.ABC):
    """A machine that runs files. As a context manager, it connects at the start and closes at the end of the block.

    Args:
        address: as the user gave it.

    Every method but ``close`` raises :class:`~edgeprune.errors.DeviceError` (exit code 3) when the device cannot be
    reached, goes away or does not answer in time.
    """

    tool: ClassVar[str] = "runner"
    python: ClassVar[str] = "python3"  # command that starts Python on the device

    def __init__(self, address: str):
        self.address = address

    @abc.abstractmethod
    def connect(self) -> None:
        """Connect to the device and create an empty folder on it that only this user can read, the job's folder."""

    @abc.abstractmethod
    def info(self) -> Info:
        """Name, architecture and system."""

    @abc.abstractmethod
    def push(self, local: Path, name: str) -> str:
        """Copy a file into the job's folder as ``name`` (see :func:`plain_name`); returns its path on the device."""

    @abc.abstractmethod
    def run(self, arguments: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program until it ends.

        The program runs in the job's folder. Its standard input stays open and empty as long as the device is
        connected.

        Args:
            arguments: the program and its arguments, which arrive unchanged, whatever characters they contain.
            timeout_s: seconds after which the program is stopped.

        Raises:
            DeviceError: also after ``timeout_s``; its ``output`` is what the program had printed until then.
        """

    @abc.abstractmethod
    def pull(self, name: str, local: Path) -> None:
        """Copy the file ``name`` from the job's folder to the local path."""

    @abc.abstractmethod
    def close(self) -> None:
        """Remove the job's folder and disconnect. Never raises: on a lost device, nothing can be removed."""

    def __enter__(self) -> Device:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        files: .tflite files; several files are measured in turns, round by round.
        threads: number of threads that one inference may use.
        runs: number of inferences to time per file, over all rounds.
        rounds: number of rounds.
        delegate: 'default' for what the runtime chooses, or another delegate that the device's tool knows.
        samples: .npz with inputs x0, x1, … [n, ...], to run once each on the device; None for latency only.
        python: command that starts Python on the device; None for the device's default.
        benchmark_binary: local file of benchmark_model for Android; None for the one on the device.
        profile_operators: whether to make a table of operators, if the tool can.
        explain: on the emulator, the board to simulate: where its time goes; None for counts alone.
    """

    files: tuple[Path, ...]
    threads: int = 1
    runs: int = 50
    rounds: int = 1
    delegate: str = "default"
    samples: Path | None = None
    python: str | None = None
    benchmark_binary: Path | None = None
    profile_operators: bool = False
    explain: Target | None = None


# Measures a job, with one result per file in the order of the job. A result has at least the keys of a measured latency
# in report.json (device, runtime, threads, kernels, runs, median_ms, p95_ms), and ``rounds_ms``, one list of times per
# round. When the connection is lost, the ``results`` of the DeviceError are what was measured until then: the same keys
# with ``complete`` False, and ``model``, the index of the file in the job.
Tool = Callable[[Device, Job], list[JsonObject]]


def open_device(address: str) -> Device:
    """The device of an address, not yet connected.

    Raises:
        UsageError: not the address of a device.
    """
    scheme = address.partition("://")[0]
    if scheme not in DEVICES:
        raise UsageError(f"{address!r} is not the address of a device.", expected=f"{FORMS}.")
    return _load(DEVICES[scheme])(address)


def tool_of(device: Device) -> Tool:
    """The tool that measures on a device."""
    return _load(TOOLS[device.tool])


def plain_name(name: str) -> str:
    """Check the name of a file in the job's folder: it must not lead out of it, nor look like an option.

    Raises:
        ValueError: empty, hidden, with a slash or a leading hyphen.
    """
    if not name or name[0] in ".-" or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def _load(place: str) -> Any:
    """What a value of the tables above names; the tables say of which type it is."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
