"""Distillation: the loss is the one in the paper, the metric that of the labels, and a student follows its teacher."""

import itertools

import numpy as np
import pytest
from matrix import representatives
from samples import data_of

from edgeprune.progress import Progress
from edgeprune.recipe.config import AugmentConfig, DistillConfig, FinetuneConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.distillation import distilling, with_teacher
from edgeprune.train.finetune import Lessons, finetune

RANDOM = np.random.default_rng(0)


def taught(model, data, config, **task):
    """The task with a teacher, its own task, and a batch: inputs, packed labels, and weights if there are any."""
    own = resolve_task(model, TaskConfig(**task), data)
    plain = own.prepare(data).validation.batches(8)
    batch = next(iter(with_teacher(plain, model)))
    return distilling(own, config, plain.element_spec[1]), own, batch


def test_the_teachers_outputs_travel_behind_the_labels(tiny_model, tiny_data):
    """One label column, then the ten outputs of the teacher on the same samples."""
    x, y = next(iter(with_teacher(tiny_data.validation.batches(8), tiny_model)))
    np.testing.assert_array_equal(y[:, 0], next(iter(tiny_data.validation.batches(8)))[1].numpy())
    np.testing.assert_allclose(y[:, 1:], tiny_model.predict(x, verbose=0), atol=1e-6)


def divergence(teacher, student, temperature):
    """T² × KL of softened probabilities, per position."""

    def soften(p):
        powered = np.maximum(p.astype("float64"), 1e-8) ** (1 / temperature)
        return powered / powered.sum(-1, keepdims=True)

    a, b = soften(teacher), soften(student)
    return temperature**2 * np.sum(a * np.log(a / b), -1)


def entropy(student, labels):
    return -np.log(np.take_along_axis(student, labels[..., None], -1))[..., 0]


@pytest.mark.parametrize(
    ("temperature", "weight"), representatives(itertools.product([1.0, 4.0], [0.3, 1.0]), (4.0, 0.3), (1.0, 1.0))
)
def test_the_loss_is_as_defined(tiny_model, tiny_data, temperature, weight):
    """(1 - weight) × cross-entropy + weight × T² × KL, computed here by hand."""
    config = DistillConfig(temperature=temperature, weight=weight)
    task, _, (_, packed) = taught(tiny_model, tiny_data, config)
    student = RANDOM.dirichlet(np.ones(10), len(packed)).astype("float32")
    labels, teacher = packed.numpy()[:, 0].astype(int), packed.numpy()[:, 1:]
    expected = (1 - weight) * entropy(student, labels) + weight * divergence(teacher, student, temperature)
    assert float(task.loss_function()(packed, student)) == pytest.approx(expected.mean(), rel=1e-3)


def dense_model(units, activation):
    """A convolution over 4x4x2 that keeps height and width."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input([4, 4, 2])
    return tf_keras.Model(inputs, layers.Conv2D(units, 1, activation=activation)(inputs))


def test_logits_are_not_probabilities():
    """A model without softmax learns from softmax of its teacher's outputs, not from their logarithms."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,))])
    x = RANDOM.normal(size=(9, 2)).astype("float32")
    task, _, (_, packed) = taught(model, data_of(model, x, np.arange(9) % 3), DistillConfig(temperature=1.0, weight=1))
    student = RANDOM.normal(size=(len(packed), 3)).astype("float32")
    p, q = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in (packed.numpy()[:, 1:], student))
    expected = np.sum(p * np.log(p / q), -1).mean()
    assert float(task.loss_function()(packed, student)) == pytest.approx(expected, rel=1e-4)


def test_masks_are_taught_pixel_by_pixel():
    """Class numbers of every pixel: cross-entropy and divergence are means over all of them."""
    model = dense_model(3, "softmax")
    x, y = RANDOM.normal(size=(8, 4, 4, 2)).astype("float32"), RANDOM.integers(0, 3, (8, 4, 4))
    task, own, (_, packed) = taught(model, data_of(model, x, y), DistillConfig(temperature=2.0, weight=0.4))
    student = RANDOM.dirichlet(np.ones(3), (8, 4, 4)).astype("float32")
    teacher = model.predict(x, verbose=0)
    expected = 0.6 * entropy(student, y) + 0.4 * divergence(teacher, student, 2.0)
    assert float(task.loss_function()(packed, student)) == pytest.approx(expected.mean(), rel=1e-4)
    meter = task.meter()
    meter.update(x, packed, [student])
    right, guess = np.mean(student.argmax(-1) == y), student.argmax(-1)
    overlaps = [np.sum((guess == i) & (y == i)) / np.sum((guess == i) | (y == i)) for i in range(3)]
    assert own.metric == "mean_iou"
    assert meter.result() == {"mean_iou": pytest.approx(np.mean(overlaps)), "accuracy": pytest.approx(right)}


def test_a_loss_of_the_whole_batch_is_one_number_and_so_is_the_teachers(tmp_path, monkeypatch):
    """As losses of detectors are, which divide by the number of objects in a batch."""
    (tmp_path / "own.py").write_text(
        "import tensorflow as tf\ndef loss(y, p):\n    return tf.reduce_sum(abs(y - p)) / 7"
    )
    monkeypatch.chdir(tmp_path)
    model = dense_model(3, "linear")
    x, y = (RANDOM.normal(size=(8, 4, 4, last)).astype("float32") for last in (2, 3))
    config = DistillConfig(temperature=2.0, weight=0.4)
    task, _, (_, packed) = taught(model, data_of(model, x, y), config, loss="own.py:loss", metric="mae")
    student = RANDOM.normal(size=(8, 4, 4, 3)).astype("float32")
    squared = np.square(student - model.predict(x, verbose=0)).mean()
    expected = 0.6 * np.abs(student - y).sum() / 7 + 0.4 * squared
    assert float(task.loss_function()(packed, student)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("units", representatives([1, 3], 3))
def test_images_of_numbers_are_taught_by_squared_differences(units):
    """Depth, for example: the labels' loss and the mean squared difference from the teacher, whatever the rank."""
    model = dense_model(units, None)
    x, y = (RANDOM.normal(size=(8, 4, 4, channels)).astype("float32") for channels in (2, units))
    config = DistillConfig(temperature=2.0, weight=0.4)
    task, _, (_, packed) = taught(model, data_of(model, x, y), config, loss="mae", metric="mae")
    student = RANDOM.normal(size=(8, 4, 4, units)).astype("float32")
    expected = 0.6 * np.abs(student - y).mean() + 0.4 * np.square(student - model.predict(x, verbose=0)).mean()
    assert float(task.loss_function()(packed, student)) == pytest.approx(expected, rel=1e-4)


def two_heads():
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input([3])
    x = layers.Dense(6, activation="relu")(inputs)
    heads = [layers.Dense(4, activation="softmax", name="colour")(x), layers.Dense(2, name="box")(x)]
    return tf_keras.Model(inputs, heads)


@pytest.mark.parametrize("compiled", representatives([False, True], True))
def test_an_output_without_labels_has_its_teacher_alone(compiled):
    """Two outputs, one of them unlabelled: its loss is the difference from the teacher, by the weight of that;
    a training follows the teacher on it."""
    import tf_keras

    model = two_heads()
    if compiled:
        model.compile(loss={"colour": "sparse_categorical_crossentropy"}, metrics={"colour": ["accuracy"]})
    x, y = RANDOM.normal(size=(32, 3)).astype("float32"), np.arange(32) % 4
    data, config = data_of(model, x, {"colour": y}), DistillConfig(temperature=2.0, weight=0.4)
    task, own, (inputs, packed) = taught(model, data, config)
    student = [RANDOM.dirichlet(np.ones(4), 8).astype("float32"), RANDOM.normal(size=(8, 2)).astype("float32")]
    colours, boxes = (out.numpy() for out in model(inputs))
    expected = 0.6 * entropy(student[0], y[:8]) + 0.4 * divergence(colours, student[0], 2.0)
    difference = np.square(student[1] - boxes).mean()
    assert float(task.loss_function()(packed, student)) == pytest.approx(expected.mean() + 0.4 * difference, rel=1e-4)
    pupil = tf_keras.models.clone_model(model)

    def distance():
        return float(np.square(pupil(x)[1] - model(x)[1]).mean())

    before = distance()
    train(pupil, data, own, DistillConfig(weight=0.9), model, epochs=8)
    assert distance() < 0.7 * before


def train(student, data, task, distill, teacher, epochs=2, state=None, augment=None):
    import tempfile
    from pathlib import Path

    lessons = Lessons(
        FinetuneConfig(epochs=epochs, batch_size=8, learning_rate=0.02), distill, augment or AugmentConfig(), teacher
    )
    with tempfile.TemporaryDirectory() as folder:
        return finetune(student, task.prepare(data), task, lessons, seed=0, deterministic=False,
                        state_file=state or Path(folder) / "state.npz", progress=Progress())  # fmt: skip


def test_weights_of_samples_weigh_labels_and_teacher():
    """The whole loss of a sample counts by its weight; a sample of weight 0 teaches nothing."""
    model = two_heads()
    x, y = RANDOM.normal(size=(8, 3)).astype("float32"), {"colour": np.arange(8) % 4, "box": RANDOM.normal(size=(8, 2))}
    w = np.linspace(0, 2, 8, dtype="float32")
    task, _, (inputs, packed, weights) = taught(
        model, data_of(model, x, y, {"colour": w}), DistillConfig(temperature=2.0, weight=0.4)
    )
    student = [RANDOM.dirichlet(np.ones(4), 8).astype("float32"), RANDOM.normal(size=(8, 2)).astype("float32")]
    colours, boxes = (out.numpy() for out in model(inputs))
    of_colour = 0.6 * entropy(student[0], y["colour"]) + 0.4 * divergence(colours, student[0], 2.0)
    of_box = 0.6 * np.square(student[1] - y["box"]) + 0.4 * np.square(student[1] - boxes)
    expected = np.mean(w * of_colour) + of_box.mean()
    assert float(task.loss_function()(packed, student, weights)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("labels", representatives(["twins", "box", "teacher"], "teacher"))
def test_training_with_a_teacher_ends_with_the_best_epoch(labels):
    """One-hot rows, several outputs, no labels at all: the validation figure of an epoch is that of an evaluation."""
    import tf_keras

    from edgeprune.evaluate.accuracy import evaluate_keras

    model = two_heads()
    x, numbers = RANDOM.normal(size=(32, 3)).astype("float32"), np.arange(32) % 4
    box = RANDOM.normal(size=(32, 2)).astype("float32")
    y = {"twins": {"colour": np.eye(4)[numbers], "box": box}, "box": ({"box": box}), "teacher": ()}[labels]
    data = data_of(model, x, *([y] if y else []))
    task = resolve_task(model, TaskConfig(kind="teacher" if labels == "teacher" else None), data)
    student = tf_keras.models.clone_model(model)
    history = train(student, data, task, DistillConfig(), model)
    values = [entry["val_metric"] for entry in history]
    best = max(values) if task.higher_is_better else min(values)
    assert evaluate_keras(student, task.prepare(data).validation, task) == pytest.approx(best, abs=1e-5)


def test_the_metric_is_that_of_the_labels(tiny_model, tiny_data):
    """Accuracy does not look at the teacher."""
    task, own, (x, packed) = taught(tiny_model, tiny_data, DistillConfig())
    meter = task.meter()
    meter.update(x, packed, [np.eye(10)[packed.numpy()[:, 0].astype(int)]])
    assert meter.result() == {own.metric: 1.0}


def test_a_distilled_model_keeps_its_own_loss(tiny_model, tiny_data, tmp_path):
    """What is saved afterwards is compiled for the labels alone, and loads without a teacher."""
    import tf_keras

    from edgeprune.models.load import load_model
    from edgeprune.models.save import save_model

    student = tf_keras.models.clone_model(tiny_model)
    task = resolve_task(tiny_model, TaskConfig(), tiny_data)
    lessons = Lessons(FinetuneConfig(epochs=1), DistillConfig(), teacher=tiny_model)
    state = tmp_path / "state.npz"
    finetune(student, tiny_data, task, lessons, seed=0, deterministic=False, state_file=state, progress=Progress())
    save_model(student, tmp_path / "student.keras")
    loaded = load_model(tmp_path / "student.keras")
    assert type(loaded.loss).__name__ == "SparseCategoricalCrossentropy"
    assert resolve_task(loaded, TaskConfig(), tiny_data).metric == "accuracy"
