""".npz files and arrays by name."""

import itertools

import numpy as np
import pytest

from edgeprune.data import InputSpec, load_data
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((4, 4, 1),))


def _images(first: int, count: int) -> np.ndarray:
    """Images told apart by their pixel value."""
    return np.broadcast_to(np.arange(first, first + count, dtype=np.float32)[:, None, None, None], (count, 4, 4, 1))


def _arrays(**changes):
    arrays = {
        "x_train": _images(0, 40),
        "y_train": np.arange(40) % 4,
        "x_test": _images(100, 8),
        "y_test": np.arange(8) % 4,
        **changes,
    }
    return {key: value for key, value in arrays.items() if value is not None}


def _load(tmp_path, arrays, spec=SPEC, **config):
    np.savez(tmp_path / "data.npz", **arrays)
    return load_data(tmp_path / "data.npz", DataConfig(**config), spec)


def test_train_and_test_arrays(tmp_path, pixels_of):
    """Validation is a stratified tenth of train, test is as given; the class comes from the integer labels."""
    data = _load(tmp_path, _arrays())
    assert pixels_of(data.test) == list(range(100, 108))
    assert np.bincount(data.validation.labels).tolist() == [1, 1, 1, 1]
    assert sorted(pixels_of(data.train) + pixels_of(data.validation)) == list(range(40))
    assert data.class_names is None


def test_validation_arrays_are_used(tmp_path, pixels_of):
    """x_val and y_val leave train whole."""
    data = _load(tmp_path, _arrays(x_val=_images(200, 3), y_val=np.arange(3)))
    assert (data.train.size, pixels_of(data.validation)) == (40, [200, 201, 202])


def test_one_pair_of_arrays_is_split(tmp_path, pixels_of):
    """x and y are split 20 % test and 10 % of the rest validation, without overlap."""
    data = _load(tmp_path, {"x": _images(0, 100), "y": np.arange(100) % 2})
    parts = [pixels_of(split) for split in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [72, 8, 20]
    assert sorted(itertools.chain(*parts)) == list(range(100))


def test_grayscale_images_without_a_channel_axis_fit(tmp_path, pixels_of):
    """(n, 4, 4) images get the last axis that the model takes."""
    data = _load(tmp_path, _arrays(x_train=_images(0, 40)[..., 0], x_test=_images(100, 8)[..., 0]))
    assert pixels_of(data.test) == list(range(100, 108))


TARGETS = {
    "one-hot": (np.eye(4, dtype=np.float32), True),
    "column of integers": (np.arange(4)[:, None], True),
    "zeros and ones as floats": (np.array([0, 1, 0, 1], np.float32), True),
    "multi-hot": (np.array([[1, 1], [0, 1], [0, 0], [1, 0]], np.float32), False),
    "regression": (np.array([0.5, 1.5, -2, 3], np.float32), False),
    "several values": (np.random.default_rng(0).random((4, 3)).astype(np.float32), False),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_stay_as_they_come(tmp_path, kind):
    """Targets are passed in their own shape and type; labels exist for one class per sample only."""
    y, has_labels = TARGETS[kind]
    data = _load(tmp_path, _arrays(y_train=np.tile(y, (10,) + (1,) * (y.ndim - 1)), y_test=y[np.arange(8) % 4]))
    batch = np.concatenate([batch for _, batch in data.test.batches(3).as_numpy_iterator()])
    np.testing.assert_array_equal(batch, y[np.arange(8) % 4])
    assert batch.dtype == y.dtype
    assert (data.train.labels is not None) == has_labels


def test_fingerprint_follows_the_file(tmp_path):
    """The same arrays give the same fingerprint, one other pixel another."""
    first, again = _load(tmp_path, _arrays()).fingerprint, _load(tmp_path, _arrays()).fingerprint
    assert first == again
    assert _load(tmp_path, _arrays(x_test=_images(101, 8))).fingerprint != first


ERRORS = {
    "no test": (_arrays(x_test=None, y_test=None), "has no x_test; it has: x_train, y_train"),
    "no targets": (_arrays(y_train=None), "has no y_train"),
    "no y_val": (_arrays(x_val=_images(0, 2)), "has no y_val"),
    "other names": ({"images": _images(0, 9)}, "has no x_train; it has: images"),
    "lengths": (_arrays(y_train=np.arange(39)), r"x of length \[40\] and y of length \[39\]"),
    "shape": (_arrays(x_train=np.zeros((40, 5, 4, 1))), r"shape \(5, 4, 1\) for input 'input_0'"),
    "channels": (_arrays(x_test=np.zeros((8, 4, 4, 3))), "from 3 to 1 channels"),
    "NaN label": (
        _arrays(y_test=np.array([0, 1, 2, np.nan] * 2)),
        "NaN or infinite values in 2 of 8 samples, first in sample 3",
    ),
    "text labels": (_arrays(y_test=np.array(["owl", "cat"] * 4)), "of type <U3(.|\n)*{'cat': 0, 'owl': 1}"),
    "NaN input": (
        _arrays(x_train=np.where(np.arange(40) % 7 == 4, np.nan, 1)[:, None, None, None] * _images(0, 40)),
        "inputs x of the train data have NaN or infinite values in 6 of 40 samples, first in sample 4",
    ),
    "input beyond float32": (_arrays(x_test=_images(0, 8) + np.float64(1e300)), "in 8 of 8 samples, first in sample 0"),
    "channels first": (_arrays(x_test=np.zeros((8, 1, 4, 4))), r"x = np\.moveaxis\(x, 1, -1\)"),
    "flat": (_arrays(x_test=np.zeros((8, 16))), r"x = x\.reshape\(-1, 4, 4, 1\)"),
    "two names of weights": ({**_arrays(), "w_test": np.ones(8), "sample_weight_test": np.ones(8)}, "both w_test and"),
    "weights of a part": ({**_arrays(), "w_train": np.ones(39)}, r"x of length \[40\] and w of length \[39\]"),
    "negative weights": ({**_arrays(), "w_train": -np.ones(40)}, "negative in places"),
    "infinite weights": ({**_arrays(), "w_train": np.full(40, np.inf)}, "sample weights w .* in 40 of 40 samples"),
    "text as weights": (
        {**_arrays(), "w_train": np.full(40, "a")},
        "sample weights w of the train data are of type <U1",
    ),
    "no weight at all": ({**_arrays(), "w_train": np.zeros(40)}, "sample weights w of the train data are all zero"),
    "labels in test only": (_arrays(y_train=None, x_val=_images(0, 2)), "has no y_train"),
    "targets of another rank": (_arrays(y_test=np.zeros((8, 1))), r"train has an array \[samples\], test has an"),
    "objects": (_arrays(y_test=np.array([{}] * 8, object)), "holds arrays of Python objects"),
    "empty test": (_arrays(x_test=_images(0, 0), y_test=np.arange(0)), "test data is empty"),
    "too few": ({"x": _images(0, 2), "y": np.arange(2)}, "too few samples"),
    "complex": (_arrays(x_test=np.zeros((8, 4, 4, 1), complex)), "of type complex128"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_arrays_are_one_message(tmp_path, case):
    """Each bad set of arrays is a DataError that says what is wrong."""
    arrays, message = ERRORS[case]
    with pytest.raises(DataError, match=message):
        _load(tmp_path, arrays)


@pytest.mark.parametrize("damage", ["text", "truncated", "inside", "npy", "empty"])
def test_unreadable_npz_is_one_message(tmp_path, damage):
    """A file that is not a whole .npz is a DataError that names it."""
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **_arrays(x_train=np.random.default_rng(0).random((40, 4, 4, 1))))
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"not an archive")
    elif damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "inside":
        content[200:900] = bytes(700)
    elif damage == "npy":
        with (tmp_path / "a.npy").open("wb") as file:
            np.save(file, np.zeros(3))
        content = bytearray((tmp_path / "a.npy").read_bytes())
    path.write_bytes(b"" if damage == "empty" else content)
    with pytest.raises(DataError, match=r"data\.npz cannot be read as \.npz"):
        load_data(path, DataConfig(), SPEC)


def test_file_of_another_kind(tmp_path):
    """A file that is no source is a DataError that lists the sources."""
    (tmp_path / "data.txt").write_text("1,2")
    with pytest.raises(DataError, match=r"is a file of another kind") as error:
        load_data(tmp_path / "data.txt", DataConfig(), SPEC)
    assert "a folder for each class" in str(error.value)


def test_class_names_from_the_recipe(tmp_path):
    """[data] classes names the class numbers, or the columns of one-hot rows; too few names are an error."""
    names = ("ant", "bee", "cat", "dog")
    assert _load(tmp_path, _arrays(), classes=names).class_names == names
    with pytest.raises(DataError, match=r"names 3 classes, but the labels of .* go from 0 to 3"):
        _load(tmp_path, _arrays(), classes=names[:3])
    rows = {"y_train": np.eye(4)[np.arange(40) % 4], "y_test": np.eye(4)[np.arange(8) % 4]}
    with pytest.raises(DataError, match=r"names 3 classes, but the labels of .* have 4 columns"):
        _load(tmp_path, _arrays(**rows), classes=names[:3])


def test_several_inputs_go_by_their_names(tmp_path):
    """Arrays named like the model's inputs are its x, with the endings of splits or without."""
    spec = InputSpec(((3,), (2,)), names=("b", "a"))
    r = np.random.default_rng(0)
    b, a, y = r.normal(size=(40, 3)), r.normal(size=(40, 2)), np.arange(40) % 2
    whole = _load(tmp_path, {"a": a, "b": b, "y": y}, spec)
    x, labels = next(iter(whole.train.batches(29)))
    np.testing.assert_allclose(x[0], b[whole.train.index], rtol=1e-6)
    np.testing.assert_allclose(x[1], a[whole.train.index], rtol=1e-6)
    assert labels.numpy().tolist() == y[whole.train.index].tolist()
    split = {f"{key}_{part}": array for part in ("train", "test") for key, array in (("a", a), ("b", b), ("y", y))}
    assert _load(tmp_path, split, spec).test.size == 40


@pytest.mark.parametrize(
    ("changes", "said", "fix"),
    [
        (
            {"x_train": None, "y_train": None, "x": _images(0, 9), "y": range(9)},
            "x beside x_test, y_test",
            "x_train",
        ),
        ({"x_dev": _images(0, 9), "y_dev": np.arange(9)}, "x_dev, which", "call it x_val"),
        ({"y_eval": np.arange(9)}, "y_eval, which", "call it y_val"),
        ({"sample_weights_train": np.ones(40)}, "sample_weights_train, which", "call it sample_weight_train"),
    ],
)
def test_samples_and_weights_that_would_be_overlooked_are_refused(tmp_path, changes, said, fix):
    """Figures would be those of other samples: of a part of x, of validation taken from train, without weights."""
    with pytest.raises(DataError, match=said) as raised:
        _load(tmp_path, _arrays(**changes))
    assert fix in raised.value.fix


def test_arrays_of_other_names_are_no_matter(tmp_path):
    """What is no sample, label or weight may lie beside them."""
    assert _load(tmp_path, _arrays(x_mean=np.zeros(3), names=np.array(["a", "b"]))).train.size == 36


@pytest.mark.parametrize("ending", ["validation", "valid"])
def test_validation_may_be_called_otherwise(tmp_path, pixels_of, ending):
    """It was overlooked, and a part of train taken; under two names it is refused."""
    own = {f"x_{ending}": _images(200, 3), f"y_{ending}": np.arange(3)}
    data = _load(tmp_path, _arrays(**own))
    assert (data.train.size, pixels_of(data.validation)) == (40, [200, 201, 202])
    with pytest.raises(DataError, match=f"has both x_val and x_{ending}"):
        _load(tmp_path, _arrays(**own, x_val=_images(300, 3), y_val=np.arange(3)))
    named = {"image_train": _images(0, 40), f"image_{ending}": _images(200, 3), "image_test": _images(100, 8)}
    spec = InputSpec(((4, 4, 1),), ("image",))
    labels = {key: values for key, values in _arrays(**own).items() if key[0] == "y"}
    assert pixels_of(_load(tmp_path, {**named, **labels}, spec).validation) == [200, 201, 202]
