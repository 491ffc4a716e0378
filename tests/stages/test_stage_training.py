"""What a training stage tells of how it trains."""

import numpy as np
import pytest
import tf_keras

import edgeprune
from edgeprune.progress import Progress
from edgeprune.recipe.load import parse_recipe


class Notes(Progress):
    def __init__(self):
        self.heard = []

    def note(self, text):
        self.heard.append(text)


@pytest.mark.parametrize(("side", "notes"), [(32, ["2 pixels"]), (16, ["a pixel"]), (8, [])])
def test_the_log_says_how_far_images_are_moved(side, notes, tmp_path):
    """By the recipe for filters, whose shift is a share of the images; where that is no pixel, nothing is said."""
    layers = tf_keras.layers
    inputs = layers.Input([side, side, 1])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    random = np.random.default_rng(0)
    y = np.arange(64) % 2
    x = (random.random((64, side, side, 1)) + y[:, None, None, None]).astype("float32")
    progress = Notes()
    table = {
        "extends": "filters",
        "filters": {"criterion": "l2", "samples": 16},
        "reconstruct": {"samples": 16},
        "finetune": {"epochs": 1},
    }
    edgeprune.build(
        model, target="rpi4", data={"x": x, "y": y}, recipe=parse_recipe(table, "mine"), out=tmp_path / "run",
        progress=progress,
    )  # fmt: skip
    found = [note for note in progress.heard if "moves" in note]
    assert found == [f"moves training images by up to {pixels} at random" for pixels in notes]
