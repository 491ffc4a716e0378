"""Copies of a model compute what the model computes; a layer that cannot be copied is named."""

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models.load import load_model
from edgeprune.models.rebuild import copy_layer, rebuild
from edgeprune.prune.sparse import prepare as sparse_prepare
from edgeprune.prune.weights import kernels, lottery, magnitude, masked
from edgeprune.quantize import prepare
from edgeprune.recipe.config import WeightsConfig


@pytest.fixture(scope="module")
def adapted():
    """Images normalized by statistics that were taken from data, as ``Normalization.adapt`` takes them."""
    import tf_keras

    L = tf_keras.layers
    images = np.random.default_rng(0).normal(100, 40, (32, 8, 8, 3)).astype(np.float32)
    normalization = L.Normalization(name="statistics")
    normalization.adapt(images)
    inputs = L.Input([8, 8, 3])
    x = L.Conv2D(4, 1, name="stem")(normalization(inputs))
    x = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(6, 1, name="wide")(x)))
    return tf_keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x))), images[:4]


def _reinitialized(model):
    """Other weights, so only what comes before the first kernel can be compared: the kernels are put back."""
    copy = lottery.reinitialized(model, 1)
    for layer in model.layers:
        if layer.trainable_weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def _initial(model, folder):
    model.save(folder / "initial.keras")
    return lottery.load_initial(str(folder / "initial.keras"), lottery.reinitialized(model, 1), trust=False)


COPIES = {
    "copy": lambda model, folder: kernels.copy_model(model),
    "masked": lambda model, folder: masked.masked_model(model, ["wide"]),
    "stripped": lambda model, folder: masked.strip(masked.masked_model(model, ["wide"])),
    "wrapped": lambda model, folder: magnitude.wrap(model, WeightsConfig(include=("wide",)), 100)[0],
    "lottery": lambda model, folder: _reinitialized(model),
    "initial": _initial,
    "sparse inference": lambda model, folder: sparse_prepare.prepare(model).model,
    "quantization-aware": lambda model, folder: prepare.prepare(model),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_normalize_as_their_original(adapted, how, tmp_path):
    """A layer that computes with constants made from its weights (Normalization) has those of its own weights."""
    model, images = adapted
    copy = COPIES[how](model, tmp_path)
    np.testing.assert_allclose(copy(images, training=False), model(images, training=False), rtol=1e-4, atol=1e-5)


def _times(*, config):
    """A layer that multiplies by a number; ``config``: what its get_config leaves out."""
    import tf_keras

    class Times(tf_keras.layers.Layer):
        def __init__(self, factor=2, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, inputs):
            return inputs * self.factor

        if config == "base":

            def get_config(self):
                return {"factor": self.factor}

    return Times


@pytest.mark.parametrize("config", ["nothing", "base"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_keeps_its_name_though_its_config_has_none(config, nested):
    """A layer of the user's own, whose config has its arguments only, is copied with its name and format."""
    import tf_keras

    inputs = tf_keras.Input((4,))
    x = _times(config=config)(3, name="mine", dtype="float64")(inputs)
    model = tf_keras.Model(inputs, x)
    if nested:
        outer = tf_keras.Input((4,))
        model = load_model(tf_keras.Model(outer, tf_keras.layers.Dense(2)(model(outer))))
    copy = rebuild(model, copy_layer)
    for layer, new in zip(model.layers, copy.layers, strict=True):
        new.set_weights(layer.get_weights())
    ones = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(copy(ones), model(ones))
    assert copy.get_layer("mine").dtype_policy.name == "float64"


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_without_a_config_is_refused_by_name(nested):
    """What cannot be made anew is an error that names the layer and says what it lacks."""
    import tf_keras

    class Fixed(tf_keras.layers.Layer):
        def __init__(self, parts):
            super().__init__(name="mine")
            self.parts = parts

        def get_config(self):
            raise NotImplementedError("not written yet")

        def call(self, inputs):
            return inputs + len(self.parts)

    inputs = tf_keras.Input((4,))
    model = tf_keras.Model(inputs, Fixed([1, 2])(inputs))
    if nested:
        outer = tf_keras.Input((4,))
        model = tf_keras.Model(outer, model(outer))
    with pytest.raises(ModelError, match=r"'mine' \(Fixed\) cannot be made anew(.|\n)*get_config"):
        rebuild(load_model(model), copy_layer)
