"""Bad files: each one message, exit code 2."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model


def _refused(path, match):
    """The message, after checking that it says what happened, what was expected, and has exit code 2."""
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    assert caught.value.exit_code == 2
    assert caught.value.expected
    assert str(path) in caught.value.what
    assert "Traceback" not in str(caught.value)
    return caught.value


def _zip(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return content.getvalue()


FOREIGN = {
    "image.png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG"),
    "photo.jpg": (b"\xff\xd8\xff\xe0" + bytes(64), "JPEG"),
    "model.tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "tflite"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(64), "onnx"),
    "notes.txt": (b"layers: 3\n", "txt"),
    "model.pt": (_zip(model__data_dot_pkl="x"), "PyTorch"),
    "data.npz": (_zip(x_dot_npy="x"), "NumPy"),
    "other.zip": (_zip(readme="x"), "a zip archive of another kind"),
    "packed.zip": (_zip(model_dot_keras="x"), "holds a Keras file"),
    "saved_model.pb": (b"\x08\x01\x12\x07", "part of a SavedModel"),
    "model.index": (b"\0\0\x01", "only weights"),
    "model.data-00000-of-00002": (b"\0\0\x01", "only weights"),
    "checkpoint": (b'model_checkpoint_path: "model"', "only weights"),
    "model.json": (b'{"class_name": "Sequential", "config": {}}', "the architecture of a Keras model"),
    "labels.json": (b'{"0": "cat"}', "a .json file"),
    "text.keras": (b"this is no zip", "named like a Keras model"),
    "text.h5": (b"this is no HDF5", "named like a Keras model"),
    "noname": (b"something", "a file of an unknown kind"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named(name, tmp_path):
    """A file of another kind is refused with its kind in the message."""
    content, match = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    _refused(tmp_path / name, match)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5", "model"])
def test_missing_and_empty_files(name, tmp_path):
    """A path that does not exist, one below a file, and an empty file, each have their message."""
    path = tmp_path / name
    _refused(path, "no model at")
    path.touch()
    _refused(path, "is empty")
    _refused(path / "below", "no model at")


@pytest.mark.parametrize("name", ["", "x" * 300, "nul\0byte"])
def test_impossible_paths(name, tmp_path):
    """Names that the file system refuses are no model either."""
    _refused(Path(str(tmp_path / "models") + "/" + name), "no model at")


def test_folders_and_devices(tmp_path):
    """A folder that is no SavedModel, and things that are neither file nor folder, are refused, not waited for."""
    _refused(tmp_path, "not a SavedModel")
    os.mkfifo(tmp_path / "pipe.keras")
    _refused(tmp_path / "pipe.keras", "neither a file nor a folder")


def test_links_to_nothing_are_named(tmp_path):
    """A link whose end is missing, and one that leads to itself, are refused by that reason."""
    for target in ("gone.keras", "link.keras"):
        (tmp_path / "link.keras").unlink(missing_ok=True)
        (tmp_path / "link.keras").symlink_to(target)
        _refused(tmp_path / "link.keras", f"link to {target}, where nothing is")


def test_checkpoints_are_weights_only(keras, cnn, tmp_path):
    """A folder of checkpoints, and the name of a checkpoint in it, are refused with how to save the whole model."""
    cnn.save_weights(tmp_path / "saved" / "weights")
    for path in (tmp_path / "saved", tmp_path / "saved" / "weights"):
        assert "model.save" in _refused(path, "only weights").fix


def test_an_unpacked_keras_file_is_packed_as_the_message_says(cnn, tmp_path):
    """The command that the message names makes the file loadable again."""
    cnn.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        archive.extractall(tmp_path / "model")
    error = _refused(tmp_path / "model", "unpacked .keras file")
    if shutil.which("zip"):
        subprocess.run(error.fix.removeprefix("To fix: "), shell=True, check=True, stdout=subprocess.DEVNULL)
        assert load_model(tmp_path / "NAME.keras").count_params() == cnn.count_params()


def test_a_folder_that_may_not_be_entered(cnn, tmp_path):
    """The folder on the way that is closed is what the message opens."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        (folder / "closed").mkdir()
        cnn.save(folder / "closed" / "model.keras")
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        os.seteuid(65534 if user == 0 else user)  # root may enter everything
        error = _refused(folder / "closed" / "model.keras", "no permission to read")
        assert f"'{folder / 'closed'}'" in error.fix
    finally:
        os.seteuid(user)
        (folder / "closed").chmod(0o755)
        shutil.rmtree(folder)


def test_files_without_read_permission(cnn, write):
    """A file, and a folder, that may not be read are refused by that reason."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        paths = [write(cnn, folder, "keras"), write(cnn, folder, "saved_model")]
        load_model(paths[0])
        for path in paths:
            path.chmod(0)
        user = os.geteuid()
        os.seteuid(65534 if user == 0 else user)  # root may read everything
        try:
            for path in paths:
                _refused(path, "no permission to read")
        finally:
            os.seteuid(user)
    finally:
        (folder / "model").chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def whole(cnn, write, tmp_path_factory):
    """The CNN in each format: {format: path}."""
    folder = tmp_path_factory.mktemp("whole")
    return {form: write(cnn, folder, form) for form in ("keras", "h5", "saved_model")}


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("twentieth", range(20))
def test_a_file_cut_anywhere_is_refused(form, twentieth, whole, cnn, outputs, tmp_path):
    """A model file cut at any of twenty places between its start and its last byte is a ModelError."""
    content = whole[form].read_bytes()
    cut = tmp_path / whole[form].name
    cut.write_bytes(content[: (len(content) - 1) * (twentieth + 1) // 20])
    _refused(cut, "cannot be read|does not hold|is empty")


@pytest.mark.parametrize("attribute", ["keras_version", "model_config"])
@pytest.mark.parametrize(
    "value", [np.void(b"2.15"), h5py.Empty("S1"), np.array([2, 15])], ids=["void", "empty", "array"]
)
def test_attributes_that_are_no_text_are_refused(attribute, value, whole, tmp_path):
    """An .h5 file that holds something else where text belongs is a ModelError."""
    path = shutil.copy(whole["h5"], tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value
    _refused(path, "cannot be read")


@pytest.mark.parametrize(
    "name", ["keras_metadata.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9])
def test_a_cut_saved_model_is_refused(name, kept, whole, tmp_path):
    """A SavedModel with a truncated metadata or variables file is a ModelError."""
    folder = Path(shutil.copytree(whole["saved_model"], tmp_path / "model"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * kept)])
    _refused(folder, "cannot be read|cannot rebuild")


@pytest.mark.parametrize("name", ["variables", "keras_metadata.pb"])
def test_an_incomplete_saved_model_is_refused(name, whole, tmp_path):
    """A SavedModel without its variables, or without Keras metadata, is a ModelError that says so."""
    folder = Path(shutil.copytree(whole["saved_model"], tmp_path / "model"))
    (shutil.rmtree if name == "variables" else os.unlink)(folder / name)
    _refused(folder, r"variables\.index is missing" if name == "variables" else "without Keras metadata")


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("seed", range(8))
def test_overwritten_bytes_never_end_in_a_traceback(form, seed, whole, tmp_path):
    """A file with a random stretch overwritten is a ModelError, or, where only weights were hit, a model."""
    random = np.random.default_rng(seed)
    content = bytearray(whole[form].read_bytes())
    start = int(random.integers(len(content) - 64))
    content[start : start + 64] = random.bytes(64)
    path = tmp_path / whole[form].name
    path.write_bytes(content)
    with contextlib.suppress(ModelError):
        load_model(path)


def test_weights_without_a_model(cnn, tmp_path):
    """Both kinds of weights-only files are refused with how to save the whole model."""
    for name in ("legacy.h5", "model.weights.h5"):
        cnn.save_weights(tmp_path / name)
        error = _refused(tmp_path / name, "only weights")
        assert "model.save" in error.fix


def test_an_hdf5_file_of_something_else(tmp_path):
    """An HDF5 file with data, and an empty one, are refused."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = np.zeros(3)
    _refused(tmp_path / "data.h5", "only weights or other data")
    h5py.File(tmp_path / "empty.h5", "w").close()
    _refused(tmp_path / "empty.h5", "HDF5 file of another kind")


@pytest.mark.parametrize("config", ["[]", "{", "null", '{"config": 3}', '{"class_name": "Functional", "config": {}}'])
def test_a_keras_zip_with_a_broken_description(config, tmp_path):
    """Whatever stands in config.json, loading ends in a ModelError."""
    path = tmp_path / "model.keras"
    path.write_bytes(_zip(config_dot_json=config, metadata_dot_json='{"keras_version": "2.15.0"}'))
    _refused(path, r"cannot be read|has no model\.weights\.h5")


@pytest.mark.parametrize("metadata", ["[]", "null", "x"])
def test_a_keras_zip_with_broken_metadata(metadata, tmp_path):
    """Whatever stands in metadata.json, loading ends in a ModelError."""
    path = tmp_path / "model.keras"
    path.write_bytes(_zip(config_dot_json=json.dumps({"class_name": "x", "config": {}}), metadata_dot_json=metadata))
    _refused(path, "cannot be read")


def test_a_keras_file_under_another_name(whole, tmp_path):
    """A .keras file that was renamed is refused with its right ending; an HDF5 file loads under any name."""
    shutil.copy(whole["keras"], tmp_path / "model.zip")
    assert "rename" in _refused(tmp_path / "model.zip", "under another name").fix
    shutil.copy(whole["h5"], tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").name == "cnn"


def test_variables_of_another_model_are_refused(whole, keras, tmp_path):
    """A SavedModel whose variables do not fill every layer is refused, instead of being loaded with fresh weights."""
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.ReLU()(inputs)).save(tmp_path / "other")
    folder = Path(shutil.copytree(whole["saved_model"], tmp_path / "model"))
    shutil.rmtree(folder / "variables")
    shutil.copytree(tmp_path / "other" / "variables", folder / "variables")
    _refused(folder, "cannot rebuild")
