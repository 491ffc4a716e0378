"""Whole builds of tasks other than one class per image: several outputs, no labels; questions before training."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune.builder import build
from edgeprune.cli import edgeprune as cli
from edgeprune.errors import RecipeError, UsageError
from edgeprune.recipe.load import resolve_recipe
from edgeprune.selection import Limits

QUICK = """
extends = ["filters-int8"]
[finetune]
epochs = 1
[filters]
max_macs = "70%"
samples = 64
[calibration]
samples = 32
range = "minmax"
[quantize]
rounding = "nearest"
"""


# For what is the same for files of every format.
FLOAT = QUICK.replace("filters-int8", "filters")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    def write(more="", quick=QUICK):
        path = tmp_path_factory.mktemp("recipes") / "quick.toml"
        path.write_text(quick + more)
        return resolve_recipe(str(path))

    return write


@pytest.fixture(scope="module")
def images():
    """Images with a bright bar: its place is a class, its brightness a number."""
    r = np.random.default_rng(0)
    place, level = r.integers(0, 3, 300), r.uniform(0.5, 2, 300).astype("float32")
    x = r.normal(0, 0.1, (300, 9, 9, 1)).astype("float32")
    for i, (k, brightness) in enumerate(zip(place, level, strict=True)):
        x[i, 3 * k : 3 * k + 3] += brightness
    return x, place, level


@pytest.fixture(scope="module")
def two_heads(images):
    """A tf_keras model with a classifier and a regressor, compiled with losses, weights and metrics by output."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    x, place, level = images
    layers = tf_keras.layers
    inputs = layers.Input([9, 9, 1])
    h = layers.Conv2D(12, 3, activation="relu")(inputs)
    h = layers.Flatten()(layers.Conv2D(12, 3, activation="relu")(h))
    outputs = [layers.Dense(3, activation="softmax", name="place")(h), layers.Dense(1, name="level")(h)]
    model = tf_keras.Model(inputs, outputs, name="heads")
    model.compile(
        "adam",
        {"place": "sparse_categorical_crossentropy", "level": "mse"},
        metrics={"place": "accuracy", "level": [tf_keras.metrics.MeanAbsoluteError(name="off")]},
        loss_weights={"place": 1.0, "level": 0.3},
    )
    model.fit(x, {"place": place, "level": level}, epochs=6, verbose=0)
    return model


@pytest.mark.parametrize("quick", [FLOAT, pytest.param(QUICK, marks=pytest.mark.slow)], ids=["float", "int8"])
def test_each_output_has_its_figures_and_one_of_them_decides(two_heads, images, recipe, quick, tmp_path):
    """Labels by output; the float32 file's figures are those of Keras' evaluate; the pick goes by [task] primary."""
    x, place, level = images
    part = x[:240], {"level": level[:240], "place": place[:240]}
    test = x[240:], {"level": level[240:], "place": place[240:]}
    report = build(
        two_heads,
        data={"train": part, "test": test},
        target="rpi4",
        recipe=recipe('[task]\nprimary = "level.off"\n', quick),
        out=tmp_path,
    )
    expected = two_heads.evaluate(test[0], test[1], verbose=0, return_dict=True)
    found = {name: metric.value for name, metric in report.baseline.metrics.items()}
    assert found == pytest.approx(
        {"place.accuracy": expected["place_accuracy"], "level.off": expected["level_off"]}, abs=1e-4
    )
    assert (report.metric.name, report.metric.higher_is_better, report.metric.points) == ("level.off", False, 1.0)
    allowed = report.baseline.validation.value * 1.05
    assert report.picked.validation.value <= allowed
    best = min(variant.validation.value for variant in report.variants)
    assert {v.name: v for v in report.variants}[report.picks.quality].validation.value == best
    assert [output.name for output in report.task] == ["place", "level"]
    assert report.task[0].origin == "as the model was compiled"


@pytest.mark.slow
def test_without_labels_the_unpruned_model_is_the_teacher(two_heads, images, recipe, tmp_path):
    """Inputs alone build, and agreement with the unpruned model is reported for every output."""
    taught = recipe('[task]\nkind = "teacher"\n', FLOAT)
    report = build(two_heads, data=images[0], target="rpi4", recipe=taught, out=tmp_path)
    assert report.metric.name == "agreement"
    assert report.baseline.metric.value == pytest.approx(1.0, abs=1e-4)
    assert set(report.picked.metrics) == {"place.agreement", "level.agreement"}
    assert 0.3 < report.picked.metric.value <= 1


def test_a_folder_of_images_without_classes_asks_for_a_teacher(images, recipe, tmp_path):
    """The command stops with exit code 2 and the line to write; with that line the build runs."""
    import tf_keras
    from PIL import Image

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input([9, 9, 1]),
            layers.Conv2D(12, 3, activation="relu"),
            layers.Conv2D(12, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.save(tmp_path / "model.keras")
    (tmp_path / "images").mkdir()
    for i, image in enumerate(images[0][:60]):
        pixels = np.clip(image[..., 0] * 100 + 50, 0, 255).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    command = ["build", str(tmp_path / "model.keras"), "--data", str(tmp_path / "images"), "--target", "rpi4"]
    quick, untouched = tmp_path / "quick.toml", 'extends = ["float"]\n'  # what is pruned has nothing to do with it
    quick.write_text(untouched)
    asked = CliRunner().invoke(cli, [*command, "--recipe", str(quick), "--out", str(tmp_path / "run")])
    assert asked.exit_code != 0
    assert 'kind = "teacher"' in f"{asked.output}{asked.exception}"
    quick.write_text(f'{untouched}[task]\nkind = "teacher"\n')
    answered = CliRunner().invoke(cli, [*command, "--recipe", str(quick), "--out", str(tmp_path / "run"), "--json"])
    assert answered.exit_code == 0, answered.output
    assert json.loads((tmp_path / "run" / "report.json").read_text())["metric"]["name"] == "agreement"


def test_what_has_two_readings_is_asked_before_anything_is_trained(images, recipe, tmp_path):
    """An uncompiled model without an activation and labels of zeros and ones: the readings are listed."""
    import tf_keras

    x, place, _ = images
    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input([9, 9, 1]), layers.Flatten(), layers.Dense(1)])
    with pytest.raises(RecipeError) as asked:
        build(model, data=(x, (place > 0).astype(int)), target="rpi4", recipe=recipe(), out=tmp_path)
    assert asked.value.exit_code == 2
    for line in ('kind = "classification"', 'kind = "regression"', 'kind = "teacher"'):
        assert line in str(asked.value)


def test_points_of_an_error_are_refused_before_training(two_heads, images, recipe, tmp_path):
    """A drop of 2 means nothing where the metric is an error of 0.01; a part of it does."""
    x, place, level = images
    with pytest.raises(UsageError, match="5%"):
        build(
            two_heads,
            data=(x, (place, level)),
            target="rpi4",
            recipe=recipe('[task]\nprimary = "level.off"\n'),
            out=tmp_path,
            limits=Limits(max_drop="2"),
        )
    assert not (tmp_path / "stages" / "baseline").exists()
