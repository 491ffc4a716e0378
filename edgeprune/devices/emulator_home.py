"""The emulated board: its folder on this machine, its parts, and the command that starts a program on it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from filelock import FileLock

from edgeprune.devices.cores import DEFAULT, Core
from edgeprune.errors import MissingError
from edgeprune.external import execute, find
from edgeprune.files import JsonObject, sha256_json, write_bytes

QEMU, COMPILER = "qemu-aarch64", "gcc"
# Command → the Debian packages that bring it.
PACKAGES = {QEMU: "qemu-user", COMPILER: "gcc libc6-dev"}
RUNTIMES = ("ai-edge-litert", "tflite-runtime")
HEADER = "emulator_plugin.h"
SETUP = "edgeprune emulator setup"


@dataclass(frozen=True)
class Plugin:
    """A plugin of QEMU: its source in this folder, and its options."""

    source: str
    options: tuple[str, ...] = ()


COUNTING = Plugin("emulator_plugin.c")


@dataclass(frozen=True)
class Debian:
    """Packages of a distribution for arm64; ``archives`` are lines of sources.list without type and options."""

    release: str
    keyring: str
    archives: tuple[str, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """A wheel for aarch64, pinned by the SHA-256 of its file."""

    name: str
    version: str
    platform: str
    file: str
    sha256: str

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class EmulatedCpu:
    """The processor that a program on the board sees; ``info`` are the lines of /proc/cpuinfo for each core."""

    cores: int
    info: str


@dataclass(frozen=True)
class Parts:
    """The parts that the emulated board is built from; ``others`` are runtimes that it can be given later."""

    debian: Debian
    cpu: EmulatedCpu
    wheels: Mapping[str, Wheel]
    others: tuple[Wheel, ...] = ()

    @cached_property
    def digest(self) -> str:
        """A hash of all parts that every board has."""
        return sha256_json({key: value for key, value in asdict(self).items() if key != "others"})

    @property
    def runtimes(self) -> dict[str, Wheel]:
        """The wheels of runtimes by what they are asked for: a package, or a package and its version."""
        always = {name: self.wheels[name] for name in RUNTIMES}
        return {**always, **{f"{one.name} {one.version}": one for one in (*always.values(), *self.others)}}


def default_parts() -> Parts:
    """The parts in ``emulator.toml``."""
    document = tomllib.loads(_resource("emulator.toml").read_text("utf-8"))
    debian: JsonObject = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document["debian"].items()
    }
    wheels = {name: Wheel(name, **facts) for name, facts in document["wheels"].items()}
    others = tuple(Wheel(**facts) for facts in document["others"])
    return Parts(Debian(**debian), EmulatedCpu(**document["cpu"]), wheels, others)


def cache_folder() -> Path:
    """EDGEPRUNE_CACHE, else ``edgeprune`` in XDG_CACHE_HOME, else in ``~/.cache``."""
    given = os.environ.get("EDGEPRUNE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "edgeprune"


def require_tools(names: Sequence[str] = tuple(PACKAGES)) -> None:
    """Make sure that commands are installed.

    Raises:
        MissingError: one is not; the message has the command for apt.
    """
    missing = [name for name in names if find(name) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        raise MissingError(
            f"The emulated board needs {' and '.join(missing)}, and cannot find "
            f"{'it' if len(missing) == 1 else 'them'} on this machine.",
            fix=f"sudo apt install {packages}",
        )


def qemu_version() -> str:
    """The release of the emulator, for example '7.2.22'.

    Raises:
        MissingError: it is not installed.
    """
    require_tools([QEMU])
    printed = execute([QEMU, "--version"], timeout_s=30, fix=f"sudo apt install {PACKAGES[QEMU]}").stdout.decode()
    found = re.search(r"version (\d+[\d.]*)", printed)
    if found is None:
        raise MissingError(f"{QEMU} does not tell its version.", fix=f"sudo apt install {PACKAGES[QEMU]}")
    return found[1]


class Home:
    """The folder of the emulated board: ``downloads/``, ``sysroot/`` (Debian), ``wheels/``, the plugin, ``ready.json``.

    Args:
        folder: None for ``emulator`` in :func:`cache_folder`.
        parts: None for those that edgeprune pins.
    """

    def __init__(self, folder: Path | None = None, parts: Parts | None = None):
        self.folder = (folder or cache_folder() / "emulator").absolute()
        self.parts = parts or default_parts()
        self.downloads, self.sysroot = self.folder / "downloads", self.folder / "sysroot"
        self.wheels, self.ready_file = self.folder / "wheels", self.folder / "ready.json"

    def ready(self) -> JsonObject | None:
        """What setup wrote at its end; None when it is not finished, was for other parts, or files are lost."""
        try:
            document = json.loads(self.ready_file.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        is_whole = document.get("parts") == self.parts.digest and document.get("content") == self.content()
        return document if is_whole else None

    @property
    def places(self) -> list[Path]:
        """The folders that setup fills."""
        return [self.sysroot, *(self.wheels / wheel.folder for wheel in self.parts.wheels.values())]

    def content(self) -> dict[str, list[int]]:
        """Number and total bytes of the files in each place, which change when a file is lost or truncated.

        Files that Python compiled are not counted, because Python writes them again.
        """
        counts = {}
        for place in self.places:
            sizes = [
                os.lstat(os.path.join(folder, name)).st_size
                for folder, _, names in os.walk(place)
                if not folder.endswith("__pycache__")
                for name in names
            ]
            counts[place.name] = [len(sizes), sum(sizes)]
        return counts

    def require(self) -> JsonObject:
        """The document that setup wrote at its end.

        Raises:
            MissingError: tools are missing, or setup is not finished.
        """
        self.check()
        document = self.ready()
        if document is None:
            state = "is damaged or out of date" if self.ready_file.exists() else "is not set up"
            raise MissingError(f"The emulated board in {self.folder} {state}.", fix=f"run `{SETUP}`.")
        return document

    def require_runtime(self, runtime: str) -> None:
        """Make sure that a runtime is on the board, which is set up.

        Args:
            runtime: a key of :attr:`Parts.runtimes`.

        Raises:
            MissingError: it is one of those that are added later, and was not.
        """
        if not (self.wheels / self.parts.runtimes[runtime].folder).is_dir():
            raise MissingError(
                f"The emulated board does not have {runtime} yet.", fix=f'run `{SETUP} --runtime "{runtime}"`.'
            )

    def check(self) -> None:
        """Make sure that a board can be built in the folder.

        Raises:
            MissingError: a tool is missing, or the folder's name cannot be used.
        """
        require_tools()
        if os.pathsep in str(self.folder):
            raise MissingError(
                f"The emulated board cannot be in {self.folder}: its Python splits paths at {os.pathsep!r}.",
                fix="set EDGEPRUNE_CACHE to another folder.",
            )

    def plugin(self, source: str = COUNTING.source) -> Path:
        """A compiled plugin; built when its source or QEMU has changed.

        Args:
            source: the file in this folder.

        Raises:
            MissingError: no compiler, or it fails.
        """
        texts = [_resource(name).read_text("utf-8") for name in (source, HEADER)]
        # The interface of plugins has a number: 1 up to QEMU 8. From QEMU 9 on, 2 is the oldest that is accepted.
        api = 1 if int(qemu_version().split(".")[0]) < 9 else 2
        built = self.folder / f"plugin-{sha256_json([*texts, api])[:12]}.so"
        if not built.exists():
            require_tools([COMPILER])
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, text in zip((source, HEADER), texts, strict=True):
                (self.folder / name).write_text(text, "utf-8")
            part = built.with_suffix(f".{os.getpid()}.part")
            options = ("-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden", f"-DAPI={api}")
            fix = f"sudo apt install {PACKAGES[COMPILER]}"
            ended = execute([COMPILER, *options, "-o", part, self.folder / source], timeout_s=120, fix=fix)
            if ended.code != 0:
                reason = ended.stderr.decode("utf-8", "replace").strip()
                raise MissingError(f"The plugin {source} cannot be compiled:\n{reason}", fix=fix)
            os.replace(part, built)
        return built

    def _root(self, core: Core) -> Path:
        """The folder that the emulated program takes for '/': the same files for every core, but /proc/cpuinfo."""
        if core.info is None:
            return self.sysroot
        root = self.folder / "cores" / sha256_json([core.info, self.parts.digest])[:12]
        made = root / "proc/cpuinfo"
        if made.is_file():
            return root
        with FileLock(self.folder / "lock"):
            for place in self.sysroot.iterdir():
                link = root / place.name
                if place.name != "proc" and not link.is_symlink():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(Path("../..") / self.sysroot.name / place.name)
            write_bytes(made, cpu_info(self.parts.cpu.cores, core.info))  # last: the folder is complete
        return root

    def command(
        self,
        runtime: str,
        arguments: Sequence[str],
        log: str | None = None,
        plugin: Plugin = COUNTING,
        core: Core = DEFAULT,
    ) -> list[str]:
        """The command that starts Python on the emulated board.

        Its environment is set here and nowhere else, so that counts do not depend on the user's: hashes of strings are
        fixed, and NumPy's library starts no threads.

        Args:
            runtime: a key of :attr:`Parts.runtimes`.
            arguments: of Python.
            log: file in the working folder into which the plugin writes; None: no plugin.
            plugin: which one.
            core: the processor.
        """
        paths = [self.wheels / one.folder for one in (self.parts.wheels["numpy"], self.parts.runtimes[runtime])]
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        words = []
        if log:
            # QEMU splits options at commas that are not doubled. After "file=", the path may contain an equals sign.
            file = str(self.plugin(plugin.source)).replace(",", ",,")
            words = ["-plugin", ",".join([f"file={file}", *plugin.options]), "-d", "plugin", "-D", log]
        python = self.sysroot / "usr/bin/python3.11"
        return [
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *(str(find(QEMU) or QEMU), "-cpu", core.qemu, "-L", str(self._root(core)), *words),
            *(str(python), "-s", "-S", *arguments),
        ]


def cpu_info(cores: int, info: str) -> bytes:
    """The content of /proc/cpuinfo."""
    return "".join(f"processor\t: {core}\n{info}\n" for core in range(cores)).encode()


def _resource(name: str) -> Any:
    return resources.files("edgeprune.devices") / name
