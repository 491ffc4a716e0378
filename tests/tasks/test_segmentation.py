"""Masks: losses and metrics without void pixels, the figures of a .tflite, and the script that writes masks."""

import subprocess
import sys

import numpy as np
import pytest
from matrix import representatives
from PIL import Image

from edgeprune.convert.converter import convert
from edgeprune.data import InputSpec, load_data
from edgeprune.evaluate.accuracy import evaluate_tflite, keras_figures
from edgeprune.evaluate.answers import Answers
from edgeprune.progress import Progress
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe.config import DataConfig, MasksConfig, TaskConfig
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session
from edgeprune.snippets import write_snippets
from edgeprune.target import load_target
from edgeprune.tasks.resolve import resolve_task

CONFIG = DataConfig(masks=MasksConfig(void=9))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """By number of classes: 15 images of 12 x 16 pixels of noise, with masks of noise, a tenth of which is void."""
    folders = {}
    for classes in (2, 3):
        rng, root = np.random.default_rng(classes), tmp_path_factory.mktemp("scenes")
        for kind in ("images", "masks"):
            (root / kind).mkdir()
        for i in range(15):
            mask = np.where(rng.random((12, 16)) < 0.1, 9, rng.integers(0, classes, (12, 16))).astype(np.uint8)
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(root / "images" / f"{i:02}.png")
            Image.fromarray(mask).save(root / "masks" / f"{i:02}.png")
        folders[classes] = root
    return folders


def _model(width, end):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.layers.Input((12, 16, 3))
    x = tf_keras.layers.Rescaling(1 / 255)(inputs)
    return tf_keras.Model(inputs, tf_keras.layers.Conv2D(width, 3, padding="same", activation=end)(x))


def _iou(truth, chosen, classes):
    """Mean over the classes that occur, and the share of right pixels; without void."""
    kept = truth >= 0
    each = [
        (kept & (truth == c) & (chosen == c)).sum() / (kept & ((truth == c) | (chosen == c))).sum()
        for c in range(classes)
    ]
    return np.mean(each), (kept & (truth == chosen)).sum() / kept.sum()


def _all(model, split, width):
    """Labels as they are in the files (void: -1) and the classes that the model answers."""
    x, y = next(split.batches(64).as_numpy_iterator())
    outputs = model.predict(x, verbose=0)
    is_logit = model.layers[-1].activation.__name__ == "linear"
    return y, outputs.argmax(-1) if width > 1 else (outputs[..., 0] > (0 if is_logit else 0.5)).astype(int)


CASES = {
    "class numbers": (3, "softmax", None),
    "logits": (3, "linear", "sparse_categorical_crossentropy"),
    "focal": (3, "softmax", "categorical_focal_crossentropy"),
    "rows": (3, "softmax", "categorical_crossentropy"),
    "Dice": (3, "softmax", "dice"),
    "one sigmoid": (1, "sigmoid", None),
    "one logit": (1, "linear", {"class": "BinaryCrossentropy", "from_logits": True}),
    "Dice of one sigmoid": (1, "sigmoid", "dice"),
    "focal of one sigmoid": (1, "sigmoid", "binary_focal_crossentropy"),
}


# The other losses are those of one label per sample, which each pixel is.
@pytest.mark.parametrize("case", representatives(CASES, "class numbers", "logits", "one logit", "Dice of one sigmoid"))
def test_mean_iou_and_accuracy_leave_out_void(scenes, case):
    """They equal NumPy's, for every loss and form of output; and nothing in void pixels changes the loss."""
    import tensorflow as tf

    width, end, loss = CASES[case]
    classes = max(width, 2)
    model = _model(width, end)
    data = load_data(scenes[classes], CONFIG, InputSpec.of(model))
    task = resolve_task(model, TaskConfig(loss=loss), data)
    assert task.outputs[0].kind == "segmentation"
    assert task.name == "mean_iou"
    figures = keras_figures(model, task.prepare(data).train, task)
    iou, right = _iou(*_all(model, data.train, width), classes)
    assert figures["mean_iou"] == pytest.approx(iou, abs=1e-6)
    assert next(v for name, v in figures.items() if "accuracy" in name) == pytest.approx(right, abs=1e-6)
    x, y = next(iter(task.prepare(data).train.batches(8)))
    raw = next(iter(data.train.batches(8)))[1]
    outputs = model(x)
    odd = tf.where((raw == -1)[..., None], tf.reverse(outputs, [0]), outputs)
    value = float(task.loss_function()(y, outputs))
    assert value > 0
    assert float(task.loss_function()(y, odd)) == pytest.approx(value, rel=1e-5)


def test_region_losses_are_those_of_the_pixels_that_count(scenes):
    """Dice over masks with void equals Keras' Dice over the other pixels alone."""
    import keras
    import tensorflow as tf

    model = _model(3, "softmax")
    data = load_data(scenes[3], CONFIG, InputSpec.of(model))
    task = resolve_task(model, TaskConfig(loss="dice"), data)
    x, y = next(iter(task.prepare(data).train.batches(8)))
    kept = next(iter(data.train.batches(8)))[1] >= 0
    alone = keras.losses.Dice()(tf.boolean_mask(y, kept), tf.boolean_mask(model(x), kept))
    assert float(task.loss_function()(y, model(x))) == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize("width", representatives([1, 3], 3))
def test_the_file_and_the_script_give_what_numpy_counts(scenes, tmp_path, width):
    """The .tflite has Keras' mean IoU and the IoU of each class; the script's masks, written one by one from the image
    files, add up to the same."""
    classes = max(width, 2)
    model = _model(width, "softmax" if width > 1 else "sigmoid")
    data = load_data(scenes[classes], CONFIG, InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data)
    (tmp_path / "m.tflite").write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    session = Session(tmp_path / "m.tflite", model.input_names, model.output_names, runtime=find_runtime())
    answers = Answers(task.outputs)
    figures, _ = evaluate_tflite(session, task.prepare(data).test, task, answers=answers, progress=Progress())
    session.close()
    truth, chosen = _all(model, data.test, width)
    iou, _ = _iou(truth, chosen, classes)
    assert figures["mean_iou"] == pytest.approx(iou, abs=1e-6)
    (summary,) = answers.summary().values()
    assert np.mean([one["iou"] for one in summary["per_class"]]) == pytest.approx(iou, abs=1e-6)
    names = [f"class {i}" for i in range(classes)]
    ends = model.input_names, model.output_names
    mask = {"names": names, "threshold": 0.5}
    write_snippets(tmp_path / "m.tflite", load_target("rpi4"), data.preprocessing, *ends, None, mask=mask)
    written = []
    for i in data.test.index:
        command = [sys.executable, "run_m.py", data.test.store.path(int(i))]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert found.returncode == 0, found.stderr
        assert found.stdout.splitlines()[0] == f"{i:02}-mask.png"
        picture = Image.open(tmp_path / f"{i:02}-mask.png")
        assert picture.mode == "P"
        written.append(np.asarray(picture))
    np.testing.assert_array_equal(written, chosen)
