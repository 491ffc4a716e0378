"""Saving models: the same bytes for the same model, and never half a file."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from edgeprune.errors import OutputError, UsageError
from edgeprune.models import load_model, save_model

SCRIPT = """
import sys
from edgeprune._tensorflow import import_tf
import_tf()
import numpy as np, tf_keras
from edgeprune.models import save_model
shared = tf_keras.regularizers.L2(0.01)
inputs = tf_keras.Input((8, 8, 3))
x = tf_keras.layers.Conv2D(4, 3, kernel_regularizer=shared)(inputs)
x = tf_keras.layers.Conv2D(4, 3, kernel_regularizer=shared)(x / 2.0)
x = tf_keras.Sequential([tf_keras.layers.Flatten(), tf_keras.layers.Dense(3)], name="top")(x)
model = tf_keras.Model(inputs, x, name="model")
model.set_weights([np.arange(w.size, dtype="float32").reshape(w.shape) for w in model.get_weights()])
model.compile("adam", tf_keras.losses.MeanSquaredError(), metrics=["mae"])
save_model(model, sys.argv[1])
"""


@pytest.mark.slow  # files of two builds are compared in tests/test_build.py
def test_two_processes_write_the_same_bytes(tmp_path):
    """The same model saved by two processes with different hash seeds, at different times, is the same file."""
    digests = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.keras"
        command = [sys.executable, "-c", SCRIPT, str(path)]
        run = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert "shared_object_id" in zipfile.ZipFile(path).read("config.json").decode()


def test_a_round_trip_keeps_everything(cnn, outputs, tmp_path):
    """Outputs and bytes are the same after saving, loading and saving again."""
    save_model(cnn, tmp_path / "a.keras")
    loaded = load_model(tmp_path / "a.keras")
    assert np.array_equal(outputs(loaded)[0], outputs(cnn)[0])
    save_model(loaded, tmp_path / "b.keras")
    again = load_model(tmp_path / "b.keras")
    save_model(again, tmp_path / "c.keras")
    assert (tmp_path / "b.keras").read_bytes() == (tmp_path / "c.keras").read_bytes()
    assert np.array_equal(outputs(again)[0], outputs(cnn)[0])


def test_the_file_is_an_ordinary_keras_file(cnn, keras, outputs, tmp_path):
    """tf_keras itself reads what edgeprune writes, and the archive carries a constant date."""
    save_model(cnn, tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(outputs(loaded)[0], outputs(cnn)[0])
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert json.loads(archive.read("metadata.json"))["keras_version"].startswith("2.")


def test_a_failed_save_leaves_the_old_file_and_no_other(cnn, tmp_path, monkeypatch):
    """When the disk is full halfway, the old file is whole, nothing else lies in the folder, and the error says why."""
    path = tmp_path / "model.keras"
    save_model(cnn, path)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgeprune.models.save._normalized", full)
    with pytest.raises(OutputError, match="no space left"):
        save_model(cnn, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_other_endings_are_refused(cnn, tmp_path):
    """Only .keras files are written."""
    with pytest.raises(UsageError, match=r"model\.h5"):
        save_model(cnn, tmp_path / "model.h5")
