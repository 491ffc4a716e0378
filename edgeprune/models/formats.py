"""What is in a model file, read without building anything: its format, architecture and compile information."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeprune._tensorflow import import_tf
from edgeprune.errors import ModelError
from edgeprune.files import JsonObject
from edgeprune.models.archive import ASSETS, CONFIG, METADATA, WEIGHTS, open_archive
from edgeprune.models.bundle import check_bundle
from edgeprune.models.hdf5 import open_hdf5
from edgeprune.models.limits import CONFIG_BYTES, check_calls, parse_json, refused
from edgeprune.models.saved_model import refuse_operators
from edgeprune.models.types import ConfigValue

if TYPE_CHECKING:
    import h5py

Format = Literal["h5", "keras", "saved_model"]

ACCEPTED = "a model: a .keras, .h5, .hdf5 or .tflite file, or a SavedModel folder written by Keras 2"
_PASS_KERAS = "pass the Keras model itself, saved with model.save('NAME.keras')."
_COPY_AGAIN = "copy or save the file again."
# What zipfile, HDF5 and edgeprune's own checks say of files whose end is missing.
_CUT = re.compile(r"truncated file|not a zip file|end is missing|longer than the file|beyond the end|unexpected EOF")

# (offset, bytes, name) of files that people hand in by mistake.
_FOREIGN = (
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
    (".keras", "a zip archive that holds a Keras file (unpack it first)"),
    (".h5", "a zip archive that holds an HDF5 file (unpack it first)"),
)
# What stands beside a checkpoint's name: of TensorFlow's, and of its shards.
_CHECKPOINT = re.compile(r"\.index|\.data-\d{5}-of-\d{5}")
_OF_SAVED_MODELS = ("saved_model.pb", "keras_metadata.pb", "fingerprint.pb")
# What h5py, zipfile and zlib raise on damaged bytes, and what JSON of an unexpected form leads to.
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, struct.error),
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError),
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


def is_tflite_file(path: Path) -> bool:
    """Whether a path leads to a .tflite file, by its content."""
    try:
        if not path.is_file():  # to open a pipe would wait for who writes into it
            return False
        with open(path, "rb") as file:
            return file.read(8)[4:] == b"TFL3"
    except (OSError, ValueError):  # for those to explain who read it
        return False


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


@contextlib.contextmanager
def open_weights(file: ModelFile) -> Iterator[h5py.File]:
    """The HDF5 file with the weights of an ``.h5`` or ``.keras`` file, which may be in it.

    Raises:
        ModelError: it is damaged, or holds what Keras never writes.
    """
    with contextlib.ExitStack() as opened:
        try:
            if file.format == "h5":
                weights = opened.enter_context(open_hdf5(file.path, file.path))
            else:
                with open_archive(file.path) as archive:
                    content = io.BytesIO(archive.read(WEIGHTS))
                weights = opened.enter_context(open_hdf5(content, f"{file.path} ({WEIGHTS})"))
        except _DAMAGE as error:
            raise _damaged(file.path, error) from error
        yield weights


def check_saved_model(folder: Path, *, trust: bool) -> None:
    """Look at what :func:`read_model_file` did not read of a SavedModel: its functions, and its variables.

    Raises:
        ModelError: they are damaged; or functions do more than compute, and are not trusted.
    """
    import_tf()
    from google.protobuf.message import DecodeError

    try:
        refuse_operators(folder, trust=trust)
    except (DecodeError, *_DAMAGE) as error:
        raise _damaged(folder / "saved_model.pb", error) from error
    variables = folder / "variables" / "variables.index"
    try:
        check_bundle(variables)
    except PermissionError as error:
        raise _unreadable(variables) from error
    except _DAMAGE as error:
        raise _damaged(variables, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    """The error for a file of a known format whose content cannot be read."""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, FileNotFoundError):
        said = f"the file {error.filename} is missing"
    return ModelError(
        f"{path} cannot be read as a Keras model: {said}",
        expected=f"{ACCEPTED}, undamaged",
        fix="copy or save the file again; it is cut short." if _CUT.search(said) else _COPY_AGAIN,
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
        raise _missing(path) from error
    return _file_reader(path, head)


def _unreadable(path: Path) -> ModelError:
    """The error for what lies behind a permission: on the path itself, or on a folder on the way to it."""
    as_user = os.access in os.supports_effective_ids
    above = reversed(path.absolute().parents)
    closed = next((folder for folder in above if not os.access(folder, os.X_OK, effective_ids=as_user)), path)
    return ModelError(
        f"You have no permission to read {path}.",
        expected=ACCEPTED,
        fix=f"chmod -R u+rX '{closed}', if it is yours; else copy it as a user who may read it.",
    )


def _missing(path: Path) -> ModelError:
    """The error for a path with nothing at its end."""
    with contextlib.suppress(OSError, ValueError):
        if path.with_name(f"{path.name}.index").is_file():
            return _weights_only(path)
        if path.is_symlink():
            return ModelError(
                f"There is no model at {path}: it is a link to {os.readlink(path)}, where nothing is.",
                expected=ACCEPTED,
                fix="name the model itself.",
            )
    return ModelError(f"There is no model at {path}.", expected=ACCEPTED, fix="check the path.")


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
    if path.name in _OF_SAVED_MODELS:
        raise ModelError(
            f"{path} is a part of a SavedModel.", expected=ACCEPTED, fix=f"name the folder: {path.absolute().parent}"
        )
    if _CHECKPOINT.fullmatch(path.suffix) or path.name == "checkpoint":
        raise _weights_only(path)
    if _is_architecture(path, head):
        raise ModelError(
            f"{path} is the architecture of a Keras model, without weights.",
            expected=ACCEPTED,
            fix="in Python: make the model with model_from_json, load its weights, and save all of it with "
            "model.save('NAME.keras').",
        )
    if path.suffix in (".keras", ".h5", ".hdf5"):
        raise ModelError(
            f"{path} is named like a Keras model, but its content is none.", expected=ACCEPTED, fix=_COPY_AGAIN
        )
    raise _foreign(path, f"a {path.suffix} file" if path.suffix else "a file of an unknown kind")


def _is_architecture(path: Path, head: bytes) -> bool:
    return path.suffix == ".json" and b'"class_name"' in head


def _foreign(path: Path, name: str) -> ModelError:
    return ModelError(f"{path} is not a Keras model but {name}.", expected=ACCEPTED, fix=_PASS_KERAS)


def _saved_model_reader(path: Path, names: set[str]) -> Callable[[Path], ModelFile]:
    if "saved_model.pb" in names:
        return _read_saved_model
    if any(_CHECKPOINT.fullmatch(Path(name).suffix) for name in names):
        raise _weights_only(path)
    if {CONFIG, METADATA} <= names:
        raise ModelError(
            f"{path} is an unpacked .keras file.", expected=ACCEPTED, fix=f"cd '{path}' && zip -r ../NAME.keras ."
        )
    raise ModelError(
        f"{path} is a folder, but not a SavedModel: it has no saved_model.pb.",
        expected=ACCEPTED,
        fix="name the model file, or the folder that holds saved_model.pb.",
    )


def _read_h5(path: Path) -> ModelFile:
    with open_hdf5(path, path) as file:
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
    with open_archive(path) as archive:
        members = set(archive.members)
        if not {CONFIG, METADATA} <= members:
            known = (name for end, name in _FOREIGN_ZIP if any(m.endswith(end) for m in members))
            raise _foreign(path, next(known, "a zip archive of another kind"))
        for name in (CONFIG, METADATA):
            if archive.members[name] > CONFIG_BYTES:
                raise refused(path, f"has a {name} of {archive.members[name] / 1e6:,.0f} MB")
        config = archive.read(CONFIG)
        metadata = parse_json(archive.read(METADATA), path, METADATA)
    version = str(metadata.get("keras_version", ""))
    if path.suffix != ".keras":
        raise ModelError(
            f"{path} is a Keras file under another name.", expected="the ending .keras", fix="rename the file."
        )
    file = _model_file(path, "keras", version, config, None)
    return dataclasses.replace(file, has_assets=any(m.startswith(ASSETS) for m in members))


def _read_saved_model(path: Path) -> ModelFile:
    root = _root_metadata(path)
    if root is None:
        raise ModelError(
            f"{path} is a SavedModel without Keras metadata: its graph is fixed, and its layers cannot be pruned.",
            expected=ACCEPTED,
            fix="pass the Keras model it was exported from; model.export and tf.saved_model.save leave the layers out.",
        )
    model = parse_json(root, path, "description")
    class_name = model.get("class_name")
    # A Sequential model that learned its input from data is none to Keras 2.3, and has no shape in its layers.
    if not model.get("is_graph_network") and class_name != "Sequential":
        raise subclassed(str(path), class_name)
    config = model.get("config") or (model.get("model_config") or {}).get("config")
    if not config:
        raise _without_config(path, class_name)
    if class_name == "Sequential" and isinstance(config, dict):
        shape = model.get("build_input_shape")
        config.setdefault("build_input_shape", shape["items"] if isinstance(shape, dict) else shape)
    described = json.dumps({"class_name": class_name, "config": config})
    return _model_file(path, "saved_model", model.get("keras_version"), described, model.get("training_config"))


def _root_metadata(path: Path) -> str | None:
    """What Keras wrote about the model in a SavedModel: in a file of its own since TensorFlow 2.5, before in the graph.

    Returns:
        JSON; None if Keras wrote nothing.
    """
    import_tf()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    beside = path / "keras_metadata.pb"
    source = beside if beside.exists() else path / "saved_model.pb"
    try:
        if source == beside:
            nodes = SavedMetadata.FromString(source.read_bytes()).nodes
            found = next((node.metadata for node in nodes if node.node_path == "root"), None)
            if found is None:
                raise _damaged(source, ValueError("no root object"))
            return found
        graphs = SavedModel.FromString(source.read_bytes()).meta_graphs
        roots = (graph.object_graph_def.nodes[0].user_object for graph in graphs if graph.object_graph_def.nodes)
        return next((root.metadata for root in roots if root.identifier.startswith("_tf_keras_")), None) or None
    except DecodeError as error:
        raise _damaged(source, error) from error


def _without_config(path: Path, class_name: str | None) -> ModelError:
    return ModelError(
        f"{path} holds a {class_name} model without its configuration: a layer of it could not be described when it "
        "was saved.",
        expected="a model whose layers all have a get_config()",
        fix="give the layer's class a get_config() in the program that built the model, and save it again with "
        "model.save('NAME.keras').",
    )


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


def _model_file(path: Path, form: Format, version: object, config: str | bytes, training: object) -> ModelFile:
    if not isinstance(version, str | None):
        raise ValueError("its Keras version is not a string")
    parsed = parse_json(config, path, "description")
    if not isinstance(parsed, dict) or not isinstance(parsed.get("config"), (dict, list)):
        raise ValueError("its architecture is not a Keras configuration")
    check_calls(parsed, path)
    if isinstance(training, str | bytes):
        training = parse_json(training, path, "compile information")
    elif form == "keras":
        training = parsed.get("compile_config")
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
