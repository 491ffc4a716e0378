"""An emulated Raspberry Pi 4 as a device: QEMU runs the runtime's real aarch64 build."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeprune.devices.cores import DEFAULT, Core
from edgeprune.devices.emulator_home import COUNTING, RUNTIMES, SETUP, Home, Plugin, qemu_version
from edgeprune.devices.protocol import Completed, Device, Info, plain_name
from edgeprune.errors import DeviceError, UsageError
from edgeprune.external import execute
from edgeprune.files import copy_file

# The file in the job's folder that the plugin writes.
LOG = "instructions.log"


class Emulator(Device):
    """The board that ``edgeprune emulator setup`` builds. It runs Python, and no other program.

    Outputs are those of the ARM kernels, and counts of instructions are exact; times have no meaning.

    Args:
        address: 'emulator', or 'emulator://RUNTIME' with ai-edge-litert (the default), tflite-runtime, or one of them
            and a version that the board can be given.
        home: where it is set up; None for the cache folder.
    """

    tool = "instructions"

    def __init__(self, address: str = "emulator", home: Home | None = None):
        super().__init__(address)
        self.runtime = address.partition("://")[2] or RUNTIMES[0]
        self._home = home or Home()
        if self.runtime not in self._home.parts.runtimes:
            raise UsageError(
                f"The emulated board has no runtime {self.runtime!r}.",
                expected=f"emulator://NAME with one of: {', '.join(self._home.parts.runtimes)}.",
            )
        self._folder: Path | None = None

    def connect(self) -> None:
        self._home.require()
        self._home.require_runtime(self.runtime)
        self._folder = Path(tempfile.mkdtemp(prefix="edgeprune-"))

    @property
    def folder(self) -> Path:
        """The job's folder; a program on the board sees it under the same path."""
        if self._folder is None:
            raise DeviceError("The emulated board is not connected.", fix="call connect() first.")
        return self._folder

    def info(self) -> Info:
        system = f"{self._home.parts.debian.release}, user mode of QEMU {qemu_version()} on {platform.machine()}"
        return Info("Cortex-A72", "aarch64", system)

    def push(self, local: Path, name: str) -> str:
        copy_file(local, self.folder / plain_name(name))
        return name

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout_s: float,
        plugin: Plugin = COUNTING,
        core: Core = DEFAULT,
    ) -> Completed:
        """As on every device; with another plugin, and on another core."""
        if arguments[0] != self.python:
            raise DeviceError(f"The emulated board cannot run {arguments[0]!r}.", expected=f"{self.python}.")
        # -B: Python reads what it compiled during setup and writes nothing new, so that every start is the same.
        command = self._home.command(self.runtime, ["-B", *arguments[1:]], LOG, plugin, core)
        ended = execute(command, timeout_s=timeout_s, fix=f"run `{SETUP}`.", cwd=self.folder, stdin=subprocess.PIPE)
        if ended.code is None:
            raise DeviceError(
                f"The program on the emulated board did not end within {timeout_s:g} s.",
                fix="emulation is slow: take a smaller model, or a machine that is less busy.",
                output=ended.stdout,
            )
        return Completed(ended.code, ended.stdout, ended.stderr.decode("utf-8", "replace"))

    def pull(self, name: str, local: Path) -> None:
        source = self.folder / plain_name(name)
        if not source.is_file():
            raise DeviceError(f"There is no file {name} on the emulated board.")
        copy_file(source, local)

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
