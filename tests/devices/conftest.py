"""A real sshd, and a double of the Android debug bridge."""

from __future__ import annotations

import dataclasses
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


@dataclasses.dataclass
class Sshd:
    """A real sshd on loopback with keys and configuration of its own; ``ssh`` on PATH uses them."""

    folder: Path
    port: int
    user: str
    process: subprocess.Popen

    @property
    def address(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    def configure(self, **changed: str) -> None:
        """The user's ssh configuration; a keyword replaces a setting."""
        settings = {
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentityFile": str(self.folder / "user"),
            "IdentitiesOnly": "yes",
            **changed,
        }
        (self.folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))

    def connections(self) -> list[int]:
        """Processes of sshd that serve a connection, with those that they left privileges to."""
        own = _children(self.process.pid)
        return [*own, *(child for pid in own for child in _children(pid) if "sshd" in _command(child))]

    def runner_seconds(self) -> float:
        """Processor time of the runner that was started over a connection; 0 where there is none."""
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            if "runner.py" in _command(pid) and not _children(pid):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            waiting += _children(pid)
        return 0.0

    def cut(self) -> None:
        """Break every connection."""
        for pid in self.connections():
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    task = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in task.read_text().split()] if task.exists() else []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@dataclasses.dataclass
class Phone:
    """The adb double, connected to an adb server of its own."""

    folder: Path
    address: str
    process: subprocess.Popen

    @property
    def home(self) -> Path:
        """What is /data/local/tmp there."""
        return self.folder / "tmp"

    def install(self, name: str, script: str) -> Path:
        """A program on the phone's PATH."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path


_GETPROP = """case $1 in
*manufacturer) echo Example;;
*model) echo Phone 7;;
*abi) echo arm64-v8a;;
*) echo 14;;
esac"""


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory):
    """The port of an adb server for these tests alone."""
    if not shutil.which("adb"):
        pytest.skip("needs adb: apt install adb")
    port = free_port()
    home = tmp_path_factory.mktemp("adb")
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(home)}
    subprocess.run(["adb", "start-server"], env=environment, check=True, timeout=60, capture_output=True)
    yield port
    subprocess.run(["adb", "kill-server"], env=environment, check=False, timeout=60, capture_output=True)


@pytest.fixture
def phone(adb_server, tmp_path, monkeypatch):
    """A phone that adb sees; kill its process, and it is unplugged."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_server))
    folder = tmp_path / "phone"
    double = Path(__file__).with_name("adb_double.py")
    process = subprocess.Popen([sys.executable, str(double), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    serial = f"127.0.0.1:{process.stdout.readline().strip()}"
    subprocess.run(["adb", "connect", serial], check=True, timeout=60, capture_output=True)
    found = Phone(folder, f"adb://{serial}", process)
    found.install("getprop", _GETPROP)
    yield found
    process.kill()
    process.wait()
    subprocess.run(["adb", "disconnect", serial], check=False, timeout=60, capture_output=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def _sshd(tmp_path_factory):
    daemon = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not daemon or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        pytest.skip("needs sshd and ssh: apt install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    port = free_port()
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "KexAlgorithms curve25519-sha256\n"  # the default exchange of keys takes a quarter of each connection's time
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a privileged sshd locks its helper in
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([daemon, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    _wait_for(port, process, folder / "log")
    yield Sshd(folder, port, getpass.getuser(), process)
    process.terminate()
    process.wait()


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start: {log.read_text()[-300:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("sshd does not listen")


@pytest.fixture
def sshd(_sshd, tmp_path, monkeypatch):
    """The daemon, with a sane configuration of the client in place."""
    _sshd.configure()
    client = tmp_path / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {_sshd.folder}/config "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    return _sshd
