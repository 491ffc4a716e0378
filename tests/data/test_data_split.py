"""Split: order, subsets, batches."""

import dataclasses

import numpy as np
import pytest

from edgeprune.data import Data, InputSpec, epoch_seed, load_data
from edgeprune.errors import DataError, ModelError
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((1,),))


@pytest.fixture(scope="module")
def data() -> Data:
    x = np.arange(100, dtype=np.float32)[:, None]
    y = np.arange(100) % 2
    return load_data({"train": (x, y), "validation": (x[:10] + 200, y[:10]), "test": (x, y)}, DataConfig(), SPEC)


def _order(split, **options):
    return [int(v) for x, _ in split.batches(options.pop("batch_size", 32), **options) for v in x.numpy()[:, 0]]


def test_order_is_a_function_of_the_seed(data):
    """No seed keeps the order, the same seed gives the same order for any batch size, another seed another."""
    assert _order(data.train) == list(range(100))
    first = _order(data.train, shuffle_seed=1)
    assert first == _order(data.train, shuffle_seed=1, batch_size=7)
    assert first != _order(data.train, shuffle_seed=2)
    assert sorted(first) == list(range(100))


def test_epochs_have_orders_of_their_own():
    """Seeds of epochs and runs do not repeat, and are the same in every process."""
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400
    assert epoch_seed(0, 0) == int(np.random.SeedSequence([0, 0]).generate_state(1)[0])


def test_batch_sizes(data):
    """The last batch is smaller, or left out; repeat starts again."""
    sizes = [len(y) for _, y in data.train.batches(32)]
    assert sizes == [32, 32, 32, 4]
    assert [len(y) for _, y in data.train.batches(32, drop_remainder=True)] == [32, 32, 32]
    again = [int(x[0, 0]) for x, _ in data.train.batches(50, repeat=True).take(4)]
    assert again == [0, 50, 0, 50]
    assert int(data.train.batches(32).cardinality()) == 4


def test_indices_and_subsets(data):
    """Indices are positions in the split, in the order given; subsets of subsets count from the subset."""
    assert _order(data.train, indices=np.array([5, 3, 3])) == [5, 3, 3]
    odd = data.train.subset(np.arange(1, 100, 2))
    assert _order(odd.subset(np.array([0, 2]))) == [1, 5]
    assert odd.labels.tolist() == [1] * 50
    with pytest.raises(IndexError):
        odd.subset(np.array([50]))


def _streamed():
    import tensorflow as tf

    x = np.arange(40, dtype=np.float32)[:, None]
    return {name: tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(8) for name in ("train", "validation", "test")}


def _weighted():
    x = np.arange(40, dtype=np.float32)[:, None]
    return dict.fromkeys(("train", "validation", "test"), (x, x[:, 0], x[:, 0] + 1))


@pytest.mark.parametrize("source", [_streamed, _weighted])
def test_a_sample_is_one_batch(source):
    """From memory and from a stream, prepared and relabelled as batches are; labels may follow afterwards."""
    split = load_data(source(), DataConfig(scale=2), SPEC).validation
    changed = dataclasses.replace(split, relabel=lambda x, y, w: (x[:, 0] + y, w))
    indices = np.array([1, 5, 7])
    for one in (split, changed):
        (expected,) = one.batches(3, indices=indices)
        sample = one.sample(indices)
        assert len(sample) == len(expected)
        for actual, wanted in zip(sample, expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)
    for actual, wanted in zip(changed.relabelled(split.sample(indices)), changed.sample(indices), strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_batches_train_a_model(data):
    """tf_keras accepts the batches, with their static shapes."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(2, "softmax", input_shape=(1,))])
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(data.train.batches(50, shuffle_seed=1), validation_data=data.validation.batches(5), verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()


def test_input_spec_of_a_model():
    """Shapes, names and types come in the order of model.inputs; a model without inputs is refused."""
    import tf_keras

    a = tf_keras.Input((4, None, 3), name="zebra")
    b = tf_keras.Input((2,), name="ape", dtype="int32")
    pooled = tf_keras.layers.GlobalAveragePooling2D()(a)
    model = tf_keras.Model([a, b], [pooled, tf_keras.layers.Embedding(3, 2)(b)])
    assert InputSpec.of(model) == InputSpec(((4, None, 3), (2,)), ("zebra", "ape"), ("float32", "int32"))
    with pytest.raises(ModelError, match="no known inputs"):
        InputSpec.of(tf_keras.Sequential([tf_keras.layers.Dense(1)]))


def test_importing_does_not_load_tensorflow():
    """Commands that need no TensorFlow do not pay for it."""
    import subprocess
    import sys

    code = "import sys, edgeprune.data, edgeprune.calibration; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("values", [[0.5, 1.0], [-1, 3], [0, 300]])
def test_inputs_that_an_integer_type_would_change_are_refused(values):
    """Fractions would be cut off and numbers out of range would wrap around, without a word."""
    spec = InputSpec(((2,),), dtypes=("uint8",))
    x = np.array([values] * 40)
    with pytest.raises(DataError, match="takes uint8"):
        load_data((x, np.arange(40) % 2), DataConfig(), spec)
    fine = np.array([[0, 255]] * 40, np.float64)
    assert load_data((fine, np.arange(40) % 2), DataConfig(), spec).train.size == 29
