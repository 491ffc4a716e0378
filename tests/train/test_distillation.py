"""Distillation: the loss is the one in the paper, the metric that of the labels, and a student follows its teacher."""

import numpy as np
import pytest

from edgeprune.errors import RecipeError
from edgeprune.recipe.config import DistillConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.distillation import distilling, with_teacher


@pytest.fixture(scope="module")
def packed(tiny_model, tiny_data):
    """A batch of the digits with the teacher's outputs behind the labels."""
    x, y = next(iter(with_teacher(tiny_data.validation.batches(8), tiny_model)))
    return x.numpy(), y.numpy()


def test_the_teachers_outputs_travel_behind_the_labels(tiny_model, tiny_data, packed):
    """One label column, then the ten outputs of the teacher on the same samples."""
    x, y = packed
    np.testing.assert_array_equal(y[:, 0], next(iter(tiny_data.validation.batches(8)))[1].numpy())
    np.testing.assert_allclose(y[:, 1:], tiny_model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_loss_is_as_defined(tiny_model, packed, temperature, weight):
    """(1 - weight) × cross-entropy + weight × T² × KL, computed here by hand."""
    task = resolve_task(tiny_model, TaskConfig(), np.array([1]))
    taught = distilling(task, DistillConfig(temperature=temperature, weight=weight), tiny_model)
    y = packed[1]
    student = np.random.default_rng(0).dirichlet(np.ones(10), len(y)).astype("float32")
    labels, teacher = y[:, 0].astype(int), y[:, 1:]

    def soften(p):
        powered = p ** (1 / temperature)
        return powered / powered.sum(-1, keepdims=True)

    a, b = soften(np.maximum(teacher, 1e-8).astype("float64")), soften(student.astype("float64"))
    divergence = temperature**2 * np.mean(np.sum(a * np.log(a / b), -1))
    entropy = -np.mean(np.log(student[np.arange(len(y)), labels]))
    expected = (1 - weight) * entropy + weight * divergence
    assert float(taught.loss_function()(y, student)) == pytest.approx(expected, rel=1e-3)


def test_logits_are_not_probabilities():
    """A model without softmax learns from softmax of its teacher's outputs, not from their logarithms."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,))])
    task = resolve_task(model, TaskConfig(), np.array([1]))
    taught = distilling(task, DistillConfig(temperature=1.0, weight=1.0), model)
    teacher, student = np.array([-5.0, -1.0, -3.0]), np.array([-1.0, -5.0, -3.0])
    p, q = (np.exp(v) / np.exp(v).sum() for v in (teacher, student))
    loss = taught.loss_function()(np.float32([[1, *teacher]]), np.float32([student]))
    assert float(loss) == pytest.approx(float(np.sum(p * np.log(p / q))), rel=1e-5)


def test_outputs_that_are_not_rows_are_refused():
    """One message instead of a crash in the middle of training."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Conv2D(1, 1, input_shape=(8, 8, 1))])
    task = resolve_task(model, TaskConfig(loss="mse"), np.zeros((4, 8, 8, 1)))
    with pytest.raises(RecipeError, match="one row of values per sample"):
        distilling(task, DistillConfig(), model)


def test_the_metric_is_that_of_the_labels(tiny_model, packed):
    """Accuracy does not look at the teacher."""
    task = distilling(resolve_task(tiny_model, TaskConfig(), np.array([1])), DistillConfig(), tiny_model)
    metric = task.new_metric()
    metric.update_state(packed[1], np.eye(10)[packed[1][:, 0].astype(int)])
    assert float(metric.result()) == 1.0
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_a_distilled_model_keeps_its_own_loss(tiny_model, tiny_data, tmp_path):
    """What is saved afterwards is compiled for the labels alone, and loads without a teacher."""
    import tf_keras

    from edgeprune.models.load import load_model
    from edgeprune.models.save import save_model
    from edgeprune.progress import Progress
    from edgeprune.recipe.config import FinetuneConfig
    from edgeprune.train.finetune import Lessons, finetune

    student = tf_keras.models.clone_model(tiny_model)
    task = resolve_task(tiny_model, TaskConfig(), np.array([1]))
    lessons = Lessons(FinetuneConfig(epochs=1), DistillConfig(), teacher=tiny_model)
    state = tmp_path / "state.npz"
    finetune(student, tiny_data, task, lessons, seed=0, deterministic=False, state_file=state, progress=Progress())
    save_model(student, tmp_path / "student.keras")
    loaded = load_model(tmp_path / "student.keras")
    assert type(loaded.loss).__name__ == "SparseCategoricalCrossentropy"
    assert resolve_task(loaded, TaskConfig(), np.array([1])).metric == "sparse_categorical_accuracy"
