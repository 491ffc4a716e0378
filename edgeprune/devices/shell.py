"""The base of devices with a POSIX shell: quoting, a private folder, and telling whether a command ended."""

from __future__ import annotations

import abc
import re
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar

from edgeprune.devices.protocol import Completed, Device, Info, plain_name
from edgeprune.errors import DeviceError, UsageError
from edgeprune.external import Ended
from edgeprune.runtime.runner import FOLDER_PREFIX

SHORT_S, COPY_S = 30.0, 300.0
# Markers around the output of a script: login files may print before it, and a missing end means that the connection
# was lost, whatever exit code the client returns then.
_BEGIN, _END = b"<edgeprune-begin>", b"<edgeprune-end:"
_ENDED = re.compile(re.escape(_END) + rb"(\d+)>")
# Every script is one line: csh and tcsh take no newline between single quotes, and one of them may be the login shell.
_INFO = (
    "tr -d '\\000' 2>/dev/null </proc/device-tree/model || sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1"
    "; echo; uname -m; uname -sr"
)


class ShellDevice(Device):
    """A device whose commands go through a shell there.

    Attributes:
        parent: the folder in which the job's folder is created.
        causes: pattern in the client's messages → what happened, and what to do.
    """

    parent: ClassVar[str] = "/tmp"
    causes: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def __init__(self, address: str):
        super().__init__(address)
        self._folder: str | None = None

    @abc.abstractmethod
    def _client(self, script: str, timeout_s: float, stdin: BinaryIO | int) -> Ended:
        """Hand a script to the shell of the device."""

    def connect(self) -> None:
        # The name is chosen here before the folder exists, so that it can be removed whenever the user interrupts.
        # mkdir fails if the name exists already; umask keeps other users out.
        self._folder = f"{self.parent}/{FOLDER_PREFIX}{secrets.token_hex(16)}"
        try:
            self._ask(f"umask 077 && mkdir {self._folder}")
        except DeviceError:
            self._folder = None
            raise

    def info(self) -> Info:
        lines = [_printable(line) for line in self._ask(_INFO).decode("utf-8", "replace").splitlines() if line.strip()]
        if len(lines) < 2:
            raise DeviceError(
                f"{self.address} does not report its architecture and system.", fix="run `uname -a` on it to see why."
            )
        return Info(lines[0] if len(lines) > 2 else lines[-2], lines[-2], lines[-1])

    def run(self, arguments: Sequence[str], *, timeout_s: float) -> Completed:
        if arguments[0].startswith("-"):
            raise UsageError(
                f"{arguments[0]!r} is not a program.", expected="the name of a program, or its path on the device."
            )
        # exec takes the first word for a program, never for an assignment or for a word of the shell's own.
        words = " ".join(map(quote, arguments))
        return self._shell(f"cd {self._folder} && (exec {words})", timeout_s, subprocess.PIPE)

    def close(self) -> None:
        if self._folder is None:
            return
        folder, self._folder = self._folder, None
        try:
            self._ask(f"rm -rf {folder}")
        except DeviceError:
            return  # the connection is lost; the runner removes the folder itself when its standard input ends

    def _path(self, name: str) -> str:
        return f"{self._folder}/{plain_name(name)}"

    def _shell(self, script: str, timeout_s: float, stdin: BinaryIO | int = subprocess.DEVNULL) -> Completed:
        """Run a script to its end; its exit code and output.

        Raises:
            DeviceError: the connection failed or broke, or the time was up.
        """
        begin, end = _BEGIN.decode(), _END.decode()
        framed = f"printf '{begin}'; {{ {script}; }}; printf '{end}%d>' $?"
        ended = self._client(framed, timeout_s, stdin)
        output = ended.stdout.partition(_BEGIN)[2]
        errors = ended.stderr.decode("utf-8", "replace")
        if ended.code is None:
            raise DeviceError(
                f"The program on {self.address} did not end within {timeout_s:g} s, and was told to stop.",
                fix="check the device, or take a smaller model.",
                output=output,
            )
        marks = list(_ENDED.finditer(output))
        if not marks:
            raise self._lost(ended, errors, output)
        return Completed(int(marks[-1][1]), output[: marks[-1].start()], errors)

    def _ask(self, script: str) -> bytes:
        """The output of a short script that must not fail."""
        done = self._shell(script, SHORT_S)
        if done.code:
            raise DeviceError(f"{self.address} refused: {_printable(done.stderr.strip()) or f'exit code {done.code}'}.")
        return done.stdout

    def _lost(self, ended: Ended, errors: str, output: bytes) -> DeviceError:
        said = _printable(" ".join(errors.split())) or f"exit code {ended.code}"
        for pattern, (what, fix) in self.causes.items():
            if re.search(pattern, errors, re.IGNORECASE):
                return DeviceError(f"{self.address}: {what} ({said}).", fix=fix, output=output)
        return DeviceError(
            f"The connection to {self.address} broke ({said}).",
            fix="check the cable, network and power of the device, and run the command again.",
            output=output,
        )


def quote(word: str) -> str:
    """A word in single quotes for a shell, whatever characters it contains."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _printable(text: str) -> str:
    """The message of a device, shortened, without control characters that a terminal would interpret."""
    shown = "".join(character if character.isprintable() else " " for character in text).strip()
    return shown if len(shown) <= 300 else f"{shown[:300]}…"


def checked_copy(device: ShellDevice, done: Completed, local: Path, where: str) -> None:
    """Make sure that a copy arrived whole; ``done`` has printed its size in bytes.

    Raises:
        DeviceError: it did not.
    """
    size = local.stat().st_size
    if done.code or done.stdout.strip() != str(size).encode():
        said = _printable(done.stderr) or f"{done.stdout.decode('utf-8', 'replace').strip() or 'no'} bytes arrived"
        raise DeviceError(
            f"{local.name!r} could not be copied to {where} on {device.address}: {said}.",
            expected=f"{size:,} bytes there.",
            fix="check the free space on the device with `df`.",
        )
