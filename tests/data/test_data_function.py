"""Functions of the user, and the same data given in Python."""

import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable

import numpy as np
import pytest
from matrix import representatives

from edgeprune.data import InputSpec, load_data
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((2,),))
TWO_INPUTS = InputSpec(((2,), (3,)), ("left", "right"))


def arrays(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], 2, 1), np.arange(count) % 2


def dataset(first: int, count: int):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays(first, count)).batch(7)


FORMS = {
    "dict": lambda part: {"train": part(0, 20), "validation": part(50, 4), "test": part(100, 6)},
    "dict with val": lambda part: {"train": part(0, 20), "val": part(50, 4), "test": part(100, 6)},
    "triple": lambda part: (part(0, 20), part(50, 4), part(100, 6)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", [arrays, dataset])
def test_all_forms_with_three_splits(form, part, pixels_of):
    """Dicts and triples, of arrays and of datasets, give the three splits as they are."""
    data = load_data(FORMS[form](part), DataConfig(), SPEC)
    assert pixels_of(data.train) == list(range(20))
    assert pixels_of(data.validation) == list(range(50, 54))
    assert pixels_of(data.test) == list(range(100, 106))


@pytest.mark.parametrize("part", [arrays, dataset])
def test_pair_is_train_and_test(part, pixels_of):
    """(train, test) takes validation from train, stratified; test is untouched."""
    data = load_data((part(0, 20), part(100, 6)), DataConfig(), SPEC)
    assert np.bincount(data.validation.labels).tolist() == [1, 1]
    assert sorted(pixels_of(data.train) + pixels_of(data.validation)) == list(range(20))
    assert pixels_of(data.test) == list(range(100, 106))


@pytest.mark.parametrize("part", [arrays, dataset])
def test_single_source_is_split_without_overlap(part, pixels_of):
    """One (x, y) or one dataset becomes three disjoint parts."""
    data = load_data(part(0, 50), DataConfig(), SPEC)
    parts = [pixels_of(split) for split in (data.train, data.validation, data.test)]
    assert [len(values) for values in parts] == [36, 4, 10]
    assert sorted(itertools.chain(*parts)) == list(range(50))


def test_arrays_written_as_lists():
    """([[1, 2], [3, 4], ...], [0, 1, ...]) is one (x, y), not train and test."""
    data = load_data(([[i, i] for i in range(20)], [i % 2 for i in range(20)]), DataConfig(), SPEC)
    assert data.train.size + data.validation.size + data.test.size == 20


def test_npz_names_in_a_dict(pixels_of):
    """A dict with the names of an .npz works like the .npz."""
    (x, y), (x_test, y_test) = arrays(0, 20), arrays(100, 6)
    data = load_data({"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}, DataConfig(), SPEC)
    assert pixels_of(data.test) == list(range(100, 106))


@pytest.mark.parametrize("container", ["dict", "tuple", "dataset of dicts"])
def test_several_inputs_arrive_in_model_order(container):
    """Inputs given by name or in order are yielded as a tuple in the order of the model."""
    import tensorflow as tf

    left, right = np.zeros((20, 2), np.float32), np.ones((20, 3), np.float32)
    x = (left, right) if container == "tuple" else {"right": right, "left": left}
    y = np.arange(20) % 2
    source = tf.data.Dataset.from_tensor_slices((x, y)) if container == "dataset of dicts" else (x, y)
    data = load_data(source, DataConfig(), TWO_INPUTS)
    (a, b), _ = next(data.train.batches(4).as_numpy_iterator())
    assert (a.shape, b.shape, a.max(), b.min()) == ((4, 2), (4, 3), 0, 1)


def test_function_in_a_file(tmp_path):
    """file.py:function is imported with its neighbours and called; its source is part of the fingerprint."""
    (tmp_path / "neighbour_of_data.py").write_text("COUNT = 30\n")
    code = """
        import numpy as np
        from neighbour_of_data import COUNT
        def load():
            return np.arange(2 * COUNT, dtype="float32").reshape(COUNT, 2), np.arange(COUNT) % 3
    """
    file = tmp_path / "mydata.py"
    file.write_text(textwrap.dedent(code))
    data = load_data(f"{file}:load", DataConfig(), SPEC)
    assert data.train.size + data.validation.size + data.test.size == 30
    assert data.source == f"{file}:load"
    assert load_data(f"{file}:load", DataConfig(), SPEC).fingerprint == data.fingerprint
    file.write_text(textwrap.dedent(code) + "# changed\n")
    assert load_data(f"{file}:load", DataConfig(), SPEC).fingerprint != data.fingerprint
    assert str(tmp_path) not in sys.path


def test_function_in_a_module_of_the_working_folder(tmp_path, monkeypatch):
    """package.module:function is found in the working folder."""
    (tmp_path / "userpackage").mkdir()
    (tmp_path / "userpackage" / "__init__.py").touch()
    (tmp_path / "userpackage" / "digits.py").write_text(
        "import numpy as np\ndef load():\n    return np.zeros((20, 2)), np.arange(20) % 2\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_data("userpackage.digits:load", DataConfig(), SPEC).test.size == 4


def test_callable_in_python():
    """A function object is called; its name is the printable source."""

    def load():
        return arrays(0, 20), arrays(100, 6)

    data = load_data(load, DataConfig(), SPEC)
    assert data.source.endswith("load")
    assert data.test.size == 6


def test_fingerprint_follows_the_values():
    """Other values from the same function are another fingerprint."""
    a, b = (load_data((arrays(0, 20), arrays(first, 6)), DataConfig(), SPEC).fingerprint for first in (100, 101))
    assert a != b


CODE_ERRORS = {
    "raising": ("def load():\n    raise KeyError('mine')", "load raised KeyError: 'mine'"),
    "exit": ("import sys\nsys.exit(5)", r"Importing .*mydata.py raised SystemExit: 5"),
    "exit later": ("def load():\n    raise SystemExit", "load raised SystemExit"),
    "with arguments": ("def load(a):\n    pass", "raised TypeError"),
    "absent": ("def other():\n    pass", "no function 'load' .*\nExpected: one of: other"),
    "no function": ("load = 3", "no function 'load'"),
    "syntax": ("def load(:", "raised SyntaxError"),
    "import": ("import there_is_no_such_module", "raised ModuleNotFoundError: No module named 'there_is_no"),
    "None": ("def load():\n    return None", "of type NoneType(.|\n)*return statement"),
    "generator": ("def load():\n    return ((1, 2) for i in range(3))", "can be read once(.|\n)*without calling it"),
    "batches of numbers": ("def load():\n    yield 1, 2", r"samples of shape \(\) for input"),
    "Keras' generator of images": (
        "import numpy as np, tf_keras\ndef load():\n    images = tf_keras.preprocessing.image.ImageDataGenerator()\n"
        "    return images.flow(np.ones((9, 4, 4, 1)), np.ones(9))",
        r"samples of shape \(9, 4, 4, 1\) for input",
    ),
    "batches without a length": (
        "import keras\nclass Batches(keras.utils.PyDataset):\n    def __getitem__(self, i): return 1, 2\n"
        "def load(): return Batches()",
        "have no length(.|\n)*give __len__",
    ),
    "batches without an end": (
        "import keras\nclass Batches(keras.utils.PyDataset):\n    num_batches = None\n"
        "    def __getitem__(self, i): return 1, 2\ndef load(): return Batches()",
        "have no length: num_batches is None",
    ),
    "no batches": ("def load():\n    return (lambda: iter(())), (lambda: iter(()))", "have no batches"),
    "a function without batches": ("def load():\n    return {'train': dict, 'test': dict}", "returns dict"),
    "failing batches": (
        "def batches():\n    raise OSError('gone')\n    yield\ndef load():\n    return batches, batches",
        "raised OSError: gone",
    ),
    "three arrays like x": (
        "import numpy as np\ndef load(): return np.ones((9, 2)), np.ones((9, 2)), np.ones((9, 2))",
        "splits, or inputs, labels and weights(.|\n)*by name",
    ),
    "dataset and arrays": (
        "import numpy as np, tensorflow as tf\ndef load(): return tf.data.Dataset.range(3), np.ones(9), np.ones(9)",
        "splits, or inputs, labels and weights",
    ),
    "lists of other lengths": ("def load():\n    return [[1, 2], [3]], [0, 1]", "lists whose items differ in length"),
    "labels of one output of three": (
        "import numpy as np\ndef load(): return np.ones((9, 2)), (np.ones(9), None, None)",
        r'labels y of the data of .*load are \(array, None, None\)(.|\n)*{"OUTPUT": y}',
    ),
    "labels by name, without an array": (
        "import numpy as np\ndef load(): return np.ones((9, 2)), {'a': np.ones(9), 'b': None}",
        r'labels y of the data of .* are {"a": array, "b": None}(.|\n)*{"OUTPUT": y}',
    ),
    "a list of labels, without an array": (
        "import numpy as np\ndef load(): return np.ones((9, 2)), [np.ones(9), None]",
        r"labels y of the data of .* are \(array, None\)",
    ),
    "a dataset with labels of one output of two": (
        "import tensorflow as tf\n"
        "def load(): return tf.data.Dataset.from_tensors(tf.ones(2)).map(lambda x: (x, (tf.ones(1), None)))",
        r'labels y of the whole dataset are \(array, None\)(.|\n)*{"OUTPUT": y}',
    ),
    "weights of one output of two": (
        "import numpy as np\ndef load(): return np.ones((9, 2)), (np.ones(9),) * 2, (np.ones(9), None)",
        r"sample weights w of the data of .* are \(array, None\)(.|\n)*np\.ones",
    ),
    "labels of no output": (
        "import numpy as np\ndef load(): return np.ones((9, 2)), (None, None)",
        r"labels y of the data of .* are \(None, None\)(.|\n)*leave y out",
    ),
    "number of parts": ("def load():\n    return 1, 2, 3, 4", "of type tuple of 4"),
    "keys": ("def load():\n    return {'train': 1, 'tets': 2}", "have the keys train, tets"),
    "part": ("def load():\n    return {'train': 1, 'test': 2}", "train data of .* are of type int"),
}


@pytest.mark.parametrize("case", CODE_ERRORS)
def test_bad_function_is_one_message(tmp_path, case):
    """Each function that cannot be used is a DataError that names it and what happened."""
    code, message = CODE_ERRORS[case]
    (tmp_path / "mydata.py").write_text(code)
    with pytest.raises(DataError, match=message):
        load_data(f"{tmp_path}/mydata.py:load", DataConfig(), SPEC)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.py:load", "nowhere.py of nowhere.py:load does not exist"),
        ("no_such_package.data:load", "no module 'no_such_package.data'"),
        ("json:no_such_function", "no function 'no_such_function' in json"),
        ("no/such/folder", "no/such/folder does not exist"),
        ("missing.npz", "missing.npz does not exist"),
    ],
)
def test_sources_that_do_not_exist(source, message):
    """A source that is nowhere is a DataError that says what was looked for."""
    with pytest.raises(DataError, match=message):
        load_data(source, DataConfig(), SPEC)


def test_wrong_number_or_names_of_inputs():
    """Inputs that the model does not have, or too few, are a DataError that lists what it takes."""
    x, y = arrays(0, 20)
    with pytest.raises(DataError, match="has 1 inputs; the model takes 2"):
        load_data((x, y), DataConfig(), TWO_INPUTS)
    with pytest.raises(DataError, match=r"inputs named \['a', 'b'\]") as error:
        load_data(({"a": x, "b": x}, y), DataConfig(), TWO_INPUTS)
    assert "left (2,), right (3,)" in str(error.value)


def _batched(first: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = arrays(first, count)
    return [(x[i : i + 7], y[i : i + 7]) for i in range(0, count, 7)]


def _sequence(base: type) -> type:
    """A class of indexable batches as Keras has them."""

    class Batches(base):
        def __init__(self, first: int, count: int):
            super().__init__()
            self.batches = _batched(first, count)

        def __len__(self) -> int:
            return len(self.batches)

        def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
            return self.batches[i]

    return Batches


def _makers() -> dict[str, Callable[[int, int], object]]:
    import keras
    import tf_keras

    return {
        "Sequence": _sequence(tf_keras.utils.Sequence),
        "PyDataset": _sequence(keras.utils.PyDataset),
        "function that yields": lambda first, count: lambda: iter(_batched(first, count)),
        "function that yields single samples": lambda first, count: lambda: zip(*arrays(first, count), strict=True),
    }


@pytest.mark.parametrize(
    "kind",
    representatives(
        ["Sequence", "PyDataset", "function that yields", "function that yields single samples"],
        "Sequence", "PyDataset", "function that yields single samples",
    ),
)  # fmt: skip
def test_batches_of_python_are_streamed(kind, pixels_of):
    """Indexable batches of both Keras and functions that yield give their samples in order, in every pass, and can be
    split."""
    make = _makers()[kind]
    data = load_data({"train": make(0, 40), "test": make(100, 9)}, DataConfig(), SPEC)
    assert sorted(pixels_of(data.train) + pixels_of(data.validation)) == list(range(40))
    assert pixels_of(data.test) == pixels_of(data.test) == list(range(100, 109))
    pair = load_data((make(0, 40), make(100, 9)), DataConfig(), SPEC)
    assert pixels_of(pair.test) == list(range(100, 109))
    assert pair.fingerprint == data.fingerprint


def test_batches_that_change_are_refused():
    """A Sequence that draws at random cannot be split; the message names what to remove."""

    class Random(_makers()["Sequence"]):
        def __getitem__(self, i):
            x, y = self.batches[i]
            return x + np.random.random(), y

    with pytest.raises(DataError, match=r"another order, each time; no validation part(.|\n)*random augmentation"):
        load_data((Random(0, 40), Random(100, 9)), DataConfig(), SPEC)


def _again_and_again():
    while True:
        yield from _batched(0, 40)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (_again_and_again, "train dataset gives its 40 samples again and again(.|\n)*while True"),
        (lambda: dataset(0, 40).repeat(3), "train dataset gives its 40 samples again and again(.|\n)*repeat"),
        (lambda: dataset(0, 40).unbatch().shuffle(40).repeat(2), "train dataset gives its 40 samples 2 times"),
    ],
)
def test_repeated_samples_are_refused(train, message):
    """Endless loops, .repeat(count) and reshuffled repetition are told by the samples themselves."""
    train = train if inspect.isgeneratorfunction(train) else train()
    with pytest.raises(DataError, match=message):
        load_data({"train": train, "test": dataset(100, 9)}, DataConfig(), SPEC)


def test_equal_samples_side_by_side_are_no_repetition(pixels_of):
    """Samples that are all there twice, next to each other, are taken as they are."""
    x, y = arrays(0, 40)
    data = load_data(
        {"train": lambda: zip(x.repeat(2, 0), y.repeat(2), strict=True), "test": dataset(100, 9)}, DataConfig(), SPEC
    )
    assert data.train.size + data.validation.size == 80


def test_validation_may_be_none_and_stand_there_once():
    """None is as if it were left out; under both of its names it is refused."""
    train, test = arrays(0, 40), arrays(100, 8)
    data = load_data({"train": train, "validation": None, "test": test}, DataConfig(), SPEC)
    assert (data.train.size, data.validation.size, data.test.size) == (36, 4, 8)
    with pytest.raises(DataError, match="both val and validation"):
        load_data({"train": train, "val": test, "validation": test, "test": test}, DataConfig(), SPEC)


def test_masked_values_are_refused():
    """Under a mask there is no value, whatever number lies there; a mask that masks nothing is none."""
    x, y = arrays(0, 40)
    assert load_data((np.ma.masked_greater(x, 99), y), DataConfig(), SPEC).test.size == 8
    for masked in ((np.ma.masked_greater(x, 30), y), (x, np.ma.masked_equal(y, 1))):
        with pytest.raises(DataError, match="masked values"):
            load_data(masked, DataConfig(), SPEC)
