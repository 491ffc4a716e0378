"""A student learns its teacher's features, whatever number of channels pruning has left it."""

import numpy as np
import pytest

from edgeprune.errors import RecipeError
from edgeprune.recipe.config import DistillConfig, FinetuneConfig, TaskConfig
from edgeprune.train.features import FeatureLessons, last_features, similarity


def test_the_loss_is_as_defined():
    """Squared distance of the unit rows of F F^T, computed by hand; 0 for features that are only rotated."""
    r = np.random.default_rng(0)
    teacher, student = r.normal(size=(5, 3, 4)).astype("float32"), r.normal(size=(5, 7)).astype("float32")

    def rows(f):
        g = f.reshape(5, -1) @ f.reshape(5, -1).T
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    expected = np.square(rows(teacher) - rows(student)).sum(1)
    np.testing.assert_allclose(similarity().call(teacher, student), expected, rtol=1e-4)
    rotation, _ = np.linalg.qr(r.normal(size=(7, 7)))
    np.testing.assert_allclose(similarity().call(student, student @ rotation.astype("float32")), 0, atol=1e-6)


def test_the_last_features_are_what_the_last_layers_take(tiny_model):
    """The dense layer's input first, then that of the convolution before it."""
    found = last_features(tiny_model, 2)
    assert list(found) == ["dense", "conv2d_1"]


def test_models_without_a_layer_in_common_are_refused(tiny_model):
    """One message instead of a training that learns nothing from features."""
    import tf_keras

    other = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="only")])
    with pytest.raises(RecipeError, match="features = 2"):
        FeatureLessons.of(other, tiny_model, DistillConfig(features=2))


def test_a_pruned_student_trains_with_features(tiny_model, tiny_data, tmp_path):
    """With features, fine-tuning leaves the student's nearer to the teacher's than without, and its outputs its own."""
    import edgeprune
    from edgeprune.progress import Progress
    from edgeprune.tasks.resolve import resolve_task
    from edgeprune.train.finetune import Lessons, finetune

    task = resolve_task(tiny_model, TaskConfig(), tiny_data)
    data = task.prepare(tiny_data)
    x, _ = next(iter(data.validation.batches(64)))
    distances = []
    for count in (0, 2):
        student = edgeprune.prune_filters(tiny_model, rate=0.5, criterion="l2").model
        lessons = Lessons(FinetuneConfig(epochs=1), DistillConfig(features=count), teacher=tiny_model)
        history = finetune(
            student,
            data,
            task,
            lessons,
            seed=0,
            deterministic=False,
            state_file=tmp_path / f"{count}.npz",
            progress=Progress(),
        )
        both = FeatureLessons.of(student, tiny_model, DistillConfig(features=1))
        distances.append(float(np.mean(similarity().call(both.teacher(x)[-1], both.student(x)[-1]))))
        assert len(student.outputs) == 1
        assert history[-1]["val_metric"] > 0.2
    assert distances[1] < distances[0]
