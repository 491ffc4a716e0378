"""Sizes that a model leaves open are those of the samples; samples without a common size are refused."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from matrix import representatives
from PIL import Image

from edgeprune.data import InputSpec, load_data
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

IMAGES = InputSpec(((None, None, 3),))
WORDS = InputSpec(((None,),))


def _sources(x):
    y = np.arange(len(x)) % 2
    return {
        "arrays": (x, y),
        "batches": tf.data.Dataset.from_tensor_slices((x, y)).batch(7),
        "unknown": tf.data.Dataset.from_generator(
            lambda: zip(x, y, strict=True),
            output_signature=(tf.TensorSpec((None,) * (x.ndim - 1)), tf.TensorSpec((), tf.int64)),
        ),
    }


@pytest.mark.parametrize(
    ("kind", "shape"),
    representatives(
        itertools.product(["arrays", "batches", "unknown"], [(5, 6, 3), (9,)]),
        ("arrays", (9,)), ("batches", (5, 6, 3)), ("unknown", (5, 6, 3)),
    ),
)  # fmt: skip
def test_open_sizes_are_those_of_the_samples(kind, shape):
    """Whatever the source is, every split knows the size, and its batches have it."""
    spec = InputSpec(((*[None] * min(len(shape), 2), *shape[2:]),))
    data = load_data(_sources(np.zeros((40, *shape), np.float32))[kind], DataConfig(), spec)
    for split in (data.train, data.validation, data.test):
        assert split.spec.shapes == (shape,)
        assert split.batches(4).element_spec[0].shape == (None, *shape)


def test_images_of_one_size_need_no_size_in_the_recipe(flat_folder):
    """Files of 8 x 8 pixels; [data] size and a fixed model go before."""
    assert load_data(flat_folder, DataConfig(), IMAGES).train.spec.shapes == ((8, 8, 3),)
    assert load_data(flat_folder, DataConfig(size=(4, 6)), IMAGES).test.spec.shapes == ((4, 6, 3),)
    assert load_data(flat_folder, DataConfig(), InputSpec(((None, 8, 3),))).train.spec.shapes == ((8, 8, 3),)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_images_of_several_sizes_ask_for_one(flat_folder, kind):
    """The message names two files, and its line for the recipe works."""
    name = f"cat/odd.{kind.lower()}"
    Image.new("RGB", (9, 5), (1, 2, 3)).save(flat_folder / name, kind)
    with pytest.raises(DataError, match=r"(?s)odd.*5 x 9.*\[data\] size = \[\d, \d\]"):
        load_data(flat_folder, DataConfig(), IMAGES)
    assert load_data(flat_folder, DataConfig(size=(8, 8)), IMAGES).train.spec.shapes == ((8, 8, 3),)


def test_a_damaged_image_is_named_before_its_size_is_used(flat_folder):
    """Reading sizes finds a file that is none."""
    (flat_folder / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff not much more")
    with pytest.raises(DataError, match=r"1 of 61 .* cannot be read:\n.*broken\.jpg: it is no image"):
        load_data(flat_folder, DataConfig(), IMAGES)


@pytest.mark.parametrize("batched", representatives([False, True], False))
def test_a_dataset_of_images_of_several_sizes_is_refused(batched):
    """Whether the user's own .batch() fails or ours: both sizes, and how to resize them."""

    def images():
        for i in range(40):
            yield np.zeros((4 + i % 2, 4, 3), np.float32), i % 2

    signature = (tf.TensorSpec((None, None, 3)), tf.TensorSpec((), tf.int64))
    dataset = tf.data.Dataset.from_generator(images, output_signature=signature)
    with pytest.raises(DataError, match=r"(?s)\(4, 4, 3\) and \(5, 4, 3\).*tf\.image\.resize"):
        load_data(dataset.batch(8) if batched else dataset, DataConfig(), IMAGES)
    resized = dataset.map(lambda x, y: (tf.image.resize(x, [224, 224]), y))
    assert load_data(resized, DataConfig(), IMAGES).train.spec.shapes == ((224, 224, 3),)


def test_sequences_of_several_lengths_are_refused():
    """Batches that are padded each to its own length, splits of other lengths, lists: the message says how to pad."""

    def padded():
        for i in range(40):
            yield np.ones(3 + i // 20, np.int32), i % 2

    signature = (tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int64))
    dataset = tf.data.Dataset.from_generator(padded, output_signature=signature)
    with pytest.raises(DataError, match="pad"):
        load_data(dataset.padded_batch(20), DataConfig(), WORDS)
    y = np.arange(20) % 2
    with pytest.raises(DataError, match=r"(?s)\(5,\) and \(6,\) in train and test.*pad"):
        load_data({"train": (np.ones((20, 5)), y), "test": (np.ones((20, 6)), y)}, DataConfig(), WORDS)
    with pytest.raises(DataError, match="pad_sequences"):
        load_data(([[1, 2], [3]] * 20, np.arange(40) % 2), DataConfig(), WORDS)


def test_a_size_in_the_recipe_holds_for_arrays_too():
    """Arrays of that size are taken, others are not: nothing resizes them."""
    x, y = np.zeros((40, 6, 5, 3), np.float32), np.arange(40) % 2
    assert load_data((x, y), DataConfig(size=(6, 5)), IMAGES).train.spec.shapes == ((6, 5, 3),)
    with pytest.raises(DataError, match="resize"):
        load_data((x, y), DataConfig(size=(5, 6)), IMAGES)
