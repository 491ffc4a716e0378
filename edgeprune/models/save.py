"""Write a model as a .keras file of which the same model always gives the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import UsageError
from edgeprune.files import JsonObject, atomic_path

if TYPE_CHECKING:
    import tf_keras

# The first moment that a zip archive can express.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_DATE = "1980-01-01@00:00:00"
_SHARED = "shared_object_id"


def save_model(model: tf_keras.Model, path: str | Path) -> None:
    """Write ``model`` as a ``.keras`` file: all of it or nothing, and byte for byte reproducible.

    What Keras writes differs from run to run: it stamps the time into the archive and its metadata, and marks shared
    objects by their address in memory. Here the time is constant, the members are in sorted order, and shared objects
    are numbered in the order in which they appear.

    Args:
        path: ends in ``.keras``; the folder is made when it is missing, an existing file is replaced.

    Raises:
        UsageError: the name does not end in ``.keras``.
        OutputError: no space, no permission; nothing is left behind under the final name.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise UsageError(f"Models are saved as .keras files, not as {path.name}.", fix=f"name it {path.stem}.keras.")
    with atomic_path(path) as temporary:
        model.save(temporary, save_format="keras")
        temporary.write_bytes(_normalized(temporary))


def _normalized(path: Path) -> bytes:
    """The archive at ``path`` with everything that depends on the time or the process made constant."""
    content = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(content, "w") as target:
        for name in sorted(source.namelist()):
            member = zipfile.ZipInfo(name, _ZIP_TIME)
            member.create_system = 3  # Unix, whatever the machine
            target.writestr(member, _NORMALIZERS.get(name, bytes)(source.read(name)))
    return content.getvalue()


def _constant_date(metadata: bytes) -> bytes:
    return json.dumps({**json.loads(metadata), "date_saved": _DATE}).encode()


def _numbered_objects(config: bytes) -> bytes:
    numbers: dict[int, int] = {}

    def renumber(entry: JsonObject) -> JsonObject:
        if isinstance(address := entry.get(_SHARED), int):
            entry[_SHARED] = numbers.setdefault(address, len(numbers))
        return entry

    return json.dumps(json.loads(config, object_hook=renumber)).encode()


_NORMALIZERS = {"metadata.json": _constant_date, "config.json": _numbered_objects}
