"""tf.data.Datasets of the user."""

import numpy as np
import pytest
import tensorflow as tf

import edgeprune.data.stream
from edgeprune.data import InputSpec, data_errors, load_data
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((2,),))


def samples(count: int = 40, first: int = 0) -> tf.data.Dataset:
    x = np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], 2, 1)
    return tf.data.Dataset.from_tensor_slices((x, np.arange(count) // (count // 2)))


@pytest.mark.parametrize("prepare", [lambda d: d, lambda d: d.batch(7), lambda d: d.batch(5, drop_remainder=True)])
def test_batched_or_not_gives_the_same_samples(prepare, pixels_of):
    """Batches are recognised by the model's input shape and taken apart."""
    data = load_data({"train": prepare(samples()), "test": prepare(samples(10, 100))}, DataConfig(), SPEC)
    assert sorted(pixels_of(data.train) + pixels_of(data.validation))[:35] == list(range(35))
    assert [x.shape[0] for x, _ in data.train.batches(16)][:2] == [16, 16]


def test_unknown_static_shapes_are_looked_up_in_the_first_element():
    """A generator without shapes works, batched or not."""
    for shape in ((2,), (4, 2)):

        def generate(shape=shape):
            for i in range(40):
                yield np.full(shape, i, np.float32), np.full(shape[:-1], i % 2, np.int64)

        signature = (tf.TensorSpec(None, tf.float32), tf.TensorSpec(None, tf.int64))
        train = tf.data.Dataset.from_generator(generate, output_signature=signature)
        data = load_data({"train": train, "test": samples(10)}, DataConfig(), SPEC)
        assert data.train.size + data.validation.size == 40 * int(np.prod(shape[:-1]))


def test_shuffling_is_a_permutation_fixed_by_the_seed(monkeypatch):
    """Windows of a sorted dataset are permuted, the same way for the same seed whatever TensorFlow's global seed is."""
    monkeypatch.setattr(edgeprune.data.stream, "WINDOW_BYTES", 16 * 16)
    train = load_data({"train": samples(), "validation": samples(4), "test": samples(4)}, DataConfig(), SPEC).train

    def order(seed):
        return [int(v) for x, _ in train.batches(8, shuffle_seed=seed).as_numpy_iterator() for v in x[:, 0]]

    tf.random.set_seed(1)
    first = order(1)
    tf.random.set_seed(2)
    assert order(1) == first
    assert order(2) != first
    assert sorted(first) == list(range(40))
    assert sorted(first) != first


def test_subset_streams_only_its_samples(pixels_of):
    """indices and subset give those positions, labels with them."""
    data = load_data({"train": samples(), "validation": samples(4), "test": samples(4)}, DataConfig(), SPEC)
    part = data.train.subset(np.arange(0, 40, 4))
    assert pixels_of(part) == list(range(0, 40, 4))
    assert part.labels.tolist() == [0] * 5 + [1] * 5
    x, y = next(part.batches(9, indices=np.array([2, 3])).as_numpy_iterator())
    assert x[:, 0].tolist() == [8, 12]
    assert y.tolist() == [0, 0]


def test_shuffled_train_is_allowed_when_nothing_is_taken_from_it():
    """Augmented, reshuffled training data with validation of its own works, and its fingerprint is repeatable."""
    fingerprints = {
        load_data(
            {"train": samples().shuffle(40), "validation": samples(8), "test": samples(8)}, DataConfig(), SPEC
        ).fingerprint
        for _ in range(2)
    }
    assert len(fingerprints) == 1


def _raising():
    yield np.zeros(2, np.float32), 0
    raise RuntimeError("the disk of the user")


def _from_raising():
    signature = (tf.TensorSpec((2,), tf.float32), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(_raising, output_signature=signature)


def _endless():
    """Without end, in a form whose cardinality TensorFlow does not know."""
    counted = tf.data.Dataset.counter().filter(lambda i: True)
    return counted.map(lambda i: (tf.fill([2], tf.cast(i, tf.float32)), i % 2))


ERRORS = {
    "reshuffled": (lambda: (samples().shuffle(40), samples(8)), "another order, each time; no validation part"),
    "reshuffled, single": (lambda: samples().shuffle(40), "another order, each time; no test part"),
    "random test": (lambda: (samples(), samples().shuffle(40)), "test dataset of .* another order"),
    "without end": (lambda: (samples().repeat(), samples(8)), "train dataset has no end"),
    "empty": (lambda: (samples(), samples().take(0)), "test data is empty"),
    "no targets in train": (
        lambda: (samples().map(lambda x, y: x), samples(8)),
        "train has none, test has an array",
    ),
    "four parts": (lambda: (samples().map(lambda x, y: (x, y, 1.0, 1.0)), samples(8)), r"or x alone"),
    "negative weights": (lambda: (samples().map(lambda x, y: (x, y, -1.0)), samples(8)), "negative in places"),
    "one weight per batch": (lambda: (samples().batch(4).map(lambda x, y: (x, y, 1.0)), samples(8)), "a single number"),
    "weights of other outputs": (
        lambda: (samples().map(lambda x, y: (x, {"a": y}, {"b": 1.0})), samples(8)),
        "sample weights w named b and labels y named a",
    ),
    "batched twice": (lambda: (samples().batch(5).batch(2), samples(8)), r"batches of batches(.|\n)*remove one .batch"),
    "endless generator": (lambda: (_endless(), samples(8)), "no end within 300 samples"),
    "NaN input": (
        lambda: (samples(400).map(lambda x, y: (tf.where(x % 100 == 70, np.nan, x), y)), samples(8)),
        "inputs x .* in 4 of 400 samples, first in sample 70",
    ),
    "shape": (lambda: (samples().map(lambda x, y: (x[:1], y)), samples(8)), r"shape \(1,\) for input"),
    "NaN": (lambda: (samples().map(lambda x, y: (x, float("nan"))), samples(8)), "NaN or infinite values"),
    "text": (
        lambda: (samples().map(lambda x, y: (x, tf.where(y == 0, "owl", "cat"))), samples(8)),
        "of type object(.|\n)*{'cat': 0, 'owl': 1}",
    ),
    "raising": (lambda: (_from_raising(), samples(8)), "RuntimeError: the disk of the user"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_dataset_is_one_message(case, monkeypatch):
    """Each dataset that cannot be used is a DataError that says what is wrong."""
    monkeypatch.setattr(edgeprune.data.stream, "MOST_SAMPLES", 300 if case == "endless generator" else 10**6)
    make, message = ERRORS[case]
    with pytest.raises(DataError, match=message):
        load_data(make(), DataConfig(), SPEC)


def test_a_dataset_that_takes_long_says_how_far_it_is(monkeypatch, caplog):
    """One that has no end is not silent until it is refused."""
    monkeypatch.setattr(edgeprune.data.stream, "WORD_SECONDS", 0)
    load_data((samples(300), samples(10)), DataConfig(), SPEC)
    assert "train data are still being read: 256 samples so far" in caplog.text


def test_failure_while_training_is_translated():
    """A dataset that fails in a later pass is a DataError with the user's own message."""
    state = {"passes": 0}

    def generate():
        state["passes"] += 1
        for i in range(80):
            if state["passes"] > 3 and i == 5:
                raise RuntimeError("gone in a later pass")
            yield np.full(2, i, np.float32), i % 2

    signature = (tf.TensorSpec((2,), tf.float32), tf.TensorSpec((), tf.int64))
    train = tf.data.Dataset.from_generator(generate, output_signature=signature)
    data = load_data({"train": train, "validation": samples(4), "test": samples(4)}, DataConfig(), SPEC)
    with pytest.raises(DataError, match="gone in a later pass"), data_errors():
        list(data.train.batches(4))
