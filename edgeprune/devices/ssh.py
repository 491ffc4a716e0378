"""A board that is reached with the system's ssh, with the user's configuration, keys and known hosts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, ClassVar

from edgeprune.devices.shell import COPY_S, ShellDevice, checked_copy, quote
from edgeprune.errors import DeviceError, UsageError
from edgeprune.external import Ended, execute

# A host may be an alias of the user's configuration, or an IPv6 address in brackets. Nothing may start with a hyphen,
# which ssh would take for an option.
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?/?"
)
_OPTIONS = {
    "BatchMode": "yes",  # fail instead of asking for a password
    "StrictHostKeyChecking": "yes",  # refuse unknown hosts, whatever the user's configuration says
    "NoHostAuthenticationForLocalhost": "no",  # and check 127.0.0.1, too, which may be a tunnel
    "VerifyHostKeyDNS": "no",
    "ControlPath": "none",  # never through a connection that was opened under other rules
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",  # notice a board that was unplugged
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
_KNOW = "connect once by hand, compare the fingerprint with the board's, and accept it: "


class Ssh(ShellDevice):
    """``ssh://[USER@]HOST[:PORT]``, with ``sh`` at the other end, whatever the login shell."""

    causes: ClassVar[Mapping[str, tuple[str, str]]] = {
        "REMOTE HOST IDENTIFICATION HAS CHANGED": (
            "its host key has changed",
            "find out why (a new installation, or an attack), then `ssh-keygen -R HOST`.",
        ),
        "host key verification failed|no .* host key is known": ("its host key is not known", _KNOW + "ssh USER@HOST"),
        "permission denied": (
            "it accepts none of your keys",
            "install your public key on it: ssh-copy-id USER@HOST. edgeprune never asks for a password.",
        ),
        "connection refused": ("no ssh server answers", "enable ssh on the board (raspi-config), and check the port."),
        "could not resolve": ("no machine has that name", "check the name, or use the board's IP address."),
        "timed out|timeout|no route to host|unreachable": (
            "it does not answer",
            "check that the board is on and in the same network.",
        ),
    }

    def __init__(self, address: str):
        super().__init__(address)
        parts = _ADDRESS.fullmatch(address)
        if not parts or int(parts["port"] or 22) > 65535:
            raise UsageError(f"{address!r} is not the address of a device.", expected="ssh://USER@HOST[:PORT].")
        self._words = ["-T"]
        for name, value in _OPTIONS.items():
            self._words += ["-o", f"{name}={value}"]
        if parts["port"]:
            self._words += ["-p", parts["port"]]
        if parts["user"]:
            self._words += ["-l", parts["user"]]
        self._words += ["--", parts["host"].strip("[]")]

    def _client(self, script: str, timeout_s: float, stdin: BinaryIO | int) -> Ended:
        # The login shell there only has to start sh. csh and tcsh do, too, but for an argument with a newline or "!",
        # which edgeprune itself never sends: names there are its own, and --python is the user's.
        command = ["ssh", *self._words, f"exec sh -c {quote(script)}"]
        return execute(command, timeout_s=timeout_s, fix="install it: apt install openssh-client", stdin=stdin)

    def push(self, local: Path, name: str) -> str:
        # Through standard input, so that no shell interprets the file's name.
        path = self._path(name)
        with local.open("rb") as file:
            done = self._shell(f"cat >{path} && wc -c <{path}", COPY_S, file)
        checked_copy(self, done, local, path)
        return path

    def pull(self, name: str, local: Path) -> None:
        done = self._shell(f"cat {self._path(name)}", COPY_S, subprocess.DEVNULL)
        if done.code:
            raise DeviceError(f"{name} is not on {self.address}: {done.stderr.strip()}")
        local.write_bytes(done.stdout)
