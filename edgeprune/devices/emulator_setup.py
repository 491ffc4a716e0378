"""Build the emulated board: download, verify, unpack, compile, and start each runtime once."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from edgeprune.devices import emulator_download as download
from edgeprune.devices.emulator_home import RUNTIMES, Home, cpu_info, qemu_version
from edgeprune.errors import MissingError, UsageError
from edgeprune.external import TAIL_LINES, execute
from edgeprune.files import JsonObject, output_errors, sha256_json, write_bytes, write_json
from edgeprune.progress import Progress

_STAMP = ".content"
_TRY = "import sys, numpy; from importlib import import_module; import_module(sys.argv[1]); print(numpy.__version__)"
_TRY_S = 600


def setup(home: Home, progress: Progress | None = None) -> JsonObject:
    """Build the emulated board, or the parts that are missing. When nothing is, only start each runtime once.

    Returns:
        What ``ready.json`` holds: parts (digest), content (see :meth:`Home.content`), qemu, debs and wheels (file →
        SHA-256), bytes, seconds (of the run that completed it).

    Raises:
        MissingError: a tool is missing, no network, a hash or signature is wrong, or a runtime does not start.
        OutputError: the folder cannot be written.
    """
    home.check()
    progress = progress or Progress()
    with output_errors(home.folder):
        home.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(home.folder / "lock"):
            return _setup(home, progress)


def add_runtime(home: Home, runtime: str, progress: Progress | None = None) -> None:
    """Give a board that is set up another runtime, and start it once.

    Args:
        home: of the board.
        runtime: a key of :attr:`edgeprune.devices.emulator_home.Parts.runtimes`.
        progress: told what is done.

    Raises:
        UsageError: no such runtime.
        MissingError: no network, a hash is wrong, or the runtime does not start.
        OutputError: the folder cannot be written.
    """
    wanted = home.parts.runtimes.get(runtime)
    if wanted is None:
        raise UsageError(
            f"There is no runtime {runtime!r} for the emulated board.",
            expected=f"one of: {', '.join(home.parts.runtimes)}.",
        )
    with output_errors(home.folder), FileLock(home.folder / "lock"):
        (progress or Progress()).note(f"{wanted.name} {wanted.version}")
        download.wheel(wanted, home.downloads)
        unzip = functools.partial(_unzip, home.downloads / wanted.file)
        _unpack(home.wheels / wanted.folder, wanted.sha256, unzip)
        _try(home, runtime)


def _setup(home: Home, progress: Progress) -> JsonObject:
    started = time.monotonic()
    done = home.ready()
    if done is not None and _starts(home):
        return done
    if home.ready_file.exists():
        progress.note("the emulated board is damaged or out of date, and is built again")
        _forget(home)
    steps = 4
    progress.stage(1, steps, "Debian's packages for arm64", False)
    debs = download.debs(home.parts.debian, home.downloads, progress)
    progress.stage(2, steps, "Python wheels for aarch64", False)
    wheels = []
    for wanted in home.parts.wheels.values():
        progress.note(f"{wanted.name} {wanted.version}")
        wheels.append(download.wheel(wanted, home.downloads))
    progress.stage(3, steps, "unpacking, compiling", False)
    content = sha256_json([[one.sha256 for one in debs], asdict(home.parts.cpu)])
    _unpack(home.sysroot, content, functools.partial(_sysroot, home, debs))
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
        "content": home.content(),
        "qemu": qemu_version(),
        "debs": {one.file: one.sha256 for one in debs},
        "wheels": {one.file: one.sha256 for one in wheels},
        "bytes": sum(path.lstat().st_size for path in home.folder.rglob("*") if path.is_file()),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(home.ready_file, document)
    return document


def _starts(home: Home) -> bool:
    """Whether every runtime starts, as a file may be damaged without a change of its size."""
    try:
        for runtime in RUNTIMES:
            _try(home, runtime)
    except MissingError:
        return False
    return True


def _forget(home: Home) -> None:
    """Have everything unpacked and compiled again. Downloads are kept, as their hashes are checked."""
    home.ready_file.unlink()
    for built in [*(place / _STAMP for place in home.places), *home.folder.glob("plugin-*.so")]:
        built.unlink(missing_ok=True)


def _unpack(folder: Path, content: str, fill: Callable[[Path], None]) -> None:
    """Fill a folder, unless it was filled with the same ``content``; it gets its name only when it is complete."""
    stamp = folder / _STAMP
    if stamp.is_file() and stamp.read_text() == content:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        fresh = Path(work) / folder.name
        fresh.mkdir()
        fill(fresh)
        write_bytes(fresh / _STAMP, content.encode())
        if folder.exists():
            os.replace(folder, Path(work) / "old")
        os.replace(fresh, folder)


def _sysroot(home: Home, debs: list[download.File], folder: Path) -> None:
    for one in debs:
        ended = execute(["dpkg-deb", "-x", home.downloads / one.file, folder], timeout_s=120, fix="apt install dpkg")
        if ended.code != 0:
            raise MissingError(f"{one.file} cannot be unpacked: {ended.stderr.decode('utf-8', 'replace').strip()}")
    shutil.rmtree(folder / "usr/share/doc", ignore_errors=True)
    cpu = home.parts.cpu
    write_bytes(folder / "proc/cpuinfo", cpu_info(cpu.cores, cpu.info))
    cpus, last = f"0-{cpu.cores - 1}\n", f"{cpu.cores - 1}\n"
    for name, text in {"possible": cpus, "present": cpus, "online": cpus, "kernel_max": last}.items():
        write_bytes(folder / "sys/devices/system/cpu" / name, text.encode())


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(folder)


def _try(home: Home, runtime: str) -> None:
    """Import a runtime, with the plugin. Python caches what it compiles, so later starts are faster."""
    module = f"{home.parts.runtimes[runtime].name.replace('-', '_')}.interpreter"
    command = home.command(runtime, ["-c", _TRY, module], os.devnull)
    ended = execute(command, timeout_s=_TRY_S, fix="sudo apt install qemu-user")
    if ended.code != 0:
        tail = "\n".join(ended.stderr.decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:])
        raise MissingError(f"{runtime} does not start on the emulated board (exit code {ended.code}):\n{tail}",
                           fix="please report this with the version of your QEMU; 7.2 was tested.")  # fmt: skip
