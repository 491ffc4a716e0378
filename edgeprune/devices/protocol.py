"""One protocol for every machine that can run a .tflite: how it is reached, what it is asked for, how it answers.

A *device* moves files and runs commands: ``connect, info, push, run, pull, close``. A *tool* knows what to push and run
for a measurement and reads the answer; each device names the tool that fits it. A new kind of device is a class and a
line in ``DEVICES``; a new way to measure is a function and a line in ``TOOLS``.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from edgeprune.errors import UsageError

# Scheme of an address → "module:class"; imported when it is used.
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
    """A command that ended on the device: its exit code, and what it printed."""

    code: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class Info:
    """What a device says about itself.

    Attributes:
        name: the board or product, for people and for the column ``device``: 'Raspberry Pi 4 Model B Rev 1.4'.
        machine: the architecture, as ``uname -m`` gives it: 'aarch64'.
        system: operating system and release.
    """

    name: str
    machine: str
    system: str


def broken_off(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of the first files of a job, as a DeviceError carries them."""
    return [{**result, "complete": False, "model": number} for number, result in enumerate(results)]


class Device(abc.ABC):
    """A machine that runs files. A context manager: entering connects, leaving closes, however the block ends.

    Args:
        address: as the user gave it.

    Every method but ``close`` raises :class:`~edgeprune.errors.DeviceError` (exit code 3) when the device cannot be
    reached, goes away or does not answer in time.
    """

    tool: ClassVar[str] = "runner"
    python: ClassVar[str] = "python3"  # how Python is called there

    def __init__(self, address: str):
        self.address = address

    @abc.abstractmethod
    def connect(self) -> None:
        """Reach the device and make a fresh folder on it that only this user can read."""

    @abc.abstractmethod
    def info(self) -> Info:
        """Name, architecture and system."""

    @abc.abstractmethod
    def push(self, local: Path, name: str) -> str:
        """Copy a file into the fresh folder, as ``name`` (see :func:`plain_name`); returns its path on the device."""

    @abc.abstractmethod
    def run(self, arguments: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program to its end; the arguments arrive as they are, whatever characters they hold.

        The program runs with the fresh folder as its working folder. Its standard input stays open and empty as long
        as the device is connected.

        Raises:
            DeviceError: also after ``timeout_s`` seconds; its ``output`` is what the program had printed until then.
        """

    @abc.abstractmethod
    def pull(self, name: str, local: Path) -> None:
        """Copy the file ``name`` of the fresh folder here."""

    @abc.abstractmethod
    def close(self) -> None:
        """Remove the fresh folder and disconnect. Never raises: a device that is gone cannot be cleaned."""

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
        files: .tflite files; with several, they take turns, round by round.
        threads: that one inference may use.
        runs: inferences to time, of each file, over all rounds.
        rounds: turns of each file.
        delegate: 'default', what the runtime chooses, or one of those that the device's tool knows.
        samples: .npz with inputs ``x`` [n, ...], to be run once each on the device; None: latency only.
        python: how Python is called on the device; None: the device's default.
        benchmark_binary: the local benchmark_model for Android; None: the one that is on the device.
        profile_operators: ask for a table of operators where the tool has one.
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


# Measures a job; one result per file, in the order of the job. A result has at least the keys of a measured latency in
# report.json (device, runtime, threads, kernels, runs, median_ms, p95_ms), and ``rounds_ms``: one list of times per
# round. When the device goes away, the DeviceError carries what was measured until then in ``results``: the same keys
# with ``complete`` False, and ``model``, the place of the file in the job.
Tool = Callable[[Device, Job], list[dict[str, Any]]]


def open_device(address: str) -> Device:
    """The device of an address, not yet connected.

    Raises:
        UsageError: no address of a device.
    """
    scheme = address.partition("://")[0]
    if scheme not in DEVICES:
        raise UsageError(f"{address!r} is not a device.", expected=f"{FORMS}.")
    return _load(DEVICES[scheme])(address)


def tool_of(device: Device) -> Tool:
    """What measures on a device."""
    return _load(TOOLS[device.tool])


def plain_name(name: str) -> str:
    """The name of a file in the fresh folder, checked: it cannot lead out of it, nor be taken for an option.

    Raises:
        ValueError: empty, hidden, with a slash or a leading hyphen.
    """
    if not name or name[0] in ".-" or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
