"""Without labels the unpruned model is the goal: it agrees with itself fully, and every output counts at its scale."""

import numpy as np
import pytest

from edgeprune.data import InputSpec, load_data
from edgeprune.recipe.config import DataConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.tasks.teacher import explained_variance


@pytest.fixture(scope="module")
def detector():
    """A model with class scores, boxes a thousand times as large, and a distribution."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input([8, 8, 3])
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    scores = layers.Conv2D(2, 1, activation="sigmoid", name="scores")(x)
    boxes = layers.Rescaling(1000.0, name="offsets")(layers.Conv2D(4, 1, name="boxes")(x))
    kind = layers.Dense(3, activation="softmax", name="kind")(layers.GlobalAveragePooling2D()(x))
    return tf_keras.Model(inputs, [scores, boxes, kind])


@pytest.fixture(scope="module")
def resolved(detector):
    images = np.random.default_rng(0).uniform(size=(120, 8, 8, 3)).astype("float32")
    data = load_data(images, DataConfig(), InputSpec.of(detector))
    task = resolve_task(detector, TaskConfig(kind="teacher"), data)
    return task, task.prepare(data)


def test_the_teacher_agrees_with_itself(detector, resolved):
    """The agreement of the unpruned model is 1 for every output."""
    from edgeprune.evaluate.accuracy import keras_figures

    task, data = resolved
    figures = keras_figures(detector, data.test, task)
    assert set(figures) == {"scores.agreement", "offsets.agreement", "kind.agreement"}
    assert task.value(figures) == pytest.approx(1.0)
    assert task.name == "agreement"
    assert (task.higher_is_better, task.points) == (True, 100.0)


def test_every_output_counts_at_its_own_scale(detector, resolved):
    """Outputs that are off by one standard deviation add the same to the loss, however large their values are."""
    task, data = resolved
    _, labels = next(iter(data.train.batches(96)))
    for i in (0, 1):
        values = labels[i].numpy()
        off = [label.numpy() for label in labels]
        off[i] = np.broadcast_to(values.mean((0, 1, 2)), values.shape)
        # Of its own mean an output is one deviation away, on average.
        assert float(task.loss_function()(labels, off)) == pytest.approx(1.0, abs=0.15)


def test_labels_are_not_needed_and_not_used(detector, resolved):
    """Labels of a source do not reach the task."""
    images = np.random.default_rng(0).uniform(size=(120, 8, 8, 3)).astype("float32")
    data = load_data((images, np.full(120, 7)), DataConfig(), InputSpec.of(detector))
    task = resolve_task(detector, TaskConfig(kind="teacher"), data)
    x, y = next(iter(task.prepare(data).validation.batches(4)))
    np.testing.assert_allclose(y[2], detector(x)[2], atol=1e-6)


def test_explained_variance_is_as_defined():
    """1 - squared error / variance, over batches as over all samples at once; 0 for the mean of each channel."""
    r = np.random.default_rng(0)
    truth = r.normal([0, 50], [1, 9], (40, 5, 2)).astype("float32")
    given = truth + r.normal(size=truth.shape).astype("float32")
    metric = explained_variance("agreement")
    for start in (0, 16, 32):
        metric.update_state(truth[start : start + 16], given[start : start + 16])
    flat = truth.reshape(-1, 2).astype("float64")
    expected = 1 - np.square(truth - given).sum() / np.square(flat - flat.mean(0)).sum()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    metric.reset_state()
    metric.update_state(truth, np.broadcast_to(flat.mean(0), truth.shape).astype("float32"))
    assert float(metric.result()) == pytest.approx(0.0, abs=1e-6)
