"""Figures of a file, its parity with the Keras model and what it answered, in one pass over the data."""

import numpy as np
import pytest
import tf_keras

from edgeprune.data import InputSpec, load_data
from edgeprune.evaluate.accuracy import evaluate_tflite
from edgeprune.evaluate.answers import Answers
from edgeprune.progress import Progress
from edgeprune.recipe.config import DataConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task

STEPS, CLASSES = 6, 3


class Session:
    """Answers as a file would: with a function of the inputs."""

    inputs = ("input",)

    def __init__(self, run):
        self._run = run

    def run(self, inputs):
        return [np.asarray(self._run(inputs[0]), np.float32)]


def tagger(*, padded):
    inputs = tf_keras.Input([STEPS], dtype="int32")
    steps = tf_keras.layers.Embedding(9, 8, mask_zero=padded)(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(CLASSES, "softmax")(steps))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=[])
    return model


@pytest.mark.parametrize("left_out", ["padding", "a class of the recipe"])
def test_answers_count_the_steps_that_the_metric_counts(left_out):
    """Padding, and the class that the recipe ignores, are in the confusion matrix as little as in the accuracy."""
    tf_keras.utils.set_random_seed(0)
    padded = left_out == "padding"
    model, rng = tagger(padded=padded), np.random.default_rng(0)
    x = rng.integers(1, 9, (80, STEPS))
    x[:, 4:] = 0
    y = rng.integers(0, CLASSES, x.shape)
    data = load_data({"train": (x, y), "test": (x, y)}, DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(ignore=None if padded else 0), data)
    answers = Answers(task.outputs)
    figures, _ = evaluate_tflite(Session(model), task.prepare(data).test, task, answers=answers, progress=Progress())
    (summary,) = answers.summary().values()
    confusion = np.array(summary["confusion"])
    assert confusion.sum() == (80 * 4 if padded else np.count_nonzero(y))
    assert np.trace(confusion) / confusion.sum() == pytest.approx(figures["accuracy"], abs=1e-6)


@pytest.mark.parametrize("lost", [1.0, 0.5])
def test_answers_that_are_no_numbers_agree_with_nothing(lost):
    """A largest error of NaN stays NaN, a row with one has no class, and the values are counted."""
    model = tf_keras.Sequential([tf_keras.layers.Input([4]), tf_keras.layers.Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 4), np.float32), rng.integers(0, CLASSES, 40)
    data = load_data({"train": (x, y), "test": (x, y)}, DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data)

    def run(inputs):
        answered = np.array(model(inputs))
        answered[: round(lost * len(answered)), 1] = np.nan
        return answered

    _, parity = evaluate_tflite(Session(run), data.test, task, reference=model, progress=Progress())
    assert np.isnan(parity.max_abs_error)
    assert np.isnan(parity.outputs[0].max_abs_error)
    assert parity.top1_agreement == 1 - lost
    assert parity.not_finite == round(lost * 40)


@pytest.mark.parametrize("steps", [6, 40])
def test_residuals_leave_out_the_steps_that_the_metric_leaves_out(steps):
    """Padding is no residual, whether the values of a sample are kept or only their sums."""
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input([steps], dtype="int32")
    hidden = tf_keras.layers.Embedding(9, 8, mask_zero=True)(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(hidden))
    model.compile("sgd", "mse", weighted_metrics=["mae"])
    rng = np.random.default_rng(0)
    x = rng.integers(1, 9, (80, steps))
    x[:, steps // 2 :] = 0
    y = rng.normal(size=(80, steps, 2)).astype(np.float32)
    y[:, steps // 2 :] = 1000
    data = load_data({"train": (x, y), "test": (x, y)}, DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data)
    answers = Answers(task.outputs)
    figures, _ = evaluate_tflite(Session(model), data.test, task, answers=answers, progress=Progress())
    (summary,) = answers.summary().values()
    assert summary["residuals"]["mean_abs"] == pytest.approx(figures["mae"], rel=1e-4)
    assert summary["residuals"]["not_finite"] == 0
    assert answers._part(None).merit().min() > -10
