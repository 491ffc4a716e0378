"""An Android device that is reached with the system's adb."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, ClassVar

from edgeprune.devices.protocol import Info
from edgeprune.devices.shell import COPY_S, ShellDevice, checked_copy
from edgeprune.errors import DeviceError, UsageError
from edgeprune.external import Ended, execute

# A serial number, or the address of a device on the network: 0123456789ABCDEF, emulator-5554, 192.168.1.5:5555.
_ADDRESS = re.compile(r"adb://(?P<serial>[A-Za-z0-9_][\w.:-]*)")
_PROPERTIES = "ro.product.manufacturer", "ro.product.model", "ro.product.cpu.abi", "ro.build.version.release"
_LIST = "`adb devices` lists the connected devices; connect the cable, or run `adb connect HOST:PORT`."


class Adb(ShellDevice):
    """``adb://SERIAL``, with Android 7 or newer, whose shell returns exit codes and separates the two streams."""

    tool = "benchmark_model"
    parent = "/data/local/tmp"
    causes: ClassVar[Mapping[str, tuple[str, str]]] = {
        "unauthorized": ("it has not authorized this computer", "unlock it and confirm the question on its screen."),
        "offline": ("it is offline", "unplug it and plug it in again, or `adb reconnect`."),
        "device .*not found|no devices": ("adb does not find it", _LIST),
        "cannot connect to daemon|protocol fault": (
            "adb's server on this computer does not run",
            "run `adb kill-server`, and try again.",
        ),
    }

    def __init__(self, address: str):
        super().__init__(address)
        parts = _ADDRESS.fullmatch(address)
        if not parts:
            raise UsageError(f"{address!r} is not the address of a device.", expected="adb://SERIAL.", fix=_LIST)
        self._serial = parts["serial"]

    def info(self) -> Info:
        asked = "; ".join(f"getprop {name}" for name in _PROPERTIES)
        lines = self._ask(asked).decode("utf-8", "replace").splitlines()
        maker, model, abi, release = (
            "".join(filter(str.isprintable, line)).strip() for line in (*lines, *[""] * 4)[:4]
        )
        return Info(f"{maker} {model}".strip() or self._serial, abi, f"Android {release}".strip())

    def _client(self, script: str, timeout_s: float, stdin: BinaryIO | int) -> Ended:
        return self._adb(["shell", "-T", script], timeout_s, stdin)

    def push(self, local: Path, name: str) -> str:
        path = self._path(name)
        self._transfer(["push", str(local.resolve()), path], f"{local.name!r} could not be copied to the device")
        checked_copy(self, self._shell(f"wc -c <{path}", COPY_S), local, path)
        return path

    def pull(self, name: str, local: Path) -> None:
        self._transfer(["pull", self._path(name), str(local.resolve())], f"{name} could not be copied from the device")

    def _transfer(self, words: list[str], failed: str) -> None:
        ended = self._adb(words, COPY_S, subprocess.DEVNULL)
        if ended.code:
            said = (ended.stderr or ended.stdout).decode("utf-8", "replace")
            lost = self._lost(ended, said, b"")
            raise DeviceError(f"{failed}: {lost.what}", fix=lost.fix)

    def _adb(self, words: list[str], timeout_s: float, stdin: BinaryIO | int) -> Ended:
        command = ["adb", "-s", self._serial, *words]
        return execute(command, timeout_s=timeout_s, fix="install it: apt install adb", stdin=stdin)
