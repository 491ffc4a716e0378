"""What a training stage tells of how it trains."""

import numpy as np
import pytest
import tf_keras
from matrix import representatives
from PIL import Image

import edgeprune
from edgeprune.progress import Progress
from edgeprune.recipe.load import parse_recipe


class Enough(Exception):
    """The stage that is looked at has ended."""


class Notes(Progress):
    def __init__(self):
        self.heard, self.stages = [], []

    def note(self, text):
        self.heard.append(text)

    def stage(self, number, total, name, reused):
        if self.stages[-1:] == ["filters"]:
            raise Enough
        self.stages.append(name)


@pytest.mark.parametrize(
    ("side", "notes"), representatives([(32, ["2 pixels"]), (16, ["a pixel"]), (8, [])], (16, ["a pixel"]))
)
def test_the_log_says_how_far_images_are_moved(side, notes, tmp_path):
    """By the recipe for filters, whose shift is a share of the images; where that is no pixel, nothing is said."""
    layers = tf_keras.layers
    inputs = layers.Input([side, side, 1])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    random = np.random.default_rng(0)
    for number in range(48):
        path = tmp_path / "data" / ("train" if number < 36 else "test") / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 128, (side, side), np.uint8) + np.uint8(100 * (number % 2))).save(path)
    progress = Notes()
    table = {
        "extends": "filters",
        "filters": {"criterion": "l2", "samples": 16},
        "reconstruct": {"samples": 16},
        "finetune": {"epochs": 1},
        "data": {"scale": 1 / 255},
    }
    with pytest.raises(Enough):
        edgeprune.build(
            model, target="rpi4", data=str(tmp_path / "data"), recipe=parse_recipe(table, "mine"),
            out=tmp_path / "run", progress=progress,
        )  # fmt: skip
    found = [note for note in progress.heard if "moves" in note]
    assert found == [f"moves training images by up to {pixels} at random" for pixels in notes]
