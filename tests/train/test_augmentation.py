"""Augmentation: the same draw for the same seed, another for another; what is mixed or blanked is as defined."""

import numpy as np
import pytest
from matrix import representatives
from samples import data_of

from edgeprune.data import InputSpec, load_data
from edgeprune.errors import RecipeError
from edgeprune.evaluate.accuracy import evaluate_keras
from edgeprune.progress import Progress
from edgeprune.recipe.config import AugmentConfig, DataConfig, DistillConfig, FinetuneConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.augmentation import augment, mixing, settled, unmixed
from edgeprune.train.finetune import Lessons, finetune


def batches(count=3, size=16):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(count * size, 8, 8, 2)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, np.arange(count * size))).batch(size)


def images(dataset):
    return np.concatenate([x for x, _ in dataset.as_numpy_iterator()])


def test_a_seed_decides_everything():
    """Resuming an epoch draws the same changes again; another epoch draws others."""
    config = AugmentConfig(flip=True, shift=2)
    first = images(augment(batches(), config, 1))
    np.testing.assert_array_equal(first, images(augment(batches(), config, 1)))
    assert not np.array_equal(first, images(augment(batches(), config, 2)))
    assert not np.array_equal(first[:16], first[16:32])


def test_flipped_images_are_mirror_images():
    """Each image is itself or its mirror image, and both occur."""
    before, after = images(batches()), images(augment(batches(), AugmentConfig(flip=True), 0))
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(before, after, strict=True)]
    assert all(s or m for s, m in zip(same, mirrored, strict=True))
    assert 0.2 < np.mean(mirrored) < 0.8


def test_shifted_images_are_windows_of_the_padded_image():
    """Every image is one of the (2 shift + 1)² windows, and labels stay with their images."""
    before, after = images(batches()), images(augment(batches(), AugmentConfig(shift=1), 0))
    found = set()
    for a, b in zip(before, after, strict=True):
        padded = np.pad(a, [(1, 1), (1, 1), (0, 0)], mode="reflect")
        matches = [(i, j) for i in range(3) for j in range(3) if np.array_equal(padded[i : i + 8, j : j + 8], b)]
        assert matches
        found.add(matches[0])
    assert len(found) > 4


@pytest.mark.parametrize("key", ["flip", "shift", "cutout"])
def test_what_is_no_image_is_refused(key):
    """Vectors cannot be flipped; the message names the key."""
    import tensorflow as tf

    vectors = tf.data.Dataset.from_tensor_slices((np.zeros((4, 3), "float32"), np.zeros(4))).batch(2)
    with pytest.raises(RecipeError, match=rf"\[augment\] {key} is for images"):
        augment(vectors, AugmentConfig(**{key: 1}), 0)


def test_cutout_blanks_one_square():
    """Inside 3 x 3 pixels, fewer at the border, is the image's mean; outside nothing changes."""
    before, after = images(batches()), images(augment(batches(), AugmentConfig(cutout=3), 0))
    sizes = set()
    for a, b in zip(before, after, strict=True):
        rows, columns = np.nonzero((a != b).any(-1))
        box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        assert (a != b)[box].all()
        np.testing.assert_allclose(b[box], np.broadcast_to(a.mean((0, 1)), b[box].shape), atol=1e-5)
        sizes.add(b[box].shape[:2])
    assert max(sizes) == (3, 3)
    assert len(sizes) > 1


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0])
def test_mixup_mixes_neighbours_and_their_labels(alpha):
    """x = share × x_i + (1 - share) × x_j with the labels of i and j beside the share, which is Beta(alpha, alpha)."""
    plain, pairs = batches(), list(augment(batches(), AugmentConfig(mixup=alpha), 3).as_numpy_iterator())
    shares = []
    for (x, y), (mixed, packed) in zip(plain.as_numpy_iterator(), pairs, strict=True):
        share = packed[:, 2:3]
        np.testing.assert_allclose(packed[:, 3:], 1 - share, atol=1e-6)
        np.testing.assert_array_equal(packed[:, :2], np.stack([y, np.roll(y, 1)], 1))
        weight = share[..., None, None]
        np.testing.assert_allclose(mixed, weight * x + (1 - weight) * np.roll(x, 1, 0), atol=1e-5)
        shares += share[:, 0].tolist()
    assert np.isfinite(shares).all()
    assert np.mean(np.minimum(shares, 1 - np.array(shares)) < 0.05) == pytest.approx(
        {0.001: 1.0, 0.2: 0.58, 1.0: 0.1}[alpha], abs=0.2
    )


def classifier(**compiled):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.layers.Input([3])
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(4, activation="softmax")(inputs))
    model.compile("adam", **{"loss": "categorical_crossentropy", "metrics": ["accuracy"], **compiled})
    return model


@pytest.mark.parametrize("one_hot", [False, True])
def test_the_loss_of_mixed_labels_is_that_of_soft_labels(one_hot):
    """Cross-entropy with share on one label and the rest on the other; unmixed labels give the task's own loss."""
    y, partner = np.array([1, 2, 3]), np.array([0, 2, 0])
    share = np.array([[0.7], [0.4], [1.0]], "float32")
    labels = (np.eye(4)[y], np.eye(4)[partner]) if one_hot else (y[:, None], partner[:, None])
    x = np.ones((3, 3), "float32")
    model = classifier(loss=f"{'' if one_hot else 'sparse_'}categorical_crossentropy")
    task = mixing(resolve_task(model, TaskConfig(), data_of(model, x, np.eye(4)[y] if one_hot else y)))
    outputs = np.random.default_rng(0).dirichlet(np.ones(4), 3).astype("float32")
    soft = share * np.eye(4)[y] + (1 - share) * np.eye(4)[partner]
    packed = np.concatenate([*labels, share, 1 - share], 1).astype("float32")
    expected = -(soft * np.log(outputs)).sum(-1).mean()
    assert float(task.loss_function()(packed, outputs)) == pytest.approx(expected, rel=1e-4)
    meter = task.meter()
    meter.update(x, packed, [np.eye(4)[[1, 2, 3]].astype("float32")])
    assert meter.result() == {"accuracy": 1.0}


def test_mixed_samples_carry_their_weights():
    """The labels of a pair count by share times weight, in the loss as in a weighted metric; unmixed ones by weight."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    x, y = random.normal(size=(16, 3)).astype("float32"), np.arange(16) % 4
    w = np.linspace(0, 2, 16, dtype="float32")
    model = classifier(loss="sparse_categorical_crossentropy", metrics=None, weighted_metrics=["accuracy"])
    own = resolve_task(model, TaskConfig(), data_of(model, x, y, w))
    task, outputs = mixing(own), model.predict(x, verbose=0)
    batches = tf.data.Dataset.from_tensor_slices((x, y, w)).batch(16)
    (_, packed), *_ = augment(batches, AugmentConfig(mixup=0.4), 0).as_numpy_iterator()
    share = packed[1:, 2] / w[1:]  # the first weight is zero
    np.testing.assert_allclose(packed[1:, 3], (1 - share) * w[:-1], atol=1e-5)
    entropy = -np.log(outputs)
    every = np.arange(16)
    expected = packed[:, 2] * entropy[every, y] + packed[:, 3] * entropy[every, np.roll(y, 1)]
    assert float(task.loss_function()(packed, outputs)) == pytest.approx(expected.mean(), rel=1e-4)
    (_, plain), *_ = unmixed(batches).as_numpy_iterator()
    assert float(task.loss_function()(plain, outputs)) == pytest.approx(float(own.loss_function()(y, outputs, w)))
    mixed, labelled = task.meter(), own.meter()
    mixed.update(x, plain, [outputs])
    labelled.update(x, y, [outputs], w)
    assert mixed.result() == pytest.approx(labelled.result())


def test_mixup_needs_classes_and_numbers(tiny_model):
    """Regression, words and labels per pixel are refused by name."""
    import tensorflow as tf

    x, y = np.ones((4, 3), "float32"), np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    model = classifier(loss="mse", metrics=["mae"])
    regression = resolve_task(model, TaskConfig(), data_of(model, x, y))
    with pytest.raises(RecipeError, match="mixup is for classification"):
        mixing(regression)
    words = tf.data.Dataset.from_tensor_slices((np.zeros((4, 3), "int32"), np.zeros(4))).batch(2)
    pixels = tf.data.Dataset.from_tensor_slices((np.zeros((4, 3, 3, 1), "float32"), np.zeros((4, 3, 3)))).batch(2)
    for samples in (words, pixels):
        with pytest.raises(RecipeError, match="mixup"):
            augment(samples, AugmentConfig(mixup=0.2), 0)


@pytest.mark.parametrize("change", [{"flip": True}, {"shift": 3}, {"flip": True, "shift": 2, "cutout": 3}])
@pytest.mark.parametrize("channels", representatives([None, 2], 2))
def test_masks_follow_their_images(change, channels):
    """Each pixel keeps its class and its weight wherever a flip or a shift moves it, also in rows of classes."""
    import tensorflow as tf

    images = np.random.default_rng(0).permutation(16 * 8 * 8).reshape(16, 8, 8, 1).astype("float32")
    masks = images[..., 0].astype(int) if channels is None else np.concatenate([images, images + 1], -1)
    batches = tf.data.Dataset.from_tensor_slices((images, masks, 2 * images[..., 0])).batch(16)
    ((x, y, w),) = augment(batches, AugmentConfig(**change), 1)
    moved = x.numpy()[..., 0] != images[..., 0]
    assert moved.any(axis=(1, 2)).sum() >= 4
    kept = np.isin(x.numpy()[..., 0], images) if "cutout" in change else np.ones((16, 8, 8), bool)
    classes = y.numpy() if channels is None else y.numpy()[..., 0]
    np.testing.assert_array_equal(classes[kept], x.numpy()[..., 0][kept])
    np.testing.assert_array_equal(w.numpy()[kept], 2 * x.numpy()[..., 0][kept])


def test_masks_of_another_size_are_not_moved_away_from_their_pixels():
    """Flips and shifts of images whose labels are images of another size are refused; blanking is not."""
    import tensorflow as tf

    images = np.zeros((4, 8, 8, 1), "float32")
    masks = tf.data.Dataset.from_tensor_slices((images, np.zeros((4, 4, 4), int))).batch(2)
    for key in ("flip", "shift"):
        with pytest.raises(RecipeError, match=f"{key} moves images"):
            augment(masks, AugmentConfig(**{key: 1}), 0)
    assert len(list(augment(masks, AugmentConfig(cutout=2), 0))) == 2


def test_the_teacher_answers_to_what_is_augmented(tmp_path):
    """Without labels, the goal of a changed sample is what the teacher gives for the changed one."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input([8, 8, 1])
    model = tf_keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)))
    data = data_of(model, np.random.default_rng(0).normal(size=(16, 8, 8, 1)).astype("float32"))
    task = resolve_task(model, TaskConfig(kind="teacher"), data)
    lessons = Lessons(FinetuneConfig(batch_size=16), augment=AugmentConfig(flip=True, cutout=3))
    (x, y), *_ = lessons.training(task, task.prepare(data), 0).as_numpy_iterator()
    np.testing.assert_allclose(y, model.predict(x, verbose=0), atol=1e-5)
    (plain, _), *_ = task.prepare(data).train.batches(16, shuffle_seed=0).as_numpy_iterator()
    assert not np.array_equal(plain, x)


def test_training_mixes_and_validation_does_not(tiny_model, tiny_data, tmp_path):
    """With mixup, cutout and a teacher together: the validation metric is an evaluation's, and it learns."""
    import tf_keras

    student = tf_keras.models.clone_model(tiny_model)
    student.set_weights(tiny_model.get_weights())
    task = resolve_task(tiny_model, TaskConfig(), tiny_data)
    lessons = Lessons(FinetuneConfig(epochs=2), DistillConfig(), AugmentConfig(mixup=0.4, cutout=4), tiny_model)
    arguments = {"seed": 0, "deterministic": False, "state_file": tmp_path / "s.npz", "progress": Progress()}
    history = finetune(student, tiny_data, task, lessons, **arguments)
    best = max(entry["val_metric"] for entry in history)
    assert evaluate_keras(student, tiny_data.validation, task) == pytest.approx(best, abs=1e-6)
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_shift_out_of_the_image_is_refused():
    """The message says how large the images are."""
    import tensorflow as tf

    images = tf.data.Dataset.from_tensor_slices((np.zeros((4, 8, 8, 1), "float32"), np.zeros(4))).batch(2)
    with pytest.raises(RecipeError, match="8x8"):
        augment(images, AugmentConfig(shift=8), 0)


@pytest.mark.parametrize(("size", "pixels"), [((32, 48), 2), ((8, 8), 0)])
def test_auto_shifts_image_files_of_one_class_by_a_sixteenth(size, pixels, tmp_path):
    """Not the same images as an array, which might be something else; other keys stay as they are."""
    import tf_keras
    from PIL import Image

    layers = tf_keras.layers
    inputs = layers.Input([*size, 3])
    model = tf_keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Flatten()(inputs)))
    model.compile(loss="sparse_categorical_crossentropy")
    images = np.random.default_rng(0).integers(0, 256, (12, *size, 3)).astype("uint8")
    labels = np.arange(12) % 2
    for number, image in enumerate(images):
        path = tmp_path / ("train" if number < 8 else "test") / f"class{labels[number]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    files = load_data(str(tmp_path), DataConfig(), InputSpec.of(model))
    arrays = data_of(model, images.astype("float32"), labels)
    task = resolve_task(model, TaskConfig(), arrays)
    config = AugmentConfig(shift="auto", cutout=1)
    assert settled(config, files.train, task) == AugmentConfig(shift=pixels, cutout=1)
    assert settled(config, arrays.train, task) == AugmentConfig(cutout=1)


def test_a_number_of_pixels_is_taken_as_it_is(tiny_data, tiny_model):
    """Only "auto" asks what the samples are."""
    task = resolve_task(tiny_model, TaskConfig(), tiny_data)
    assert settled(AugmentConfig(shift=3), tiny_data.train, task) == AugmentConfig(shift=3)
