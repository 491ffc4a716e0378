"""Fingerprints of models."""

import hashlib
import shutil

import pytest

from edgeprune.errors import ModelError
from edgeprune.models import model_hash


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    """For a file, the hash is what sha256sum prints."""
    (tmp_path / "model.h5").write_bytes(b"content")
    assert model_hash(tmp_path / "model.h5") == hashlib.sha256(b"content").hexdigest()


def test_the_hash_of_a_folder_follows_names_and_contents(tmp_path):
    """For a folder, the hash survives copying, and changes with each name and each byte."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "index").write_bytes(b"weights")
    first = model_hash(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert model_hash(str(tmp_path / "copy")) == first
    (tmp_path / "copy" / "saved_model.pb").rename(tmp_path / "copy" / "other.pb")
    assert model_hash(tmp_path / "copy") != first
    (folder / "variables" / "index").write_bytes(b"weightS")
    assert model_hash(folder) != first


def test_the_hash_of_an_object_follows_its_weights(cnn, keras):
    """A copy of a model object has the same hash; a changed weight has another."""
    copy = keras.models.clone_model(cnn)
    copy.set_weights(cnn.get_weights())
    copy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert model_hash(copy) == model_hash(cnn)
    copy.layers[-1].bias.assign_add([1.0, 0.0, 0.0])
    assert model_hash(copy) != model_hash(cnn)


def test_a_missing_file_is_a_model_error(tmp_path):
    """A path that does not exist has no hash but a message."""
    with pytest.raises(ModelError, match="Cannot read"):
        model_hash(tmp_path / "none.keras")
