"""Write files atomically, hash them, and lock folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprune.errors import OutputError, UsageError

# A JSON object as Python holds it. Its values stay Any, because a recursive type would have to be narrowed at every
# key that is read; the documents that leave edgeprune are checked by edgeprune/report/schema.py.
JsonObject = dict[str, Any]

_CAUSES = {
    errno.ENOSPC: ("there is no space left on the disk", "free some space, or choose another folder with --out."),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another folder with --out."),
    errno.EACCES: ("you have no permission to write there", "choose another folder with --out."),
    errno.EPERM: ("you have no permission to write there", "choose another folder with --out."),
    errno.EROFS: ("the file system is read-only", "choose another folder with --out."),
    errno.EEXIST: ("a file of that name is in the way", "choose another folder with --out."),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another folder with --out."),
    errno.EISDIR: ("a folder of that name is in the way", "choose another folder with --out."),
    errno.ELOOP: ("a link in the path leads to itself", "choose another folder with --out."),
    errno.ENAMETOOLONG: ("the name is longer than the file system takes", "choose a shorter one with --out."),
    errno.EIO: ("the disk reports an error", "choose another disk with --out."),
}
# Only of what was to be written: that some other file is missing is another matter.
_NO_FOLDER = ("its folder cannot be made there, or was removed", "choose another folder with --out.")


def require_writable(path: Path) -> None:
    """Make sure, before long work, that a file can be written in the end.

    Raises:
        OutputError: its folder is missing or not writable, or it is a folder itself.
    """
    with output_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors from writing ``path`` into an :class:`OutputError`.

    Errors that the user cannot act on, those without an entry in the table above, pass unchanged.
    """
    try:
        yield
    except OSError as error:
        missing = error.errno == errno.ENOENT and _is_on_the_way(error.filename, path)
        known = _NO_FOLDER if missing else _CAUSES.get(error.errno or 0)
        if known is None:
            raise
        cause, fix = known
        raise OutputError(f"Cannot write {error.filename or path}: {cause}.", fix=fix) from error


def _is_on_the_way(name: object, path: Path) -> bool:
    """Whether the file that an error names is ``path``, above it or below."""
    if not isinstance(name, str):
        return False
    return Path(name).is_relative_to(path) or path.is_relative_to(name)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which is renamed to ``path`` at the end, or removed after an error.

    So ``path`` never holds half a file, even when the process is killed.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` under ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, document: object) -> None:
    """Write a JSON document under ``path`` atomically."""
    write_bytes(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def copy_file(source: Path, path: Path) -> None:
    """Copy ``source`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, as a hex string."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(document: object) -> str:
    """SHA-256 of a JSON document with sorted keys, as a hex string."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create a folder and hold its lock, which the operating system releases however the process ends.

    Raises:
        UsageError: another process holds it.
        OutputError: the folder cannot be created.
    """
    import filelock

    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise UsageError(
                f"Another edgeprune process is using the folder {folder}.",
                fix="wait until it has ended, or choose another folder with --out.",
            ) from None
    try:
        yield
    finally:
        lock.release()
