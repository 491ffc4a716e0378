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

from edgeprune.errors import MissingError
from edgeprune.external import execute, find
from edgeprune.files import JsonObject, sha256_json

QEMU, COMPILER = "qemu-aarch64", "gcc"
# Command → the Debian packages that bring it.
PACKAGES = {QEMU: "qemu-user", COMPILER: "gcc libc6-dev"}
RUNTIMES = ("ai-edge-litert", "tflite-runtime")
PLUGIN_SOURCE = "emulator_plugin.c"
SETUP = "edgeprune emulator setup"


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
    """The parts that the emulated board is built from."""

    debian: Debian
    cpu: EmulatedCpu
    wheels: Mapping[str, Wheel]

    @cached_property
    def digest(self) -> str:
        """A hash of all parts."""
        return sha256_json(asdict(self))


def default_parts() -> Parts:
    """The parts in ``emulator.toml``."""
    document = tomllib.loads(_resource("emulator.toml").read_text("utf-8"))
    debian: JsonObject = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document["debian"].items()
    }
    wheels = {name: Wheel(name, **facts) for name, facts in document["wheels"].items()}
    return Parts(Debian(**debian), EmulatedCpu(**document["cpu"]), wheels)


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

    def plugin(self) -> Path:
        """The compiled plugin; built when its source or QEMU has changed.

        Raises:
            MissingError: no compiler, or it fails.
        """
        source = _resource(PLUGIN_SOURCE).read_text("utf-8")
        # The interface of plugins has a number: 1 up to QEMU 8. From QEMU 9 on, 2 is the oldest that is accepted.
        api = 1 if int(qemu_version().split(".")[0]) < 9 else 2
        built = self.folder / f"plugin-{sha256_json([source, api])[:12]}.so"
        if not built.exists():
            require_tools([COMPILER])
            self.folder.mkdir(parents=True, exist_ok=True)
            text, part = self.folder / PLUGIN_SOURCE, built.with_suffix(".part")
            text.write_text(source, "utf-8")
            words: list[str | Path] = [
                COMPILER,
                "-O2",
                "-Wall",
                "-fPIC",
                "-shared",
                "-fvisibility=hidden",
                f"-DAPI={api}",
                "-o",
                part,
            ]
            fix = f"sudo apt install {PACKAGES[COMPILER]}"
            ended = execute([*words, text], timeout_s=120, fix=fix)
            if ended.code != 0:
                reason = ended.stderr.decode("utf-8", "replace").strip()
                raise MissingError(f"The plugin that counts instructions cannot be compiled:\n{reason}", fix=fix)
            os.replace(part, built)
        return built

    def command(self, runtime: str, arguments: Sequence[str], log: str | None = None) -> list[str]:
        """The command that starts Python on the emulated board.

        Its environment is set here and nowhere else, so that counts do not depend on the user's: hashes of strings are
        fixed, and NumPy's library starts no threads.

        Args:
            runtime: one of ``RUNTIMES``.
            arguments: of Python.
            log: file in the working folder into which the plugin writes; None: no plugin.
        """
        paths = [self.wheels / self.parts.wheels[name].folder for name in ("numpy", runtime)]
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        # QEMU splits options at commas that are not doubled. After "file=", the path may contain an equals sign.
        plugin = ["-plugin", "file=" + str(self.plugin()).replace(",", ",,"), "-d", "plugin", "-D", log] if log else []
        python = self.sysroot / "usr/bin/python3.11"
        return [
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *(str(find(QEMU) or QEMU), "-cpu", "cortex-a72", "-L", str(self.sysroot), *plugin),
            *(str(python), "-s", "-S", *arguments),
        ]


def _resource(name: str) -> Any:
    return resources.files("edgeprune.devices") / name
