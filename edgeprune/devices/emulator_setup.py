"""Building the emulated board: download, check, unpack, compile, try."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from edgeprune.devices import emulator_download as download
from edgeprune.devices.emulator_home import RUNTIMES, Home, qemu_version, require_tools
from edgeprune.errors import MissingError
from edgeprune.external import TAIL_LINES, execute
from edgeprune.files import output_errors, sha256_json, write_bytes, write_json
from edgeprune.progress import Progress

CORES = 4
# XNNPACK chooses its kernels by these lines, so they must not be those of the machine that emulates. Implementer and
# part as in Arm's "Cortex-A72 MPCore Processor Technical Reference Manual", register MIDR_EL1; features as Linux names
# them on a Raspberry Pi 4.
CPU_INFO = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
_TRY = "import sys, numpy; from importlib import import_module; import_module(sys.argv[1]); print(numpy.__version__)"
_TRY_S = 600


def setup(home: Home, progress: Progress | None = None) -> dict[str, Any]:
    """Build the emulated board, or what is missing of it. With everything there, it does nothing.

    Returns:
        What ``ready.json`` holds: parts (digest), qemu, debs and wheels (file → SHA-256), bytes, seconds (of the run
        that completed it).

    Raises:
        MissingError: a tool is missing, no network, a hash or signature is wrong, or a runtime does not start.
        OutputError: the folder cannot be written.
    """
    require_tools()
    progress = progress or Progress()
    with output_errors(home.folder):
        home.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(home.folder / "lock"):
            return _setup(home, progress)


def _setup(home: Home, progress: Progress) -> dict[str, Any]:
    started = time.monotonic()
    done = home.ready()
    if done is not None:
        home.plugin()
        return done
    steps = 4
    progress.stage(1, steps, "Debian's packages for arm64", False)
    debs = download.debs(home.parts.debian, home.downloads, progress)
    progress.stage(2, steps, "Python wheels for aarch64", False)
    wheels = []
    for wanted in home.parts.wheels.values():
        progress.note(f"{wanted.name} {wanted.version}")
        wheels.append(download.wheel(wanted, home.downloads))
    progress.stage(3, steps, "unpacking, compiling", False)
    _unpack(home.sysroot, sha256_json([one.sha256 for one in debs]), functools.partial(_sysroot, home, debs))
    for wanted in home.parts.wheels.values():
        unzip = functools.partial(_unzip, home.downloads / wanted.file)
        _unpack(home.wheels / wanted.folder, wanted.sha256, unzip)
    home.plugin()
    progress.stage(4, steps, "starting each runtime once", False)
    for runtime in RUNTIMES:
        _try(home, runtime)
        progress.note(f"{runtime} starts")
    document = {
        "parts": home.parts.digest,
        "qemu": qemu_version(),
        "debs": {one.file: one.sha256 for one in debs},
        "wheels": {one.file: one.sha256 for one in wheels},
        "bytes": sum(path.lstat().st_size for path in home.folder.rglob("*") if path.is_file()),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(home.ready_file, document)
    return document


def _unpack(folder: Path, content: str, fill: Callable[[Path], None]) -> None:
    """Fill a folder under another name, rename it when it is whole; ``content`` tells one filling from another."""
    stamp = folder / ".content"
    if stamp.is_file() and stamp.read_text() == content:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        fresh = Path(work) / folder.name
        fresh.mkdir()
        fill(fresh)
        write_bytes(fresh / ".content", content.encode())
        if folder.exists():
            os.replace(folder, Path(work) / "old")
        os.replace(fresh, folder)


def _sysroot(home: Home, debs: list[download.File], folder: Path) -> None:
    for one in debs:
        ended = execute(["dpkg-deb", "-x", home.downloads / one.file, folder], timeout_s=120, fix="apt install dpkg")
        if ended.code != 0:
            raise MissingError(f"{one.file} cannot be unpacked: {ended.stderr.decode('utf-8', 'replace').strip()}")
    shutil.rmtree(folder / "usr/share/doc", ignore_errors=True)
    cpus = f"0-{CORES - 1}\n"
    write_bytes(folder / "proc/cpuinfo", "".join(CPU_INFO.format(core=core) for core in range(CORES)).encode())
    for name, text in {"possible": cpus, "present": cpus, "online": cpus, "kernel_max": f"{CORES - 1}\n"}.items():
        write_bytes(folder / "sys/devices/system/cpu" / name, text.encode())


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(folder)


def _try(home: Home, runtime: str) -> None:
    """Import a runtime. Python writes down what it compiles, so that later starts are quicker."""
    module = f"{runtime.replace('-', '_')}.interpreter"
    ended = execute(home.command(runtime, ["-c", _TRY, module]), timeout_s=_TRY_S, fix="sudo apt install qemu-user")
    if ended.code != 0:
        tail = "\n".join(ended.stderr.decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:])
        raise MissingError(f"{runtime} does not start on the emulated board (exit code {ended.code}):\n{tail}",
                           fix="this was tried with QEMU 7.2; please report yours.")  # fmt: skip
