"""What a description may ask for: never more memory or time than the file's weights justify."""

import json
import zipfile

import h5py
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model


def _with_config(path, edit):
    """Change the architecture in a file of either format."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            edit(config)
            file.attrs["model_config"] = json.dumps(config)
        return path
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    edit(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _set(key, value):
    def edit(config):
        for layer in config["config"]["layers"]:
            if key in layer["config"]:
                layer["config"][key] = value

    return edit


@pytest.fixture(params=["2.h5", "2.keras", "3.h5", "3.keras"])
def path(request, keras, keras3, tmp_path):
    """A small model of either Keras in a file."""
    kind = keras if request.param[0] == "2" else keras3
    inputs = kind.Input((8,))
    x = kind.layers.Embedding(10, 4, name="table")(inputs)
    x = kind.layers.UpSampling1D(2, name="up")(x)
    x = kind.layers.RepeatVector(2, name="repeat")(kind.layers.GlobalAveragePooling1D()(x))
    x = kind.layers.Dense(3, name="dense")(kind.layers.GlobalAveragePooling1D()(x))
    path = tmp_path / f"model{request.param[1:]}"
    kind.Model(inputs, x).save(path)
    return path


@pytest.mark.parametrize(("key", "value"), [("units", 10**9), ("input_dim", 10**10), ("output_dim", 10**9)])
def test_layers_are_no_larger_than_the_weights_in_the_file(key, value, path):
    """A layer that asks for gigabytes, in a file of a few numbers, is refused before it gets them."""
    with pytest.raises(ModelError, match="can fill"):
        load_model(_with_config(path, _set(key, value)))


def test_outputs_are_bounded(path):
    """A layer that would put out more numbers than memory holds is refused by name."""
    with pytest.raises(ModelError, match=r"'repeat'.* numbers at once"):
        load_model(_with_config(path, _set("n", 10**8)))


def test_layers_that_repeat_operations_are_bounded(path):
    """A layer for which Keras would make a hundred million operations is refused before the first."""
    with pytest.raises(ModelError, match="an operation for each"):
        load_model(_with_config(path, _set("size", 10**8)))


def test_unrolled_layers_are_bounded(keras, tmp_path):
    """A recurrent layer that would be unrolled over a million steps is refused."""
    path = tmp_path / "model.h5"
    keras.Sequential([keras.layers.LSTM(2, unroll=True, input_shape=(3, 2))]).save(path)
    assert load_model(path).layers
    with pytest.raises(ModelError, match="an operation for each"):
        load_model(_with_config(path, _set("batch_input_shape", [None, 10**6, 2])))


def test_models_in_models_do_not_multiply(keras, tmp_path):
    """Models that call one another twice, forty deep, are refused instead of being built for ever."""

    def edit(config):
        layer = config["config"]["layers"][-1]
        twice = layer["inbound_nodes"] * 2
        for level in range(40):
            layers = [{**layer, "inbound_nodes": twice}]
            layer = {**config, "name": f"m{level}", "config": {**config["config"], "layers": layers}}
            layer["inbound_nodes"] = twice
        config["config"]["layers"].append(layer)

    path = tmp_path / "model.h5"
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.ReLU()(inputs)).save(path)
    with pytest.raises(ModelError, match="calls layers"):
        load_model(_with_config(path, edit))


def test_very_many_layers_are_refused(keras, tmp_path):
    """A description with twenty thousand layers is refused, not built for minutes."""
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]).save(path)
    with pytest.raises(ModelError, match="calls layers 20,0"):
        load_model(
            _with_config(
                path, lambda config: config["config"]["layers"].extend(config["config"]["layers"][-1:] * 20_000)
            )
        )


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("of", ["keras", "keras3"])
def test_a_call_that_waits_for_ever_is_refused(request, tmp_path, of, ending):
    """A layer that reads what is never made, or what is made from its own output, is named; neither Keras would end."""
    keras = request.getfixturevalue(of)
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3, name="first")(inputs)
    x = keras.layers.Dense(3, name="second")(x)
    keras.Model(inputs, keras.layers.Add(name="sum")([x, inputs])).save(tmp_path / f"model{ending}")
    assert load_model(tmp_path / f"model{ending}")

    def never(config):
        next(one for one in config["config"]["layers"] if one["config"]["name"] == "first")["inbound_nodes"] = []

    def circle(config):
        nodes = {one["config"]["name"]: one for one in config["config"]["layers"]}
        text = json.dumps(nodes["second"]["inbound_nodes"]).replace('"first"', '"second"')
        nodes["second"]["inbound_nodes"] = json.loads(text)

    for edit in (never, circle):
        path = tmp_path / f"{edit.__name__}{ending}"
        path.write_bytes((tmp_path / f"model{ending}").read_bytes())
        with pytest.raises(ModelError, match="calls the layer 'second' on what no other layer gives"):
            load_model(_with_config(path, edit))


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("number", [0, 7])
def test_a_call_of_a_nested_model_that_never_comes_is_refused(keras, tmp_path, ending, number):
    """tf_keras counts the calls of a nested model from 1: what waits for call 0 waits for ever, too."""
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)], name="inner")
    path = tmp_path / f"model{ending}"
    keras.Model(inputs, keras.layers.ReLU(name="second")(inner(inputs))).save(path)
    assert load_model(path)

    def edit(config):
        nodes = {one["config"]["name"]: one for one in config["config"]["layers"]}
        text = json.dumps(nodes["second"]["inbound_nodes"]).replace('"inner", 1', f'"inner", {number}')
        nodes["second"]["inbound_nodes"] = json.loads(text)

    with pytest.raises(ModelError, match="calls the layer 'second' on what no other layer gives"):
        load_model(_with_config(path, edit))
