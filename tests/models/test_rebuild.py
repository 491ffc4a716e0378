"""Copies of a model compute what the model computes."""

import numpy as np
import pytest

from edgeprune.prune import kernels, lottery, magnitude, masked, sparse_prepare
from edgeprune.quantize import prepare
from edgeprune.recipe import WeightsConfig


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
