"""Loss and metric: from the recipe, else as compiled, else what the output suggests."""

import numpy as np
import pytest

from edgeprune.errors import RecipeError
from edgeprune.recipe.config import TaskConfig
from edgeprune.train.task import resolve_task

CLASSES, ONE_HOT, VALUES = np.array([1, 2]), np.eye(4)[[1, 2]], np.array([[0.5], [1.5]])


def model(units=4, activation="softmax", **compiled):
    import tf_keras

    inputs = tf_keras.layers.Input([3])
    made = tf_keras.Model(inputs, tf_keras.layers.Dense(units, activation=activation)(inputs))
    if compiled:
        made.compile(**compiled)
        made.evaluate(np.zeros((2, 3)), np.zeros((2, units)) if units > 1 else VALUES, verbose=0)
    return made


def test_classification_is_the_default():
    """Without compile information: cross-entropy over classes, accuracy, in points."""
    task = resolve_task(model(), TaskConfig(), CLASSES)
    assert task.metric == "sparse_categorical_accuracy"
    assert (task.higher_is_better, task.points, task.classes) == (True, 100.0, 4)
    assert task.loss.get_config()["from_logits"] is False
    assert resolve_task(model(activation=None), TaskConfig(), CLASSES).loss.get_config()["from_logits"] is True


def test_the_form_of_the_labels_decides_between_the_twin_losses():
    """A model compiled for one-hot labels takes class numbers from folders, and the other way round."""
    compiled = model(loss="categorical_crossentropy", metrics=["accuracy"])
    assert resolve_task(compiled, TaskConfig(), CLASSES).metric == "sparse_categorical_accuracy"
    assert resolve_task(compiled, TaskConfig(), ONE_HOT).metric == "categorical_accuracy"


def test_compiled_settings_of_a_loss_are_kept():
    """Label smoothing survives."""
    import tf_keras

    loss = tf_keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    task = resolve_task(model(loss=loss), TaskConfig(), ONE_HOT)
    assert task.loss.get_config()["label_smoothing"] == pytest.approx(0.1)


def test_regression_as_compiled():
    """Mean absolute error: lower is better, differences in its own unit."""
    task = resolve_task(model(1, None, loss="mse", metrics=["mae"]), TaskConfig(), VALUES)
    assert (task.higher_is_better, task.points, task.classes) == (False, 1.0, None)
    assert task.drop(1.0, 1.5) == pytest.approx(0.5)
    metric = task.new_metric()
    metric.update_state(VALUES, VALUES + 2)
    assert float(metric.result()) == pytest.approx(2.0)


def test_multi_label_with_logits_counts_from_zero():
    """Binary accuracy of logits has its threshold at zero."""
    task = resolve_task(model(activation=None), TaskConfig(loss="binary_crossentropy"), ONE_HOT)
    metric = task.new_metric()
    metric.update_state(ONE_HOT, np.where(ONE_HOT > 0, 0.2, -0.2))
    assert float(metric.result()) == 1.0


def test_functions_of_the_user(tmp_path):
    """A loss and a metric from a file; a metric needs its direction."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import tensorflow as tf\ndef worst(y, p): return tf.reduce_max(tf.abs(tf.cast(y, tf.float32) - p), -1)\n"
    )
    config = TaskConfig(loss=f"{path}:worst", metric=f"{path}:worst", higher_is_better=False)
    task = resolve_task(model(), config, ONE_HOT)
    metric = task.new_metric()
    metric.update_state(ONE_HOT, ONE_HOT - 0.25)
    assert (task.metric, float(metric.result())) == ("worst", pytest.approx(0.25))
    assert float(task.loss_function()(ONE_HOT.astype("float32"), (ONE_HOT - 0.5).astype("float32"))) == pytest.approx(
        0.5
    )
    with pytest.raises(RecipeError, match="higher_is_better"):
        resolve_task(model(), TaskConfig(metric=f"{path}:worst"), ONE_HOT)


@pytest.mark.parametrize("config", [TaskConfig(loss="nonsense"), TaskConfig(metric="nonsense")])
def test_unknown_names_are_recipe_errors(config):
    """The message names what is not there."""
    with pytest.raises(RecipeError, match="nonsense"):
        resolve_task(model(), config, CLASSES)
