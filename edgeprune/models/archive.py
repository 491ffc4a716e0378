"""Open ``.keras`` archives. Everything about the members is checked before the first is unpacked.

Keras reads a copy that is made of the checked members (:meth:`Archive.copy`), never the archive itself: what it unpacks
to disk, and what two readers of one zip file could understand differently, is then known.
"""

from __future__ import annotations

import contextlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgeprune.errors import ModelError
from edgeprune.models.limits import MEMBERS, most_bytes, refused, shown
from edgeprune.models.types import ConfigValue

CONFIG, METADATA, WEIGHTS, ASSETS = "config.json", "metadata.json", "model.weights.h5", "assets/"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# The end of a zip file: (signature, bytes of the record, format and offset of its count of members).
_ENDS = ((b"PK\x05\x06", 22, "<H", 10), (b"PK\x06\x06", 56, "<Q", 32))
_COMMENT_BYTES = 1 << 16


class Archive:
    """A checked archive.

    Attributes:
        members: name → bytes when unpacked; folders are left out.
    """

    def __init__(self, path: Path, file: zipfile.ZipFile):
        self._path, self._file = path, file
        _check(path, file.infolist())
        self.members = {info.filename: info.file_size for info in file.infolist() if not info.is_dir()}

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            ModelError: there is none of this name.
            zipfile.BadZipFile, zlib.error: it is damaged.
        """
        if name not in self.members:
            raise ModelError(
                f"{self._path} has no {name}.",
                expected="a Keras file, whole",
                fix="copy or save the file again; a part of it is missing.",
            )
        return self._file.read(name)

    def copy(self, config: ConfigValue) -> io.BytesIO:
        """The members that Keras reads as an archive in memory, uncompressed, with ``config`` as the description."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as copy:
            copy.writestr(METADATA, self.read(METADATA))
            copy.writestr(CONFIG, json.dumps(config))
            for name in self.members:
                if name == WEIGHTS or name.startswith(ASSETS):
                    copy.writestr(name, self.read(name))
        target.seek(0)
        return target


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip file; the only place that does.

    Raises:
        ModelError: it holds what Keras never writes.
        zipfile.BadZipFile, OSError, ValueError: it is damaged.
    """
    if _count(path) > MEMBERS:
        raise refused(path, f"has more than {MEMBERS:,} members")
    with zipfile.ZipFile(path) as file:
        yield Archive(path, file)


def _count(path: Path) -> int:
    """The largest number of members that the end of a zip file states: reading them all takes memory."""
    with open(path, "rb") as file:
        file.seek(0, io.SEEK_END)
        file.seek(-min(file.tell(), _COMMENT_BYTES + sum(size for _, size, _, _ in _ENDS) + 20), io.SEEK_CUR)
        tail = file.read()
    counts = [0]
    for signature, size, form, offset in _ENDS:
        at = tail.rfind(signature)
        if 0 <= at <= len(tail) - size:
            counts += struct.unpack_from(form, tail, at + offset)
    return max(counts)


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [info.filename for info in members]
    if len(set(names)) < len(names):
        raise refused(path, "has two members of the same name")
    for info in members:
        parts = info.filename.replace("\\", "/").split("/")
        if not parts[0] or ".." in parts or ":" in info.filename or "\0" in info.filename:
            raise refused(path, f"has a member {shown(info.filename)}, which is a path to somewhere else")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refused(path, f"has a member {shown(info.filename)}, which is a link or a device")
        if info.flag_bits & _ENCRYPTED:
            raise refused(path, f"has an encrypted member, {shown(info.filename)}")
        if info.compress_type not in _METHODS:
            raise refused(path, f"has a member {shown(info.filename)} of an unusual compression")
    size = path.stat().st_size
    # Members that overlap, or that are claimed to be longer than the file, would be unpacked several times.
    if sum(info.compress_size for info in members) > size:
        raise ValueError("its members are longer than the file")
    unpacked = sum(info.file_size for info in members)
    if unpacked > most_bytes(size):
        raise refused(path, f"would unpack {size / 1e6:,.1f} MB to {unpacked / 1e6:,.0f} MB")
