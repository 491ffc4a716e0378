"""Texts as samples: the numbers that the model on the board takes are what Keras' layers make of them."""

import numpy as np
import pytest
import tensorflow as tf
from matrix import representatives

from edgeprune.data import load_data
from edgeprune.data.sizes import settle
from edgeprune.errors import DataError
from edgeprune.models.load import open_model
from edgeprune.recipe.config import DataConfig

TEXTS = np.array(["good fine day", "bad rain", "good good", "awful poor rain today"] * 10)
LABELS = np.array([1, 0, 1, 0] * 10)


@pytest.fixture(scope="module")
def opened():
    """A text model of open length, cut."""
    import tf_keras as k

    words = k.layers.TextVectorization()
    words.adapt(TEXTS)
    texts = k.Input((1,), dtype="string", name="texts")
    numbers = k.layers.GlobalAveragePooling1D()(k.layers.Embedding(20, 3)(words(texts)))
    return open_model(k.Model(texts, k.layers.Dense(2)(numbers)))


def _dataset(texts, labels):
    return tf.data.Dataset.from_tensor_slices((texts, labels))


FORMS = {
    "arrays": lambda x, y: (x, y),
    "column": lambda x, y: (x[:, None], y),
    "objects": lambda x, y: (x.astype(object), y),
    "bytes": lambda x, y: (np.char.encode(x, "utf-8"), y),
    "list": lambda x, y: {"x": list(x), "y": y},
    "by name": lambda x, y: {"x": {"texts": x}, "y": y},
    "dataset": lambda x, y: _dataset(x[:, None], y),
    "batches": lambda x, y: _dataset(x[:, None], y).batch(7),
    "unlabelled": lambda x, y: x,
}


@pytest.mark.parametrize("form", representatives(FORMS, "arrays", "batches"))
def test_texts_become_numbers_of_one_length(opened, form):
    """Whatever holds the texts: the longest of them decides the length, zeros fill up the others."""
    spec, _ = settle(opened.model, None, opened.front)
    data = load_data(FORMS[form](TEXTS, LABELS), DataConfig(), spec)
    assert data.train.spec.shapes == ((4,),)
    every = (
        load_data({"train": FORMS[form](TEXTS, LABELS), "test": FORMS[form](TEXTS[:6], LABELS[:6])}, DataConfig(), spec)
        if form not in ("list", "by name", "unlabelled")
        else None
    )
    if every is not None:
        x, y = next(every.test.batches(6).as_numpy_iterator())
        np.testing.assert_array_equal(x, opened.front.run_all([TEXTS[:6, None]], [(4,)])[0])
        np.testing.assert_array_equal(y, LABELS[:6])


def test_texts_in_an_npz_are_read_without_pickles(opened, tmp_path):
    """Arrays of str work; objects are refused, and what the message says to write works."""
    spec, _ = settle(opened.model, None, opened.front)
    texts = list(TEXTS)
    np.savez(tmp_path / "objects.npz", x=np.array(texts, dtype=object), y=LABELS)
    with pytest.raises(DataError, match=r"x=numpy\.array\(texts, dtype=str\)"):
        load_data(tmp_path / "objects.npz", DataConfig(), spec)
    np.savez(tmp_path / "texts.npz", x=np.array(texts, dtype=str), y=LABELS)
    assert load_data(tmp_path / "texts.npz", DataConfig(), spec).train.spec.shapes == ((4,),)


def test_numbers_pass_and_a_given_length_holds(opened):
    """Numbers of words are taken as they are; --input-shape cuts texts and fills them up."""
    spec, _ = settle(opened.model, None, opened.front)
    numbers = opened.front.run_all([TEXTS[:, None]])[0]
    x, _ = next(load_data((numbers, LABELS), DataConfig(), spec).train.batches(64).as_numpy_iterator())
    assert x.shape[1] == 4
    for length in (2, 6):
        fixed, _ = settle(opened.model, (length,), opened.front)
        for source in ((TEXTS, LABELS), _dataset(TEXTS[:, None], LABELS)):
            assert load_data(source, DataConfig(), fixed).train.spec.shapes == ((length,),)


@pytest.mark.parametrize("texts", [[None, *TEXTS[1:]], [3.5, *TEXTS[1:]]])
def test_missing_texts_are_refused(opened, texts):
    """A value that is no text is shown."""
    spec, _ = settle(opened.model, None, opened.front)
    with pytest.raises(DataError, match="1 values among the texts"):
        load_data((np.array(texts, object), LABELS), DataConfig(), spec)
