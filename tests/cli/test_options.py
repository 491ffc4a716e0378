"""Layer classes that the user brings, on the command line."""

import contextlib
import json
import sys

import pytest
from commands import run
from fuzzing import as_found

SCALE = """
import tf_keras

class Scale(tf_keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight("scale", shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.scale
"""
SAVE = """
import tf_keras, scale
layers = tf_keras.layers
inputs = layers.Input((8, 8, 3))
x = scale.Scale(name="mine")(layers.Conv2D(4, 3, name="conv")(inputs))
tf_keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))).save("model.keras")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("custom")
    (folder / "scale.py").write_text(SCALE)
    with as_found(), pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.syspath_prepend(folder)
        exec(SAVE, {})
        del sys.modules["scale"]  # nobody has the class
    return folder


def _run(folder, command, *options):
    with as_found():
        return run(command, "model.keras", "--json", *options, cwd=folder)


def test_a_model_with_a_layer_of_the_users_own_is_read(folder):
    """With the class and trust, the layer is listed, and its channels are frozen by name."""
    done = _run(folder, "inspect", "--trust-model", "--custom-objects", "scale.py")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "Scale" in [layer["kind"] for layer in found["layers"]]
    assert any("Scale" in (group["frozen"] or "") for group in found["groups"])


def test_a_model_with_a_layer_of_the_users_own_is_checked(folder):
    """`check` takes what the refusal of such a model tells its user to add."""
    done = _run(folder, "check", "--target", "rpi4", "--trust-model", "--custom-objects", "scale.py")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["findings"] is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--custom-objects"),
        (("--custom-objects", "scale.py"), "--trust-model"),
        (("--custom-objects", "missing.py", "--trust-model"), "missing.py"),
    ],
)
def test_without_class_or_trust_it_is_refused(folder, options, said):
    """One message with what to do, and exit code 2."""
    done = _run(folder, "inspect", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
