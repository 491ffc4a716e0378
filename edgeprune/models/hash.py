"""The hash of a model, which identifies it in the keys of stages."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

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
    code = {name: inspect.getsource(value) for name, value in live_objects(source).items() if _has_source(value)}
    document = {"model": model.get_config(), "compiled": opened.compiled.to_json(), "code": code}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode())
    for weight in model.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _has_source(value: object) -> bool:
    try:
        return bool(inspect.getsource(value))  # type: ignore[arg-type]
    except (OSError, TypeError):  # defined in an interactive session
        return False
