"""The ssh home, against a real sshd on loopback."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeprune.devices.protocol import open_device
from edgeprune.errors import DeviceError, UsageError
from edgeprune.external import Ended

NASTY = [
    "with space",
    "it's",
    'a "quote"',
    "; touch /tmp/edgeprune-tricked",
    "$(id)",
    "`id`",
    "new\nline",
    "-rf",
    "*",
    "",
]


def test_files_and_arguments_arrive_as_they_are(sshd, tmp_path):
    """Arguments with every character a shell could fall for, and binary files of any name, arrive unchanged."""
    with open_device(sshd.address) as device:
        code = "import sys, json; print(json.dumps(sys.argv[1:]))"
        done = device.run([sys.executable, "-c", code, *NASTY], timeout_s=30)
        assert done.code == 0
        assert json.loads(done.stdout) == NASTY
        content = bytes(range(256)) * 99
        for name in [word for word in NASTY if "/" not in word and word]:
            local = tmp_path / name
            local.write_bytes(content)
            there = device.push(local, "file.bin")
            device.pull("file.bin", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == content
        assert device.run(["cat", there], timeout_s=30).stdout == content
    assert not Path("/tmp/edgeprune-tricked").exists()


def test_the_folder_is_private_and_goes_away(sshd):
    """Nobody else can read the folder; it is the working folder of programs, and removed when the block ends."""
    with open_device(sshd.address) as device:
        folder = Path(device.run(["pwd"], timeout_s=30).stdout.decode().strip())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_exit_codes_and_streams(sshd):
    """The program's exit code comes back, also 255, which ssh itself uses; streams stay apart."""
    with open_device(sshd.address) as device:
        for code in (0, 7, 255):
            done = device.run(["sh", "-c", f"echo out; echo err >&2; exit {code}"], timeout_s=30)
            assert (done.code, done.stdout) == (code, b"out\n")
            assert done.stderr.startswith("err")


def test_the_first_word_is_a_program(sshd):
    """What the shell would take for an assignment or a word of its own is a program that is not there."""
    with open_device(sshd.address) as device:
        for word in ("A=B", "if", "!", "eval", ".", "command", "a b", "$(id)", "~"):
            done = device.run([word, "touch", "tricked"], timeout_s=30)
            assert done.code in (126, 127), word
        assert device.run(["ls"], timeout_s=30).stdout == b""
        with pytest.raises(UsageError, match="not a program"):
            device.run(["-a", "x", "touch"], timeout_s=30)


@pytest.mark.parametrize("address", ["ssh://host", "adb://serial"])
def test_scripts_are_one_line(tmp_path, monkeypatch, address):
    """No script has a newline, or an exclamation mark, which some login shells take for something even in quotes."""
    scripts = []

    def client(self, script, timeout_s, stdin):
        scripts.append(script)
        return Ended(0, b"<edgeprune-begin>3\nb\nc\nd\n<edgeprune-end:0>", b"", 0.1)

    device = open_device(address)
    monkeypatch.setattr(type(device), "_client", client)
    with device:
        device.info()
        device.run(["python3", "runner.py"], timeout_s=1)
        if address.startswith("ssh"):
            device.pull("file", tmp_path / "file")
    assert len(scripts) >= 4
    assert not any(character in script for script in scripts for character in "\n!")


def test_names_on_the_device_cannot_lead_elsewhere(sshd, tmp_path):
    """A name with a slash, a leading hyphen or a dot is refused before anything is sent."""
    device = open_device(sshd.address)
    for name in ("../x", "/x", "-x", ".x", "", "a\0"):
        with pytest.raises(ValueError, match="plain file name"):
            device.push(tmp_path, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"IdentityFile": "{folder}/stranger"}, "none of your keys"),
        ({"UserKnownHostsFile": "/dev/null"}, "host key is not known"),
        ({"UserKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "no"}, "host key is not known"),
        ({"UserKnownHostsFile": "/dev/null", "NoHostAuthenticationForLocalhost": "yes"}, "host key is not known"),
        ({"UserKnownHostsFile": "{folder}/changed"}, "its host key has changed"),
    ],
)
def test_keys_are_never_skipped(sshd, settings, message):
    """A wrong key, an unknown and a changed host key end in an error (3), even if the configuration would let them."""
    stranger = " ".join((sshd.folder / "stranger.pub").read_text().split()[:2])
    (sshd.folder / "changed").write_text(f"[127.0.0.1]:{sshd.port} {stranger}\n")
    sshd.configure(**{key: value.format(folder=sshd.folder) for key, value in settings.items()})
    with pytest.raises(DeviceError, match=message) as error, open_device(sshd.address):
        pass
    assert error.value.exit_code == 3


def test_nobody_listens(sshd):
    """A refused connection is a missing device, with what to check."""
    with pytest.raises(DeviceError, match="no ssh server answers"), open_device("ssh://pi@127.0.0.1:1"):
        pass


@pytest.mark.parametrize(
    "address",
    ["ssh://", "ssh://-oProxyCommand=id", "ssh://-l@host", "ssh://a b", "ssh://h:99999", "ssh://h;id", "ssh://h/path"],
)
def test_addresses_are_checked(address):
    """What could be taken for an option or more than one word is no address."""
    with pytest.raises(UsageError, match="not the address"):
        open_device(address)


def test_a_program_that_takes_too_long_is_stopped(sshd):
    """After its time, a program is given up, what it printed is kept, and it finds its standard input closed."""
    code = "import os, sys; print('started', os.getcwd(), flush=True); sys.stdin.read()"
    with open_device(sshd.address) as device:
        with pytest.raises(DeviceError, match="within 2 s") as error:
            device.run([sys.executable, "-c", code], timeout_s=2)
        assert error.value.output.startswith(b"started")
        folder = Path(error.value.output.split()[1].decode())
    assert not folder.exists()


def test_a_connection_that_is_cut(sshd, tiny_files):
    """When the connection breaks mid-run, the rounds that are through are kept, and the runner cleans up by itself."""
    from edgeprune.devices.protocol import Job, tool_of

    job = Job((tiny_files["float32"],), runs=10_000_000, rounds=100_000, python=sys.executable)
    device = open_device(sshd.address)
    device.connect()
    folder = Path(device._folder)

    def cut():
        while sshd.runner_seconds() < 3.0:  # loading takes less, on slow machines too
            time.sleep(0.1)
        sshd.cut()

    killer = threading.Thread(target=cut)
    killer.start()
    with pytest.raises(DeviceError, match=r"The connection to .* broke") as error:
        tool_of(device)(device, job)
    killer.join()
    (kept,) = error.value.results
    assert not kept["complete"]
    assert kept["runs"] == sum(map(len, kept["rounds_ms"])) > 0
    assert kept["median_ms"] > 0
    device._folder = None  # the runner there is alone now
    for _ in range(100):
        if not folder.exists():
            break
        time.sleep(0.1)
    assert not folder.exists()


def _running(folder: Path) -> list[int]:
    """Processes whose working folder is ``folder`` and that have loaded a model."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder) and b"runner.py" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_ctrl_c_leaves_nothing_behind(sshd, tiny_files):
    """Ctrl-C in the middle of a measurement ends with code 130, and the folder there is gone."""
    script = (
        "import sys; from pathlib import Path; from edgeprune.devices.protocol import *\n"
        "job = Job((Path(sys.argv[2]),), runs=10**7, rounds=10**5, python=sys.executable)\n"
        "with open_device(sys.argv[1]) as device:\n"
        "    print(device._folder, flush=True)\n"
        "    tool_of(device)(device, job)\n"
    )
    command = [sys.executable, "-c", script, sshd.address, str(tiny_files["float32"])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})
    folder = Path(process.stdout.readline().decode().strip())
    for _ in range(300):
        if _running(folder):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    assert not folder.exists()
    assert not _running(folder)


def test_no_ssh(sshd, tmp_path, monkeypatch):
    """Without ssh on this machine, the error says how to get it."""
    from edgeprune.errors import MissingError

    assert shutil.which("ssh")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(MissingError, match="apt install openssh-client"), open_device("ssh://pi@host"):
        pass
