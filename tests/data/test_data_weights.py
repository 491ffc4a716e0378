"""Sample weights, data without labels, and other labels in the place of the source's."""

import dataclasses
import itertools

import numpy as np
import pytest
from matrix import representatives
from PIL import Image

from edgeprune.calibration import representative_dataset
from edgeprune.data import InputSpec, load_data
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((2,),))
TWO_INPUTS = InputSpec(((2,), (3,)), ("left", "right"))


def weighted(first: int = 0, count: int = 60):
    """Samples told apart by x; the weight of a sample is its number + 0.5."""
    numbers = np.arange(first, first + count, dtype=np.float32)
    return np.repeat(numbers[:, None], 2, 1), np.arange(count) % 3, numbers + 0.5


def _dataset(x, y, w):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y, w)).batch(7)


FORMS = {
    "arrays": lambda part: (*part,),
    "lists": lambda part: tuple(values.tolist() for values in part),
    "by name": lambda part: dict(zip("xyw", part, strict=True)),
    "by Keras' name": lambda part: dict(zip(("x", "y", "sample_weight"), part, strict=True)),
    "dataset": lambda part: _dataset(*part),
    "dataset in a tuple": lambda part: (_dataset(*part),),
}


def _splits(data):
    return (data.train, data.validation, data.test)


@pytest.mark.parametrize("form", representatives(FORMS, *(form for form in FORMS if form != "dataset in a tuple")))
def test_weights_reach_the_batches_beside_their_samples(form):
    """One source with weights is split, shuffled and cut, and each batch has the weights of its own samples."""
    data = load_data(FORMS[form](weighted()), DataConfig(), SPEC)
    seen = []
    for split in (*_splits(data), data.train.subset(np.arange(5, 30, 3))):
        for x, y, w in split.batches(4, shuffle_seed=2).as_numpy_iterator():
            np.testing.assert_allclose(w, x[:, 0] + 0.5)
            assert (y == x[:, 0] % 3).all()
            seen += x[:, 0].tolist()
    assert sorted(seen[:60]) == list(range(60))
    x, _, w = next(data.train.batches(3, indices=np.array([4, 1])).as_numpy_iterator())
    np.testing.assert_allclose(w, x[:, 0] + 0.5)


def test_the_same_samples_give_the_same_batches_in_every_form(tmp_path):
    """As arrays, dataset, .npz and dict of splits: the same splits, in the same order, with the same values."""
    parts = {"train": weighted(), "validation": weighted(100, 6), "test": weighted(200, 9)}
    names = {"train": "train", "validation": "val", "test": "test"}
    arrays = {f"{key}_{names[split]}": v for split, part in parts.items() for key, v in zip("xyw", part, strict=True)}
    np.savez(tmp_path / "data.npz", **arrays)
    sources = [
        parts,
        tuple(parts.values()),
        arrays,
        tmp_path / "data.npz",
        {split: _dataset(*part) for split, part in parts.items()},
    ]
    opened = [load_data(source, DataConfig(scale=2), SPEC) for source in sources]
    for split in names:
        first, *others = ([*getattr(data, split).batches(4).as_numpy_iterator()] for data in opened)
        assert len(first[0]) == 3
        for batches in others:
            for a, b in zip(itertools.chain(*first), itertools.chain(*batches), strict=True):
                np.testing.assert_array_equal(a, b)
    assert len({data.targets for data in opened}) == 1


def test_pairs_of_weighted_parts_are_train_and_test():
    """((x, y, w), (x, y, w)) is train and test; three of them are three splits."""
    train, test = weighted(), weighted(100, 6)
    data = load_data((train, test), DataConfig(), SPEC)
    assert (data.train.size + data.validation.size, data.test.size) == (60, 6)
    assert load_data((train, test, test), DataConfig(), SPEC).validation.size == 6


def test_weights_by_output():
    """Weights may be a dict by output, of some outputs only, or have further axes; others are refused."""
    x, y, w = weighted()
    targets = {"a": y, "b": np.zeros((60, 5))}
    source = (x, targets, {"b": np.repeat(w[:, None], 5, 1)})
    x, y, w = next(load_data(source, DataConfig(), SPEC).train.batches(4).as_numpy_iterator())
    assert {name: values.shape for name, values in w.items()} == {"b": (4, 5)}
    with pytest.raises(DataError, match="weights w named c and labels y named a, b"):
        load_data((source[0], targets, {"c": source[2]["b"]}), DataConfig(), SPEC)


def test_a_list_of_outputs_is_a_tuple():
    """Labels given as a list of arrays, as Keras takes them, are labels of several outputs."""
    x, y, _ = weighted()
    data = load_data((x, [y, np.zeros((60, 4), np.float32)]), DataConfig(), SPEC)
    _, targets = next(data.train.batches(4).as_numpy_iterator())
    assert [array.shape for array in targets] == [(4,), (4, 4)]
    assert len(data.targets) == 2


def test_weights_change_the_fingerprint():
    """The same samples with other weights are other data."""
    x, y, w = weighted()
    sources = [(x, y), (x, y, w), (x, y, w + 1), _dataset(x, y, w), _dataset(x, y, w + 1)]
    assert len({load_data(source, DataConfig(), SPEC).fingerprint for source in sources}) == 5


def _labelless():
    import tensorflow as tf

    x = weighted()[0]
    dataset = tf.data.Dataset.from_tensor_slices(x)
    return {
        "array": x,
        "tuple of one": (x,),
        "x": {"x": x},
        "by input": {"input_0": x},
        "splits": {"train": x, "validation": x[:10], "test": (x[:10],)},
        "names of .npz": {"x_train": x, "x_test": x[:10]},
        "y is None": (x, None),
        "dataset": dataset,
        "dataset of batches": dataset.batch(8),
        "dataset of tuples": dataset.map(lambda x: (x,)),
        "dataset by input": dataset.map(lambda x: {"input_0": x}),
        "two datasets": (dataset, dataset.take(10)),
        "function": lambda: x,
    }


# A dataset of batches stands for those whose elements are read in the same way.
ALWAYS = [form for form in _labelless() if form not in ("dataset", "dataset of tuples", "dataset by input")]


@pytest.mark.parametrize("form", representatives(_labelless(), *ALWAYS))
def test_data_without_labels(form):
    """Each form of x alone gives splits whose batches have () in the place of labels."""
    data = load_data(_labelless()[form], DataConfig(), SPEC)
    assert data.targets == ()
    for split in _splits(data):
        assert split.labels is None
        for x, y in split.batches(4, shuffle_seed=1).as_numpy_iterator():
            assert x.shape[1:] == (2,)
            assert y == ()


def test_npz_without_labels(tmp_path):
    """An archive of nothing but x has no labels; beside arrays of other names, y is missed."""
    x = weighted()[0]
    np.savez(tmp_path / "x.npz", x=x)
    assert load_data(tmp_path / "x.npz", DataConfig(), SPEC).targets == ()
    np.savez(tmp_path / "x.npz", x=x, labels=x)
    with pytest.raises(DataError, match="has no y; it has: x, labels"):
        load_data(tmp_path / "x.npz", DataConfig(), SPEC)


def test_several_inputs_without_labels():
    """By name, or in a tuple of their own; two arrays are x and y, also for a model of two inputs."""
    left, right = np.zeros((60, 2)), np.zeros((60, 3))
    for source in ({"right": right, "left": left}, ((left, right),), {"train": {"right": right, "left": left}}):
        if "train" in source:
            source["test"] = source["train"]
        data = load_data(source, DataConfig(), TWO_INPUTS)
        (a, b), y = next(data.train.batches(4).as_numpy_iterator())
        assert (a.shape, b.shape, y) == ((4, 2), (4, 3), ())
    with pytest.raises(DataError, match=r"has 1 inputs; the model takes 2(.|\n)*\(\(a, b\), y\)"):
        load_data((left, right), DataConfig(), TWO_INPUTS)


def test_as_many_arrays_as_inputs_are_inputs():
    """((a, b), (c, d)) is (x, y) for a model of two inputs, with weights a triple; for one input train and test."""
    left, right, y = np.zeros((60, 2)), np.zeros((60, 3)), np.arange(60) % 2
    data = load_data(((left, right), (y, y)), DataConfig(), TWO_INPUTS)
    assert len(data.targets) == 2
    data = load_data(((left, right), (y, y), (y + 1, y + 1)), DataConfig(), TWO_INPUTS)
    assert len(next(iter(data.test.batches(2)))) == 3
    assert load_data(((left, y), (left[:9], y[:9])), DataConfig(), SPEC).test.size == 9


@pytest.fixture
def loose_images(tmp_path):
    """40 images directly in a folder, told apart by red."""
    for i in range(40):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02}.png")
    return tmp_path


def test_folder_of_images_without_classes(loose_images, pixels_of):
    """Images alone are split without labels, also in train/ and test/; beside class folders they are questioned."""
    spec = InputSpec(((8, 8, 3),))
    data = load_data(loose_images, DataConfig(), spec)
    assert sorted(itertools.chain(*map(pixels_of, _splits(data)))) == list(range(40))
    assert (data.targets, data.class_names, data.train.labels) == ((), None, None)
    for i in range(40):
        part = loose_images / "split" / ("test" if i < 10 else "train")
        part.mkdir(parents=True, exist_ok=True)
        (loose_images / f"{i:02}.png").rename(part / f"{i:02}.png")
    assert pixels_of(load_data(loose_images / "split", DataConfig(), spec).test) == list(range(10))
    (loose_images / "split" / "train" / "cat").mkdir()
    with pytest.raises(DataError, match=r"images .* beside the folders cat"):
        load_data(loose_images / "split", DataConfig(), spec)
    with pytest.raises(DataError, match=r"names 2 classes, but .* has no labels"):
        load_data(loose_images / "split" / "test", DataConfig(classes=("a", "b")), spec)


@pytest.mark.parametrize("weights", [False, True])
def test_relabel_replaces_labels_and_weights(weights):
    """What it returns of the preprocessed batch is yielded, also by subsets; weights of () are left out."""
    data = load_data(weighted(), DataConfig(scale=2), SPEC)

    def relabel(x, y, w):
        return (x[:, 0], y), w * 2 if weights else ()

    split = dataclasses.replace(data.train, relabel=relabel).subset(np.arange(9))
    for batch in split.batches(4, shuffle_seed=3).as_numpy_iterator():
        assert len(batch) == (3 if weights else 2)
        x, (first, y), *rest = batch
        np.testing.assert_array_equal(first, x[:, 0])
        assert (y == x[:, 0] / 2 % 3).all()
        for w in rest:
            np.testing.assert_allclose(w, x[:, 0] + 1)


def test_batches_without_labels_are_given_some():
    """A relabelling of data without labels makes (x, y)."""
    data = load_data(weighted()[0], DataConfig(), SPEC)
    split = dataclasses.replace(data.test, relabel=lambda x, y, w: (x * 2, w))
    x, y = next(split.batches(4).as_numpy_iterator())
    np.testing.assert_array_equal(y, 2 * x)


def test_inputs_alone_are_read_without_making_labels():
    """They are those of the batches, and what would make the labels is never run: it may be a whole model."""
    data = load_data(weighted(), DataConfig(scale=2), SPEC)

    def relabel(x, y, w):
        raise AssertionError("labels were made")

    split = dataclasses.replace(data.train, relabel=relabel)
    order = np.array([5, 2, 7])
    wanted = [x for x, *_ in data.train.batches(2, indices=order).as_numpy_iterator()]
    for x, expected in zip(split.inputs(2, indices=order).as_numpy_iterator(), wanted, strict=True):
        np.testing.assert_array_equal(x, expected)
    assert len(list(representative_dataset(split, order)())) == 3
