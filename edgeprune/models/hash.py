"""The hash of a model, which identifies it in the keys of stages."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ModelError
from edgeprune.files import sha256_file

if TYPE_CHECKING:
    import tf_keras


def model_hash(source: str | Path | tf_keras.Model) -> str:
    """SHA-256 of a model, as a hex string.

    A file: of its content. A SavedModel folder: of the names and contents of its files in sorted order. A model object:
    of its configuration, loss, metrics and weights; the state of its optimizer does not count.

    Raises:
        ModelError: the file or folder is missing or cannot be read.
    """
    if not isinstance(source, (str, Path)):
        return _object_hash(source)
    path = Path(source)
    try:
        return _folder_hash(path) if path.is_dir() else sha256_file(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Cannot read {path}: {error}", expected="a model file or folder", fix="check the path."
        ) from error


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.is_file())
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
        digest.update(f"{name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _object_hash(source: tf_keras.Model) -> str:
    from edgeprune.models.compiled import live_objects
    from edgeprune.models.load import open_model

    opened = open_model(source)
    model = opened.model
    code = {name: _code(value) for name, value in live_objects(source).items()}
    document = {"model": model.get_config(), "compiled": opened.compiled.to_json(), "code": code}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode())
    if opened.front:
        digest.update(opened.front.fingerprint())
    for weight in model.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _code(value: Any) -> list[str]:
    """The source of a function, class or object, and the plain values that it was made with."""
    thing = value if hasattr(value, "__name__") else type(value)
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    settings = cells if thing is value else [part for pair in sorted(vars(value).items()) for part in pair]
    plain = [repr(part) for part in settings if part is None or isinstance(part, bool | int | float | str | tuple)]
    try:
        return [inspect.getsource(thing), *plain]
    except (OSError, TypeError):  # defined in an interactive session
        return plain
