"""Code in model files does not run unless the user trusts it."""

import json
import zipfile

import h5py
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model

FORMATS = ["keras", "h5", "saved_model"]


def _plain(keras, inputs):
    return keras.layers.Lambda(lambda x: x * 2.0, name="doubler")(inputs)


def _nested(keras, inputs):
    inner = keras.Sequential([keras.layers.Lambda(lambda x: x * 2.0, name="doubler", input_shape=(4, 3))], name="inner")
    return inner(inputs)


def _wrapped(keras, inputs):
    return keras.layers.TimeDistributed(keras.layers.Lambda(lambda x: x * 2.0, name="doubler"), name="outer")(inputs)


def _deep(keras, inputs):
    wrapped = keras.layers.TimeDistributed(keras.layers.Lambda(lambda x: x * 2.0, name="doubler"), input_shape=(4, 3))
    return keras.Sequential([keras.Sequential([wrapped])])(inputs)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("place", [_plain, _nested, _wrapped, _deep], ids=lambda place: place.__name__.strip("_"))
def test_lambda_layers_need_trust(place, form, keras, write, tmp_path):
    """A Lambda layer anywhere in a file is refused by name with --trust-model, and works with trust=True."""
    inputs = keras.Input((4, 3))
    path = write(keras.Model(inputs, place(keras, inputs)), tmp_path, form)
    with pytest.raises(ModelError, match="'doubler'") as caught:
        load_model(path)
    assert "--trust-model" in caught.value.fix
    assert caught.value.exit_code == 2
    assert float(load_model(path, trust=True)(keras.backend.ones((1, 4, 3)))[0, 0, 0]) == 2.0


@pytest.mark.parametrize("form", FORMATS)
def test_code_does_not_run_before_it_is_refused(form, keras, write, tmp_path):
    """The payload of a hostile file, which writes a file while its layer is being built, leaves no trace."""
    trace = tmp_path / "trace"
    inputs = keras.Input((3,))
    layer = keras.layers.Lambda(lambda x, where=str(trace): (open(where, "w").close(), x)[1])
    path = write(keras.Model(inputs, layer(inputs)), tmp_path, form)
    trace.unlink(missing_ok=True)
    with pytest.raises(ModelError, match="Python code"):
        load_model(path)
    assert not trace.exists()
    load_model(path, trust=True)
    assert trace.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_operations_beyond_arithmetic_need_trust(form, keras, write, tmp_path):
    """A layer that calls a TensorFlow function outside tensor arithmetic is refused by the function's name."""
    import tensorflow as tf

    inputs = keras.Input((), dtype="string")
    path = write(keras.Model(inputs, tf.io.decode_raw(inputs, tf.uint8)), tmp_path, form)
    with pytest.raises(ModelError, match=r"tf\.io\.decode_raw"):
        load_model(path)


def _edit_config(path, edit):
    """Replace the config.json of a .keras file by what ``edit`` makes of it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    edit(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


HOSTILE = {
    "class": {"class_name": "Popen", "config": {}, "registered_name": None},
    "function": {"class_name": "function", "config": "system", "registered_name": "system"},
    "disguised_class": {"class_name": "Registered", "config": {}, "registered_name": None},
    "disguised_function": {"class_name": "function", "config": "system", "registered_name": "Registered"},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("module", ["hostile_module", "keras_hostile_module"])
def test_modules_that_a_file_names_are_not_imported(kind, module, cnn, keras, write, tmp_path, monkeypatch):
    """A .keras file that names a class or function of a foreign module is refused before the module is imported."""
    (tmp_path / "hostile_module.py").write_text("import pathlib\npathlib.Path(__file__).with_name('trace').touch()\n")
    (tmp_path / "tf_keras_hostile_module.py").write_text((tmp_path / "hostile_module.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    path = write(cnn, tmp_path, "keras")

    def edit(config):
        config["config"]["layers"][-1]["config"]["activation"] = {"module": module, **HOSTILE[kind]}

    _edit_config(path, edit)
    for trust in (False, True):
        with (
            keras.saving.custom_object_scope({"Registered": keras.layers.Layer}),
            pytest.raises(ModelError, match=module) as caught,
        ):
            load_model(path, trust=trust)
        assert "'head'" in caught.value.what
    assert not (tmp_path / "trace").exists()


def test_compile_information_inside_the_layers_is_not_used(keras, write, tmp_path, monkeypatch):
    """A layer in an .h5 file that claims to have been compiled with a foreign module's function does not import it."""
    (tmp_path / "hostile_module.py").write_text("import pathlib\npathlib.Path(__file__).with_name('trace').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))], name="inner")
    path = write(keras.Model(inputs, inner(inputs)), tmp_path, "h5")
    function = {"class_name": "function", "config": "f", "registered_name": "f", "module": "hostile_module"}
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        entry = config["config"]["layers"][1]
        entry.update(module="keras", registered_name=None, compile_config={"optimizer": "sgd", "loss": function})
        file.attrs["model_config"] = json.dumps(config)
    assert isinstance(load_model(path), keras.Model)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["deserialize", "get", "get_file", "func_load"])
def test_functions_of_keras_beyond_its_layers_are_refused(name, cnn, write, tmp_path):
    """A file may not name the functions of tf_keras that build objects, run code or fetch files."""
    path = write(cnn, tmp_path, "keras")
    function = {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}
    _edit_config(path, lambda config: config["config"]["layers"][-1]["config"].update(activation=function))
    with pytest.raises(ModelError, match=name):
        load_model(path)


@pytest.mark.parametrize("form", FORMATS)
def test_custom_classes_are_refused_by_name_unless_registered(form, keras, write, tmp_path):
    """A layer class that tf_keras lacks is refused by its name; registered in the program, it loads."""

    class Doubler(keras.layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    inputs = keras.Input((3,))
    path = write(keras.Model(inputs, Doubler(name="mine")(inputs)), tmp_path, form)
    for trust in (False, True):
        with pytest.raises(ModelError, match=r"'mine'.*Doubler"):
            load_model(path, trust=trust)
    with keras.saving.custom_object_scope({"Doubler": Doubler}):
        assert float(load_model(path)(keras.backend.ones((1, 3)))[0, 0]) == 2.0


def test_custom_losses_and_nested_losses_do_not_stop_loading(keras, write, tmp_path):
    """A model compiled with a lambda, also inside a nested model, loads without trust, and uncompiled."""
    inner = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    inner.compile(loss=lambda truth, prediction: prediction)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(inputs))
    model.compile(loss=lambda truth, prediction: prediction)
    assert not load_model(write(model, tmp_path, "keras")).get_compile_config()


def test_a_configuration_nested_without_end_is_refused(tmp_path):
    """A hostile file with a very deep configuration is a ModelError."""
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "2.15.0"}')
        archive.writestr("config.json", '{"class_name": "Functional", "config": {"a": ' + "[" * 900 + "]" * 900 + "}}")
    with pytest.raises(ModelError, match="levels"):
        load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("form", ["keras", "h5"])
def test_vocabularies_are_not_read_from_this_machine(form, version, keras, keras3, tmp_path):
    """A lookup layer that names a file as its vocabulary is refused: the file would end up in the model."""
    kind = keras if version == 2 else keras3
    (tmp_path / "secret.txt").write_text("root\nsecret\n")
    inputs = kind.Input((1,), dtype="string")
    lookup = kind.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot", name="lookup")
    path = tmp_path / f"model.{form}"
    kind.Model(inputs, kind.layers.Dense(2)(lookup(inputs))).save(path)

    def edit(config):
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "StringLookup")
        layer["config"]["vocabulary"] = str(tmp_path / "secret.txt")

    if form == "keras":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist() if not name.startswith("assets/")}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        _edit_config(path, edit)
    else:
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            edit(config)
            file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ModelError, match=r"'lookup'.*secret\.txt"):
        load_model(path)


DISGUISED = [
    {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "file:///etc/passwd"}},
    {"module": "keras.saving", "class_name": "load_model", "config": {}},
    {"module": "keras.src.utils.python_utils", "class_name": "func_load", "config": {}},
    {"module": "keras.activations", "class_name": "function", "config": "deserialize"},
    {"module": "keras.src.backend.torch", "class_name": "Variable", "config": {}},
    {"module": "os", "class_name": "function", "config": "system"},
    {"module": "subprocess", "class_name": "Popen", "config": {}},
    {"module": "os", "class_name": "__typespec__", "spec_name": "x", "config": []},
]


@pytest.mark.parametrize("place", ["activation", "layer", "compile_config", "kernel_regularizer"])
@pytest.mark.parametrize("thing", DISGUISED, ids=lambda thing: f"{thing['class_name']}_{thing['module']}")
def test_keras3_files_name_classes_only(thing, place, keras3, tmp_path):
    """Functions disguised as classes, and other modules, are refused in a Keras 3 file, or never looked at."""
    path = tmp_path / "model.keras"
    inputs = keras3.Input((3,))
    inner = keras3.Sequential([keras3.layers.Dense(2, input_shape=(3,), name="head")], name="inner")
    keras3.Model(inputs, inner(inputs)).save(path)
    thing = {"registered_name": None, **thing}

    def edit(config):
        layer = config["config"]["layers"][-1]
        if place == "layer":
            layer.update(thing)
        elif place == "compile_config":
            layer["compile_config"] = {"optimizer": thing, "loss": thing}
        else:
            layer["config"]["layers"][-1]["config"][place] = thing

    _edit_config(path, edit)
    if place == "compile_config":
        assert load_model(path).layers
    else:
        with pytest.raises(ModelError, match=r"needs|is a |cannot rebuild"):
            load_model(path)
