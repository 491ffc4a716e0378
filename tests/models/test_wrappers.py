"""Models that still hold the wrappers of training."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.models import load_model


@pytest.fixture(scope="module")
def tfmot(keras):
    import tensorflow_model_optimization

    return tensorflow_model_optimization


def _fit(model, callbacks=()):
    random = np.random.default_rng(0)
    x = random.normal(size=(8, *model.input_shape[1:]))
    model.compile("sgd", "mse")
    model.fit(x, random.normal(size=(8, *model.output_shape[1:])), verbose=0, callbacks=list(callbacks))
    return model


def _pruned(keras, tfmot):
    """Wrappers in a model, in a model within it, and inside TimeDistributed."""
    layers, schedule = keras.layers, tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)

    def prune(layer):
        return tfmot.sparsity.keras.prune_low_magnitude(layer, schedule)

    body = prune(
        keras.Sequential([layers.Input((8, 3)), layers.Conv1D(6, 3), layers.BatchNormalization()], name="body")
    )
    inputs = keras.Input((8, 3))
    x = layers.TimeDistributed(prune(layers.Dense(4)), name="steps")(body(inputs))
    model = keras.Model(inputs, prune(layers.Dense(2, name="head"))(prune(layers.GRU(3, name="gru"))(x)))
    for layer in model._flatten_layers():
        for weight, mask, _ in getattr(layer, "pruning_vars", []):
            mask.assign(np.random.default_rng(1).integers(0, 2, mask.shape).astype("float32"))
            weight.assign(weight * mask)
    return model


@pytest.mark.parametrize("form", ["keras", pytest.param("saved_model", marks=pytest.mark.slow)])
def test_pruned_layers_are_stripped_wherever_they_stand(form, keras, tfmot, write, outputs, tmp_path, caplog):
    """A pruned model computes the same without its wrappers, has its layers' names and zeros, and one line says so."""
    model = _pruned(keras, tfmot)
    model.compile("sgd", "mae")
    expected = outputs(model)
    loaded = load_model(write(model, tmp_path, form))
    assert [type(layer).__name__ for layer in loaded.layers] == [
        *("InputLayer", "Conv1D", "BatchNormalization", "TimeDistributed", "GRU", "Dense")
    ]
    assert loaded.output_names == ["head"]
    assert loaded.loss == "mae"
    np.testing.assert_allclose(outputs(loaded)[0], expected[0], rtol=1e-5, atol=1e-6)
    kernels = np.concatenate([weight.ravel() for weight in loaded.get_weights() if weight.ndim > 1])
    assert 0.3 < np.mean(kernels == 0) < 0.7
    assert caplog.text.count("wrappers of pruning: stripped") == 1


def test_masks_that_were_not_applied_are(keras, tfmot, write, tmp_path):
    """Weights that a last step of training moved off zero are zero once stripped, of a model or its file."""
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0)
    inputs = keras.Input((4,))
    wrapper = tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(3), schedule)
    model = keras.Model(inputs, wrapper(inputs))
    mask = np.tile([[1.0, 0.0, 1.0]], (4, 1))
    wrapper.pruning_vars[0][1].assign(mask)
    wrapper.layer.kernel.assign(np.ones((4, 3)))
    for source in (write(model, tmp_path, "h5"), model):
        np.testing.assert_array_equal(load_model(source).layers[1].kernel, mask)


@pytest.mark.parametrize("form", [pytest.param("h5", marks=pytest.mark.slow), "keras"])
def test_clustered_layers_get_their_shared_weights(form, keras, tfmot, write, outputs, tmp_path, caplog):
    """A clustered model computes the same without its wrappers, with as few different weights per kernel."""
    layers, start = keras.layers, tfmot.clustering.keras.CentroidInitialization.LINEAR
    plain = keras.Sequential([layers.Input((6, 5)), layers.SimpleRNN(4), layers.Dense(3, name="head")])
    model = _fit(tfmot.clustering.keras.cluster_weights(plain, number_of_clusters=4, cluster_centroids_init=start))
    expected = outputs(model)
    loaded = load_model(write(model, tmp_path, form))
    assert [type(layer).__name__ for layer in loaded.layers] == ["InputLayer", "SimpleRNN", "Dense"]
    np.testing.assert_allclose(outputs(loaded)[0], expected[0], rtol=1e-5, atol=1e-6)
    assert all(len(np.unique(weight)) <= 4 for weight in loaded.get_weights() if weight.ndim > 1)
    assert "wrappers of clustering: stripped" in caplog.text


def _trained_for_int8(keras, tfmot):
    layers = keras.layers
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Add()([layers.DepthwiseConv2D(3, padding="same", activation="relu")(x), x])
    x = layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(x))
    return _fit(tfmot.quantization.keras.quantize_model(keras.Model(inputs, x)))


@pytest.mark.parametrize("form", representatives(["h5", "keras", "saved_model"], "keras"))
def test_layers_trained_for_int8_become_float(form, keras, tfmot, write, outputs, tmp_path, caplog):
    """A quantize-aware model becomes a float one of the same layers, whose outputs are those up to the rounding."""
    model = _trained_for_int8(keras, tfmot)
    loaded = load_model(write(model, tmp_path, form))
    assert {"stem", "norm", "head"} <= {layer.name for layer in loaded.layers}
    assert not any("uantize" in type(layer).__name__ for layer in loaded.layers)
    assert 0 < np.abs(outputs(loaded)[0] - outputs(model)[0]).max() < 0.1
    assert "float again" in caplog.text


def test_annotated_layers_are_plain_layers(keras, tfmot, outputs):
    """A layer that is only annotated for quantization is the layer itself."""
    annotated = tfmot.quantization.keras.quantize_annotate_layer(keras.layers.Dense(4, activation="tanh", name="one"))
    model = keras.Sequential([keras.layers.Input((5,)), annotated, keras.layers.Dense(2)])
    loaded = load_model(model)
    assert [layer.name for layer in loaded.layers][1] == "one"
    np.testing.assert_allclose(outputs(loaded)[0], outputs(model)[0], rtol=1e-6)


def test_a_model_trained_for_int8_keeps_its_rounding_beside_the_float_one(keras, tfmot, outputs, tmp_path):
    """What an int8 file is made of gives the outputs of the wrapped model, under the names of the float one."""
    from edgeprune.models.load import open_model, reload_model
    from edgeprune.models.save import save_model

    model = _trained_for_int8(keras, tfmot)
    opened = open_model(model)
    assert opened.rounded.output_names == opened.model.output_names == ["head"]
    save_model(opened.rounded, tmp_path / "rounded.keras")
    for rounded in (opened.rounded, reload_model(tmp_path / "rounded.keras")):
        np.testing.assert_allclose(outputs(rounded)[0], outputs(model)[0], rtol=1e-6)


@pytest.mark.parametrize("form", representatives(["object", "keras", "h5", "saved_model"], "object", "keras"))
def test_a_spectral_normalization_is_stripped(form, keras, write, outputs, tmp_path, caplog):
    """A model with Keras' SpectralNormalization, which tf_keras itself cannot read from a file, opens in every format
    as the layers in the wrappers, inside TimeDistributed too, and computes the same."""
    layers = keras.layers
    inputs = keras.Input((5, 6))
    x = layers.TimeDistributed(layers.SpectralNormalization(layers.Dense(4, activation="relu")))(inputs)
    model = keras.Model(inputs, layers.SpectralNormalization(layers.Conv1D(3, 2), name="outer")(x))
    model(np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32"), training=True)
    expected = outputs(model)
    loaded = load_model(model if form == "object" else write(model, tmp_path, form))
    assert [type(layer).__name__ for layer in loaded.layers] == ["InputLayer", "TimeDistributed", "Conv1D"]
    assert type(loaded.layers[1].layer).__name__ == "Dense"
    assert loaded.output_names == ["outer"]
    np.testing.assert_allclose(outputs(loaded)[0], expected[0], rtol=1e-5, atol=1e-6)
    assert "wrappers of spectral normalization: stripped" in caplog.text
