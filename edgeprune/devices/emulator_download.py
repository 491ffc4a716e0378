"""Download the parts of the emulated board: Debian packages with apt, wheels with pip; every file's hash is checked.

No step needs root: apt works in folders of its own, with an archive list and a keyring of its own, and leaves the
machine's package lists alone.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeprune.devices.emulator_home import Debian, Wheel
from edgeprune.errors import MissingError
from edgeprune.external import TAIL_LINES, execute
from edgeprune.files import sha256_file, write_json
from edgeprune.progress import Progress

TIMEOUT_S = 600
RESUME = "check the network and run the same command again: finished downloads are kept."
# 'URI' FILE SIZE SHA256:HASH, as `apt-get download --print-uris` writes it.
_URI = re.compile(r"^'[^']+' (?P<file>[^/\s]+) (?P<bytes>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")


@dataclass(frozen=True)
class File:
    """A file to download, and the SHA-256 that it must have."""

    name: str
    file: str
    sha256: str


def debs(debian: Debian, folder: Path, progress: Progress) -> list[File]:
    """Make sure that the packages are in ``folder``; when they are already, no network is used.

    Raises:
        MissingError: apt or the keyring is missing, no network, a wrong signature or hash.
    """
    record = folder / "debs.json"
    known = _recorded(record, debian)
    if known is not None and all(_is_whole(folder / one.file, one.sha256) for one in known):
        return known
    for command, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if shutil.which(command) is None:
            raise MissingError(f"The emulated board is built from Debian packages, and {command} is not installed.",
                               fix=f"sudo apt install {package}, or use a machine with Debian or Ubuntu.")  # fmt: skip
    if not Path(debian.keyring).is_file():
        raise MissingError(f"Debian's keyring {debian.keyring} is missing, so its packages cannot be verified.",
                           fix="sudo apt install debian-archive-keyring")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        apt = _Apt(Path(work), debian)
        progress.note(f"reading the signed package lists of {debian.release} for arm64")
        apt.run(["update"])
        found = apt.files()
        progress.begin("packages", len(found))
        for one in found:
            _fetch(folder, one, functools.partial(apt.download, one.name))
            progress.advance()
        progress.end()
    write_json(record, {"archives": debian.archives, "files": [asdict(one) for one in found]})
    return found


def wheel(wanted: Wheel, folder: Path) -> File:
    """Make sure that a wheel is in ``folder``.

    Raises:
        MissingError: pip is missing, no network, a wrong hash.
    """
    one = File(wanted.name, wanted.file, wanted.sha256)
    folder.mkdir(parents=True, exist_ok=True)
    _fetch(folder, one, lambda there: _pip(wanted, there))
    return one


def _fetch(folder: Path, one: File, download: Callable[[Path], None]) -> None:
    """Download a file unless it is there and whole; only a file with the right hash takes its name."""
    if _is_whole(folder / one.file, one.sha256):
        return
    with tempfile.TemporaryDirectory(dir=folder) as work:
        download(Path(work))
        fresh = Path(work) / one.file
        if not fresh.is_file():
            raise MissingError(f"{one.file} was not downloaded.", fix=RESUME)
        found = sha256_file(fresh)
        if found != one.sha256:
            raise MissingError(
                f"The downloaded file {one.file} has another SHA-256 than expected: {found}. It was deleted.",
                expected=one.sha256,
                fix="try again; if it happens again, do not trust the source of the download.",
            )
        os.replace(fresh, folder / one.file)


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _recorded(record: Path, debian: Debian) -> list[File] | None:
    """What an earlier setup downloaded from the same archives for the same packages; None when there was none."""
    try:
        document = json.loads(record.read_text("utf-8"))
        files = [File(**one) for one in document["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_same = document["archives"] == list(debian.archives) and {one.name for one in files} == set(debian.packages)
    return files if is_same else None


class _Apt:
    """apt-get with its state below ``work``, for arm64, whatever this machine's architecture and archives are."""

    def __init__(self, work: Path, debian: Debian):
        self._debian = debian
        for name in ("state/lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        (work / "status").touch()
        options = f"[arch=arm64 signed-by={debian.keyring}]"
        (work / "sources.list").write_text("".join(f"deb {options} {archive}\n" for archive in debian.archives))
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Update::Error-Mode": "any",  # an archive that cannot be reached is an error, not a warning
            "APT::Sandbox::User": "root",  # stay who we are: the folders are ours
            "Dir::State": work / "state",
            "Dir::State::status": work / "status",
            "Dir::Cache": work / "cache",
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "-",
            "Dir::Etc::preferencesparts": "-",
        }
        self._command = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]

    def run(self, arguments: list[str], cwd: Path | None = None) -> str:
        ended = execute([*self._command, *arguments], timeout_s=TIMEOUT_S, cwd=cwd, fix="sudo apt install apt")
        if ended.code != 0:
            tail = "\n".join(ended.stderr.decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:])
            raise MissingError(f"apt-get {arguments[0]} failed:\n{tail}", fix=RESUME)
        return ended.stdout.decode("utf-8", "replace")

    def download(self, name: str, folder: Path) -> None:
        """Put a package's file into a folder."""
        self.run(["download", name], folder)

    def files(self) -> list[File]:
        """The file of every package, with the hash that the signed index has for it."""
        printed = self.run(["download", "--print-uris", *self._debian.packages]).strip()
        found = {}
        for line in printed.splitlines():
            match = _URI.match(line)
            if match is None:
                raise MissingError(f"The archive gives no SHA-256 for a package: {line!r}.", fix=RESUME)
            name = match["file"].partition("_")[0]
            found[name] = File(name, match["file"], match["sha256"])
        missing = [name for name in self._debian.packages if name not in found]
        if missing:
            raise MissingError(f"The archive does not have {', '.join(missing)}.", fix=RESUME)
        return [found[name] for name in self._debian.packages]


def _pip(wanted: Wheel, folder: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise MissingError("pip is not installed in this Python environment.", fix="python -m ensurepip")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wanted.name}=={wanted.version} --hash=sha256:{wanted.sha256}\n")
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--dest",
        folder,
    ]
    words += ["--only-binary=:all:", "--platform", wanted.platform, "--python-version", "3.11"]
    words += ["--implementation", "cp", "--abi", "cp311", "--requirement", requirements]
    ended = execute(words, timeout_s=TIMEOUT_S, fix="python -m ensurepip")
    if ended.code != 0:
        tail = "\n".join(ended.stderr.decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:])
        raise MissingError(f"pip cannot download {wanted.file}:\n{tail}", fix=RESUME)
