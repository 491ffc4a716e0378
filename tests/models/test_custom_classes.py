"""Classes and functions of the user's in files of both Kerases: named, with a command that works."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.custom import custom_objects_from

SOURCE = '''
import {keras} as keras
import tensorflow as tf

{registered}
class Gate(keras.layers.Layer):
    """A layer that calls layers and operations only."""
    def __init__(self, units=3, **config):
        super().__init__(**config)
        self.units, self.inner = units, keras.layers.Dense(units)
    def build(self, shape):
        self.inner.build(shape)
        super().build(shape)
    def call(self, x):
        return {ops}.tanh(self.inner(x)) * x[..., :1]
    def get_config(self):
        return {{**super().get_config(), "units": self.units}}

{registered}
class Block(keras.Model):
    def __init__(self, units=3, **config):
        super().__init__(**config)
        self.units, self.inner = units, keras.layers.Dense(units, activation="relu")
    def call(self, x):
        return self.inner(x)
    def get_config(self):
        return {{"units": self.units, "name": self.name}}

{registered}
def shifted(x):
    return {ops}.abs(x) - 0.1

{registered}
class Third(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None, **kwargs):
        return {ops}.ones(shape, dtype) / 3
    def get_config(self):
        return {{}}

class Nothing(keras.constraints.Constraint):
    def __call__(self, weights):
        return weights
    def get_config(self):
        return {{}}
'''
# name: (what the message has to name, (module of SOURCE, keras.layers, tensor) -> tensor)
LAYERS = {
    "layer": ("Gate", lambda own, L, x: own.Gate(4, name="mine")(x)),
    "nested": ("Gate", lambda own, L, x: L.Dense(2)(own.Gate(name="mine")(x))),
    "model": ("Block", lambda own, L, x: own.Block(2, name="mine")(x)),
    "activation": ("shifted", lambda own, L, x: L.Dense(2, activation=own.shifted, name="mine")(x)),
    "recurrent": ("shifted", lambda own, L, x: L.SimpleRNN(2, activation=own.shifted, name="mine")(x)),
    "initializer": ("Third", lambda own, L, x: L.Dense(2, kernel_initializer=own.Third(), name="mine")(x)),
}


def _own(tmp_path, keras, registered):
    """The classes as the user's program has them, which the process that loads the file does not know."""
    three = keras.__name__ == "keras"
    decorator = f'@keras.saving.register_keras_serializable("{registered}")' if registered else ""
    names = {"keras": keras.__name__, "ops": "keras.ops" if three else "tf", "registered": decorator}
    (tmp_path / "own.py").write_text(SOURCE.format(**names))
    objects = custom_objects_from(tmp_path / "own.py")
    keras.saving.get_custom_objects().clear()
    return type("own", (), objects)


def _forget():
    import keras
    import tf_keras

    keras.saving.get_custom_objects().clear()
    tf_keras.saving.get_custom_objects().clear()


@pytest.fixture(autouse=True)
def _as_before():
    yield
    _forget()


WAYS = [(name, ending, registered) for name in LAYERS for ending in (".keras", ".h5") for registered in ("", "pack")]


@pytest.mark.parametrize(
    ("name", "ending", "registered"),
    representatives(WAYS, ("nested", ".h5", "pack"), *(way for way in WAYS if way[1:] == (".keras", ""))),
)
def test_of_keras_3(name, ending, registered, keras3, tmp_path):
    """The refusal names layer and class; the file that it asks for makes the model load, and compute the same."""
    _check(keras3, *LAYERS[name], ending, registered, tmp_path)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["layer", "activation", "initializer"])
def test_of_keras_2(name, ending, keras, tmp_path):
    """The same for files of Keras 2, whose layers stay layers of the user's."""
    _check(keras, *LAYERS[name], ending, "pack", tmp_path)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("three", [False, True])
def test_a_class_without_its_package(three, ending, keras, keras3, tmp_path):
    """A class that was registered under a package opens also if the file that brings it does not register it."""
    used = keras3 if three else keras
    own = _own(tmp_path, used, "pack")
    inputs = used.Input((5, 4))
    model = used.Model(inputs, used.layers.Dense(2, activation=own.shifted)(own.Gate(4)(inputs)))
    model.save(tmp_path / f"model{ending}")
    plain = (tmp_path / "own.py").read_text().replace("@keras.saving", "# @keras.saving")
    (tmp_path / "plain.py").write_text(plain)
    _forget()
    objects = custom_objects_from(tmp_path / "plain.py")
    loaded = load_model(tmp_path / f"model{ending}", trust=True, custom_objects=objects)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-5, atol=1e-6)


def _check(keras, named, build, ending, registered, tmp_path):
    own = _own(tmp_path, keras, registered)
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, keras.layers.Dense(2)(build(own, keras.layers, inputs)))
    path = tmp_path / f"model{ending}"
    model.save(path)
    _forget()
    with pytest.raises(ModelError, match=rf"'mine'.*{named}") as caught:
        load_model(path)
    assert "--custom-objects FILE.py" in caught.value.fix
    assert "--trust-model" in caught.value.fix
    assert "cut short" not in str(caught.value)
    loaded = load_model(path, trust=True, custom_objects=custom_objects_from(tmp_path / "own.py"))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-5, atol=1e-6)
    loaded.save(tmp_path / "again.keras")
    np.testing.assert_allclose(load_model(tmp_path / "again.keras")(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_constraint_needs_a_class_for_tf_keras(keras3, tmp_path):
    """What works in training only is asked for under the name that it has; following that advice works."""
    own = _own(tmp_path, keras3, "")
    model = keras3.Sequential([keras3.Input((3,)), keras3.layers.Dense(2, kernel_constraint=own.Nothing())])
    with pytest.raises(ModelError, match="kernel_constraint=Nothing") as caught:
        load_model(model)
    decorator = '@tf_keras.saving.register_keras_serializable(name="Nothing")'
    assert decorator in caught.value.fix
    with open(tmp_path / "own.py", "a") as file:
        file.write(f"\nimport tf_keras\n{decorator}\nclass Nothing2(tf_keras.constraints.Constraint):\n    pass\n")
    load_model(model, custom_objects=custom_objects_from(tmp_path / "own.py"))


def test_the_true_reason(keras, keras3, tmp_path):
    """An unknown option is said to be one, weights that do not fit are, and only damaged weights are damaged."""
    import json
    import zipfile

    for kind in (keras, keras3):
        path = tmp_path / "model.keras"
        kind.Sequential([kind.Input((3,)), kind.layers.Dense(2, name="dense")]).save(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        config = members["config.json"].decode()
        weights = members["model.weights.h5"]
        changes = {
            "option 'twist'": {"config.json": config.replace('"units": 2', '"units": 2, "twist": 1')},
            "do not fit": {"config.json": config.replace('"units": 2', '"units": 3')},
            "cut short": {"model.weights.h5": weights[: len(weights) // 2]},
        }
        for said, changed in changes.items():
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in {**members, **changed}.items():
                    archive.writestr(name, content)
            json.loads({**members, **changed}["config.json"])
            with pytest.raises(ModelError) as caught:
                load_model(path)
            assert said in str(caught.value), caught.value
            assert ("cut short" in str(caught.value)) == (said == "cut short")


def test_layers_of_applications_load_after_the_registry_was_cleared(keras, tmp_path, monkeypatch):
    """A program that clears its registered classes loads a model of tf_keras.applications all the same."""
    from tf_keras.src.applications.convnext import LayerScale
    from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    inputs = keras.Input((4, 4, 3))
    x = LayerScale(1.0, 3, name="scale")(inputs)
    keras.Model(inputs, CustomScaleLayer(0.5, name="scaled")([x, inputs])).save(tmp_path / "model.keras")
    load_model(tmp_path / "model.keras")
    for name in [name for name in keras.saving.get_custom_objects() if name.rpartition(">")[2].endswith("Layer")]:
        monkeypatch.delitem(keras.saving.get_custom_objects(), name)
    monkeypatch.delitem(keras.saving.get_custom_objects(), "LayerScale")
    assert load_model(tmp_path / "model.keras").get_layer("scaled")
