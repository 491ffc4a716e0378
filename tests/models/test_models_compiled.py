"""Loss and metrics travel with the model."""

import json
import logging

import numpy as np
import pytest

from edgeprune.models import compile_info, load_model

FORMATS = ["keras", "h5", "saved_model"]


def _dense(keras, outputs=1):
    inputs = keras.Input((3,))
    heads = [keras.layers.Dense(2, name=f"head{n}")(inputs) for n in range(outputs)]
    return keras.Model(inputs, heads if outputs > 1 else heads[0])


@pytest.mark.parametrize("form", FORMATS)
def test_settings_of_losses_and_metrics_are_kept(form, keras, write, tmp_path):
    """Loss and metric objects come back with their settings from each format."""
    model = _dense(keras)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(1, name="top")])
    data = np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2
    expected = model.evaluate(*data, verbose=0)
    loaded = load_model(write(model, tmp_path, form))
    assert loaded.loss.get_config()["from_logits"] is True
    assert loaded.evaluate(*data, verbose=0) == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMATS)
def test_several_outputs_keep_their_losses(form, keras, write, tmp_path):
    """Losses and weights per output come back under their outputs' names."""
    model = _dense(keras, outputs=2)
    model.compile("adam", {"head0": "mse", "head1": "mae"}, loss_weights={"head0": 1.0, "head1": 0.5})
    loaded = load_model(write(model, tmp_path, form))
    data = np.ones((4, 3)), [np.zeros((4, 2)), np.zeros((4, 2))]
    assert loaded.evaluate(*data, verbose=0) == pytest.approx(model.evaluate(*data, verbose=0))


def test_an_output_without_a_loss_keeps_its_place(keras, write, tmp_path):
    """A list of losses with a gap is not shifted."""
    model = _dense(keras, outputs=2)
    model.compile("adam", [None, "mse"], metrics=[None, ["mae"]])
    loaded = load_model(write(model, tmp_path, "keras"))
    assert loaded.loss == [None, "mse"]


@pytest.mark.parametrize("form", FORMATS)
def test_what_cannot_be_loaded_is_left_out_with_a_warning(form, keras, write, tmp_path, caplog):
    """A custom metric drops out and the rest stays; a custom loss leaves the model uncompiled; the log says which."""

    def my_metric(truth, prediction):
        return prediction

    def my_loss(truth, prediction):
        return prediction

    model = _dense(keras)
    with caplog.at_level(logging.WARNING, "edgeprune"):
        model.compile("adam", "mse", metrics=[my_metric, "mae"])
        loaded = load_model(write(model, tmp_path, form))
        assert loaded.loss == "mse"
        found = loaded.evaluate(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
        assert len(found) == 2
        model.compile("adam", my_loss)
        assert not load_model(write(model, tmp_path, form)).get_compile_config()
    assert "my_metric" in caplog.text
    assert "my_loss" in caplog.text


@pytest.mark.parametrize("form", FORMATS)
def test_accuracy_follows_the_loss_after_loading(form, keras, write, tmp_path):
    """ "accuracy" compares class numbers under a sparse loss, though older formats store it as categorical_accuracy."""
    model = _dense(keras)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.set_weights([np.array([[0.0, 9.0], [9.0, 0.0], [0.0, 0.0]]), np.zeros(2)])
    loaded = load_model(write(model, tmp_path, form))
    images = np.eye(3)[[0, 1, 0, 1]]
    assert loaded.evaluate(images, np.array([1, 0, 1, 1]), verbose=0, return_dict=True)["accuracy"] == 0.75


@pytest.mark.parametrize("form", FORMATS)
def test_compile_info_of_files_and_models(form, keras, write, tmp_path):
    """compile_info names the loss of files and models alike, and is None for what was not compiled."""
    model = _dense(keras)
    assert compile_info(model) is None
    assert compile_info(write(model, tmp_path, form)) is None
    model.compile("adam", "mse", metrics=["mae"])
    for source in (model, write(model, tmp_path, form)):
        info = compile_info(source)
        assert info["loss"] == "mse"
        assert sorted(info) == ["loss", "loss_weights", "metrics", "weighted_metrics"]
        assert info["metrics"]


@pytest.mark.parametrize("junk", [3, "no_such_loss", {"class_name": "MeanSquaredError"}, {"class_name": 3}, [[]], {}])
def test_broken_compile_information_does_not_stop_loading(junk, keras, write, tmp_path):
    """Whatever a file says about its loss and metrics, its layers load."""
    import h5py

    model = _dense(keras)
    model.compile("adam", "mse")
    path = write(model, tmp_path, "h5")
    with h5py.File(path, "r+") as file:
        file.attrs["training_config"] = json.dumps({"loss": junk, "metrics": junk, "loss_weights": None})
    assert load_model(path).layers[-1].name == "head0"
