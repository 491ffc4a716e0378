"""Files of Keras 2.0 to 2.3, written by tf_keras and edited to what those wrote; and of Keras 1."""

import itertools
import json

import h5py
import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models import load_model


@pytest.fixture
def aged(keras, tmp_path):
    """``aged(layers, shape, change)``: model and path of its file, in which ``change(layer, config)`` edited layers."""

    def aged(layers, shape, change, version=b"2.1.6", convert=None):
        random = np.random.default_rng(0)
        model = keras.Sequential([keras.Input(shape), *layers])
        model.set_weights([random.uniform(-0.6, 0.6, weight.shape) for weight in model.get_weights()])
        path = tmp_path / "old.h5"
        model.save(path)
        with h5py.File(path, "r+") as file:
            described = json.loads(file.attrs["model_config"])["config"]["layers"]
            shapes = [layer["config"].pop("batch_input_shape") for layer in described[:1]]
            for layer in described:
                for key in ("module", "registered_name", "build_config"):
                    layer.pop(key, None)
                layer["config"].pop("dtype", None)
                change(layer, layer["config"])
            described[1]["config"].update(batch_input_shape=shapes[0], dtype="float32")
            file.attrs["model_config"] = np.bytes_(json.dumps({"class_name": "Sequential", "config": described[1:]}))
            file["model_weights"].attrs["keras_version"] = file.attrs["keras_version"] = version
            if convert:
                convert(file["model_weights"])
        return model, path

    return aged


def _same(model, path):
    values = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype("float32")
    assert np.allclose(load_model(path)(values), model(values), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "both_ways"),
    representatives(itertools.product(["LSTM", "GRU"], [False, True]), ("LSTM", False), ("GRU", True)),
)
def test_layers_of_cudnn_become_those_that_run_anywhere(name, both_ways, aged, keras, caplog):
    """CuDNNLSTM and CuDNNGRU, alone and in Bidirectional, are LSTM and GRU with the same outputs."""
    from tf_keras.src.saving.legacy.hdf5_format import _convert_rnn_weights

    def change(layer, config):
        if layer["class_name"] == "Bidirectional":
            change(config["layer"], config["layer"]["config"])
        if layer["class_name"] == name:
            layer["class_name"] = f"CuDNN{name}"
            kept = ("name", "trainable", "units", "return_sequences", "return_state", "go_backwards", "stateful")
            for key in set(config) - set(kept):
                del config[key]

    def convert(group):
        cudnn = type(f"CuDNN{name}", (), {"units": 5})()
        found = []
        group.visititems(lambda key, item: found.append(key) if isinstance(item, h5py.Dataset) else None)
        for part in sorted({key.rpartition("/")[0] for key in found if "cell" in key}):
            keys = [f"{part}/{weight}:0" for weight in ("kernel", "recurrent_kernel", "bias")]
            for key, value in zip(keys, _convert_rnn_weights(cudnn, [group[key][()] for key in keys]), strict=True):
                del group[key]
                group[key] = value

    layer = getattr(keras.layers, name)(5)
    layers = [keras.layers.Bidirectional(layer) if both_ways else layer, keras.layers.Dense(2)]
    model, path = aged(layers, (6, 4), change, convert=convert)
    _same(model, path)
    assert f"CuDNN{name}: read as {name}" in caplog.text
    assert "CuDNN" not in json.dumps(load_model(path).get_config())


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_gru_from_before_reset_after_resets_before(both_ways, aged, keras):
    """A description without reset_after is of a time when there was only one kind, which is not today's default."""

    def change(layer, config):
        (config["layer"]["config"] if "layer" in config else config).pop("reset_after", None)

    gru = keras.layers.GRU(4, reset_after=False, recurrent_activation="hard_sigmoid")
    _same(*aged([keras.layers.Bidirectional(gru) if both_ways else gru], (5, 3), change))


def test_numbers_that_are_written_as_arrays(aged, keras):
    """``{"type": "ndarray", "value": 6.0}`` is the number, in activations and in initializers."""

    def change(layer, config):
        for key in {"max_value", "negative_slope", "threshold", "alpha"} & set(config):
            config[key] = {"type": "ndarray", "value": config[key]}
        if layer["class_name"] == "PReLU":
            start = {"class_name": "Constant", "config": {"value": {"type": "ndarray", "value": 0.2}}}
            config["alpha_initializer"] = start

    layers = [keras.layers.ReLU(0.5, 0.1), keras.layers.LeakyReLU(0.2), keras.layers.PReLU(), keras.layers.Dense(2)]
    _same(*aged(layers, (6,), change))


def _convolution(layer, config):
    if layer["class_name"] == "Conv2D":
        layer["class_name"] = "Convolution2D"
        config.update(nb_filter=config.pop("filters"), border_mode=config.pop("padding"))


def _dense(layer, config):
    if layer["class_name"] == "Dense":
        config.update(output_dim=config.pop("units"))


def _merge(layer, config):
    if layer["class_name"] == "Flatten":
        layer["class_name"] = "Merge"


@pytest.mark.parametrize("change", [_convolution, _dense, _merge])
@pytest.mark.parametrize("version", [b"1.2.2", b""])
def test_keras_1_is_the_reason(change, version, aged, keras):
    """Names and options of Keras 1 are refused as such, also where the file states no version."""
    layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    _, path = aged(layers, (6, 6, 1), change, version=version)
    with pytest.raises(ModelError, match="written by Keras 1") as caught:
        load_model(path)
    assert "keras==2.2.4" in caught.value.fix


def test_options_that_both_have_are_no_sign_of_keras_1(aged, keras):
    """An Embedding has an output_dim in all versions, and opens, under any version."""
    layers = [keras.layers.Embedding(9, 4), keras.layers.Flatten(), keras.layers.Dense(2)]
    model, path = aged(layers, (6,), lambda layer, config: None, version=b"1.2.2")
    values = np.arange(6)[None]
    assert np.allclose(load_model(path)(values), model(values), atol=1e-6)


def test_classes_of_the_users_may_have_names_of_keras_1(aged, keras):
    """A class that is given is used, whatever Keras 1 had under its name."""

    class Merge(keras.layers.Flatten):
        pass

    layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    model, path = aged(layers, (6, 6, 1), _merge)
    loaded = load_model(path, custom_objects={"Merge": Merge})
    assert loaded.count_params() == model.count_params()
