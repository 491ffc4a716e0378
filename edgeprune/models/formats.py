"""What is in a model file, read without building anything: its format, architecture and compile information."""

from __future__ import annotations

import dataclasses
import json
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgeprune._tensorflow import import_tf
from edgeprune.errors import ModelError
from edgeprune.files import JsonObject
from edgeprune.models.types import ConfigValue

Format = Literal["h5", "keras", "saved_model"]

ACCEPTED = "a Keras model: a .keras, .h5 or .hdf5 file, or a SavedModel folder written by Keras 2"
_PASS_KERAS = "pass the Keras model itself, saved with model.save('NAME.keras')."
_COPY_AGAIN = "copy or save the file again; it looks cut short or overwritten."

# (offset, bytes, name) of files that people hand in by mistake.
_FOREIGN = (
    (4, b"TFL3", "a .tflite file, which is converted already"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x1f\x8b", "a gzip archive (unpack it first)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x80\x02", "a pickle, as PyTorch writes"),
)
# Other programs' zip archives, recognised by a member: (end of the member's name, what the archive is).
_FOREIGN_ZIP = (
    ("data.pkl", "a PyTorch file"),
    (".npy", "a NumPy archive (.npz)"),
    ("saved_model.pb", "a zipped SavedModel (unpack it first)"),
)
# What h5py, zipfile and zlib raise on damaged bytes, and what JSON of an unexpected form leads to.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error),
    *(ValueError, KeyError, TypeError, AttributeError),
)


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A Keras model as its file describes it; weights are still in the file.

    Attributes:
        path: the file, or the folder of a SavedModel.
        format: how it is stored.
        keras_version: as the file states it, for example ``"2.15.0"``; empty where the file states none.
        config: the architecture: ``{"class_name": str, "config": {...}, ...}``.
        training: loss, metrics and optimizer as in the file; ``None`` when the model was not compiled.
        has_assets: it holds vocabularies beside the weights.
    """

    path: Path
    format: Format
    keras_version: str
    config: JsonObject
    training: JsonObject | None
    has_assets: bool = False

    @property
    def is_keras3(self) -> bool:
        return self.keras_version.startswith("3.")


def read_model_file(path: Path) -> ModelFile:
    """Recognise a model by its content, and read its description.

    Raises:
        ModelError: the path is missing, unreadable, empty, damaged, foreign, or holds weights only.
    """
    reader = _reader(path)
    try:
        return reader(path)
    except PermissionError as error:
        raise _unreadable(path) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    """The error for a file of a known format whose content cannot be read."""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return ModelError(
        f"{path} cannot be read as a Keras model: {said}", expected=f"{ACCEPTED}, undamaged", fix=_COPY_AGAIN
    )


def _reader(path: Path) -> Callable[[Path], ModelFile]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            names = {entry.name for entry in path.iterdir()}
            return _saved_model_reader(path, names)
        if not stat.S_ISREG(mode):
            raise ModelError(f"{path} is neither a file nor a folder.", expected=ACCEPTED)
        with open(path, "rb") as file:
            head = file.read(1024)
    except PermissionError as error:
        raise _unreadable(path) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"There is no model at {path}.", expected=ACCEPTED, fix="check the path.") from error
    return _file_reader(path, head)


def _unreadable(path: Path) -> ModelError:
    return ModelError(f"You have no permission to read {path}.", expected=ACCEPTED, fix=f"chmod +r '{path}'")


def _file_reader(path: Path, head: bytes) -> Callable[[Path], ModelFile]:
    if not head:
        raise ModelError(f"{path} is empty.", expected=ACCEPTED, fix=_COPY_AGAIN)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _read_h5
    if head.startswith(b"PK\x03\x04"):
        return _read_keras_zip
    for offset, magic, name in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise _foreign(path, name)
    if path.suffix in (".keras", ".h5", ".hdf5"):
        raise ModelError(
            f"{path} is named like a Keras model, but its content is none.", expected=ACCEPTED, fix=_COPY_AGAIN
        )
    raise _foreign(path, f"a {path.suffix} file" if path.suffix else "a file of an unknown kind")


def _foreign(path: Path, name: str) -> ModelError:
    return ModelError(f"{path} is not a Keras model but {name}.", expected=ACCEPTED, fix=_PASS_KERAS)


def _saved_model_reader(path: Path, names: set[str]) -> Callable[[Path], ModelFile]:
    if "keras_metadata.pb" in names and "saved_model.pb" in names:
        return _read_saved_model
    if "saved_model.pb" in names:
        raise ModelError(
            f"{path} is a SavedModel without Keras metadata: its graph is fixed, and its layers cannot be pruned.",
            expected=ACCEPTED,
            fix="pass the Keras model it was exported from; model.export and tf.saved_model.save leave the layers out.",
        )
    raise ModelError(
        f"{path} is a folder, but not a SavedModel: it has no saved_model.pb.",
        expected=ACCEPTED,
        fix="name the model file, or the folder that holds saved_model.pb.",
    )


def _read_h5(path: Path) -> ModelFile:
    import h5py

    with h5py.File(path, "r") as file:
        version, config, training = (
            _text(file.attrs.get(n)) for n in ("keras_version", "model_config", "training_config")
        )
        keys = set(file.keys())
    if config is None:
        raise _weights_only(path) if keys or version else _foreign(path, "an HDF5 file of another kind")
    return _model_file(path, "h5", version, config, training)


def _weights_only(path: Path) -> ModelError:
    return ModelError(
        f"{path} holds no model, only weights or other data.",
        expected=f"{ACCEPTED}, with its architecture",
        fix="load the weights into the model in Python, then save all of it with model.save('NAME.keras').",
    )


def _read_keras_zip(path: Path) -> ModelFile:
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        if not {"config.json", "metadata.json"} <= members:
            known = (name for end, name in _FOREIGN_ZIP if any(m.endswith(end) for m in members))
            raise _foreign(path, next(known, "a zip archive of another kind"))
        config = archive.read("config.json").decode()
        metadata = json.loads(archive.read("metadata.json"))
    version = str(metadata.get("keras_version", ""))
    if path.suffix != ".keras":
        raise ModelError(
            f"{path} is a Keras file under another name.", expected="the ending .keras", fix="rename the file."
        )
    training = json.loads(config).get("compile_config")
    file = _model_file(path, "keras", version, config, training)
    assets = any(m.startswith("assets/") and not m.endswith("/") for m in members)
    return dataclasses.replace(file, has_assets=assets)


def _read_saved_model(path: Path) -> ModelFile:
    import_tf()
    from google.protobuf.message import DecodeError
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    metadata = SavedMetadata()
    try:
        metadata.ParseFromString((path / "keras_metadata.pb").read_bytes())
    except DecodeError as error:
        raise _damaged(path / "keras_metadata.pb", error) from error
    root = next((node.metadata for node in metadata.nodes if node.node_path == "root"), None)
    if root is None:
        raise _damaged(path / "keras_metadata.pb", ValueError("no root object"))
    model = json.loads(root)
    if not model.get("is_graph_network"):
        raise subclassed(str(path), model.get("class_name"))
    config = json.dumps({"class_name": model["class_name"], "config": model["config"]})
    return _model_file(path, "saved_model", model.get("keras_version"), config, model.get("training_config"))


def without_vocabulary(file: ModelFile, layer: str) -> ModelError:
    """The error for a lookup layer that has no words."""
    if file.format == "saved_model":
        return ModelError(
            f"{file.path} keeps the vocabulary of the layer {layer!r} in its graph, which is not run.",
            expected="a .keras file, which has it as text",
            fix=f"in Python: tf_keras.models.load_model({str(file.path)!r}).save('NAME.keras'), and name that file.",
        )
    return ModelError(
        f"{file.path}: the vocabulary of the layer {layer!r} is empty.",
        expected="a layer that knows words",
        fix="call its adapt() on the training data, or give it vocabulary=[...], before the model is saved.",
    )


def subclassed(name: str, class_name: str | None) -> ModelError:
    """The error for a model whose structure is Python code."""
    return ModelError(
        f"{name} is a subclassed model ({class_name}): its structure is Python code, which edgeprune cannot change.",
        expected="a functional or Sequential model",
        fix="rebuild it as a functional model: call its layers on tf_keras.Input(shape) and wrap the result in "
        "tf_keras.Model(inputs, outputs).",
    )


def _model_file(path: Path, form: Format, version: object, config: str, training: object) -> ModelFile:
    if not isinstance(version, str | None):
        raise ValueError("its Keras version is not a string")
    parsed = json.loads(config)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("config"), (dict, list)):
        raise ValueError("its architecture is not a Keras configuration")
    if isinstance(training, str):
        training = json.loads(training)
    training = training if isinstance(training, dict) else None
    return ModelFile(path, form, version or "", _without_compile(parsed), training)


def _without_compile(config: ConfigValue) -> ConfigValue:
    """The configuration without what its models were compiled with: custom losses must not stop the layers."""
    if isinstance(config, dict):
        return {key: _without_compile(value) for key, value in config.items() if key != "compile_config"}
    if isinstance(config, list):
        return [_without_compile(item) for item in config]
    return config


def _text(attribute: ConfigValue) -> ConfigValue:
    """The value of an attribute of an HDF5 file; bytes become a string."""
    return attribute.decode() if isinstance(attribute, bytes) else attribute
