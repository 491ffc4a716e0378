"""Models that look words up, cut: what the host part and the rest compute together is what Keras computes."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models.formats import read_model_file
from edgeprune.models.front import fit, load_front
from edgeprune.models.load import open_model

TEXTS = np.array(["Good, fine day!", "a BAD poor rain", "good good day", "Füße und Ärger", "rain  rain\tgo away"])
NEW = np.array([["good RAIN, unknown"], [""], ["Ärger, and\nmore day-light"], ["bad"]])
VECTORS = {
    "int": {"output_sequence_length": 6},
    "max_tokens": {"max_tokens": 5, "output_sequence_length": 4},
    "open length": {},
    "multi_hot": {"output_mode": "multi_hot", "max_tokens": 30, "pad_to_max_tokens": True},
    "count": {"output_mode": "count"},
    "tf_idf": {"output_mode": "tf_idf", "max_tokens": 12},
    "no standardization": {"standardize": None, "output_sequence_length": 5},
    "lower": {"standardize": "lower", "output_sequence_length": 5},
    "strip_punctuation": {"standardize": "strip_punctuation", "output_sequence_length": 5},
    "characters": {"split": "character", "output_sequence_length": 12},
    "ngrams": {"ngrams": 2, "output_sequence_length": 9},
    "two ngrams": {"ngrams": (1, 3), "output_mode": "count"},
}
LOOKUPS = {
    "int": {},
    "mask": {"mask_token": ""},
    "several oov": {"num_oov_indices": 3},
    "one_hot": {"output_mode": "one_hot"},
    "multi_hot": {"output_mode": "multi_hot", "num_oov_indices": 2},
    "closed": {"num_oov_indices": 0},
}


KERASES = ("keras 2", "keras 3")


@pytest.fixture(params=KERASES)
def either(request, keras, keras3):
    """One of both Kerases."""
    return keras if request.param == "keras 2" else keras3


def behind(k, numbers, mode):
    """Layers with weights behind numbers of words, or behind vectors."""
    if mode == "int":
        return k.layers.Dense(2)(k.layers.GlobalAveragePooling1D()(k.layers.Embedding(60, 3)(numbers)))
    return k.layers.Dense(2)(numbers)


def vectorizer(k, **arguments):
    """A model that starts at texts, with a vocabulary learned from them."""
    layer = k.layers.TextVectorization(**arguments)
    layer.adapt(TEXTS)
    texts = k.Input((1,), dtype="string", name="texts")
    return k.Model(texts, behind(k, layer(texts), arguments.get("output_mode", "int")))


def assert_same(path_or_model, model, values, trained=True):
    """The parts together compute what the whole does; returns what was opened."""
    opened = open_model(path_or_model)
    tensors = [tf.constant(value) for value in values]
    expected = np.asarray(model(tensors[0] if len(tensors) == 1 else tensors))
    numbers = opened.front.run_all(values)
    actual = opened.model([tf.constant(x) for x in numbers] if len(numbers) > 1 else tf.constant(numbers[0]))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    return opened


@pytest.mark.parametrize(
    ("either", "name"),
    representatives(itertools.product(KERASES, VECTORS), ("keras 2", "tf_idf"), ("keras 3", "open length")),
    indirect=["either"],
)
def test_texts_become_what_the_whole_model_makes_of_them(either, name, tmp_path):
    """Every setting of TextVectorization, from a .keras file; the host part survives saving."""
    if name == "two ngrams" and either.__version__.startswith("2"):
        pytest.skip("tf_keras cannot read what it saves")
    model = vectorizer(either, **VECTORS[name])
    model.save(tmp_path / "model.keras")
    opened = assert_same(tmp_path / "model.keras", model, [NEW])
    opened.front.save(tmp_path / "front.keras")
    again = load_front(tmp_path / "front.keras")
    np.testing.assert_array_equal(again.run_all([NEW])[0], opened.front.run_all([NEW])[0])
    assert opened.front.names == ("texts",) == tuple(opened.model.input_names)


@pytest.mark.parametrize(
    ("either", "form", "name"),
    representatives(
        itertools.product(KERASES, ["object", "keras", "h5"], LOOKUPS),
        ("keras 2", "keras", "mask"), ("keras 3", "keras", "one_hot"),
    ),
    indirect=["either"],
)  # fmt: skip
def test_categories_become_what_the_whole_model_makes_of_them(either, name, form, tmp_path):
    """Strings and whole numbers in tables of their own, beside an input without one."""
    k, settings = either, LOOKUPS[name]
    mode = settings.get("output_mode", "int")
    if form == "h5" and mode != "int":
        pytest.skip("one format is enough")
    color, year, size = k.Input((1,), dtype="string", name="color"), k.Input((1,), dtype="int64"), k.Input((2,))
    numbers = {**settings, "mask_token": 0} if "mask_token" in settings else settings
    ids = [
        k.layers.StringLookup(vocabulary=["red", "blue", "green"], **settings)(color),
        k.layers.IntegerLookup(vocabulary=[1999, 2005, 17], **numbers)(year),
    ]
    flat = [behind(k, x, mode) for x in ids]
    model = k.Model([color, year, size], k.layers.Concatenate()([*flat, k.layers.Dense(2)(size)]))
    words = ["blue", "red", "green"] if name == "closed" else ["blue", "", "Red"]
    years = [17, 1999, 2005] if name == "closed" else [17, 0, 2020]
    values = [np.array(words)[:, None], np.array(years)[:, None], np.ones((3, 2), np.float32)]
    source = model
    if form != "object":
        source = tmp_path / f"model.{form}"
        model.save(source)
    opened = assert_same(source, model, values)
    assert len(opened.front.layers) == 2


def test_all_that_a_lookup_needs_stays_on_the_host(either):
    """Layers between the inputs and a lookup, and between two of them, go with it; Hashing and CategoryEncoding too."""
    k = either
    text, number = k.Input((), dtype="string", name="text"), k.Input((1,), dtype="int64", name="number")
    word = k.layers.StringLookup(vocabulary=["a", "b"], name="word")(text)
    hot = k.layers.CategoryEncoding(3, output_mode="one_hot", name="hot")(word)
    bucket = k.layers.Hashing(4, name="bucket")(number)
    vector = k.layers.Flatten()(k.layers.Embedding(4, 3)(bucket))
    model = k.Model([text, number], k.layers.Dense(2)(k.layers.Concatenate()([hot, vector])))
    opened = assert_same(model, model, [np.array(["a", "z", "b"]), np.array([[3], [4], [50]])])
    assert set(opened.front.layers) == {"word", "hot", "bucket"}
    assert sorted(tuple(tensor.shape) for tensor in opened.model.inputs) == [(None, 1), (None, 3)]


def test_a_model_in_a_model_is_cut_too(either):
    """The usual end-to-end model: a vectorization layer in front of a trained model, and lookups in a nested one."""
    k = either
    layer = k.layers.TextVectorization(output_sequence_length=4)
    layer.adapt(TEXTS)
    inner_text = k.Input((1,), dtype="string")
    first = k.Model(inner_text, layer(inner_text), name="preparation")
    ids = k.Input((4,), dtype="int64")
    trained = k.Model(ids, behind(k, ids, "int"), name="classifier")
    text = k.Input((1,), dtype="string")
    for part in (layer, first):
        model = k.Model(text, k.layers.Softmax()(trained(part(text))))
        opened = assert_same(model, model, [NEW])
        assert not any(hasattr(one, "layers") for one in opened.model.layers)


def test_tables_that_cannot_be_cut_off_are_refused(either):
    """Behind trained layers, alone, with functions of the user, ragged: each with its own reason."""
    k = either
    text, x = k.Input((1,), dtype="string"), k.Input((3,))
    best = k.layers.Dense(3)(x)
    lookup = k.layers.CategoryEncoding(3, output_mode="one_hot")
    with pytest.raises(ModelError, match="looks up what trained layers compute"):
        open_model(k.Model(x, k.layers.Dense(2)(lookup(k.layers.Flatten()(best[:, :1])))))
    with pytest.raises(ModelError, match="output that only"):
        open_model(k.Model(text, k.layers.StringLookup(vocabulary=["a"])(text)))
    own = k.layers.TextVectorization(standardize=tf.strings.upper, output_sequence_length=4)
    own.adapt(TEXTS)
    with pytest.raises(ModelError, match="standardize=None"):
        open_model(k.Model(text, behind(k, own(text), "int")))


@pytest.mark.parametrize("mode", representatives(["int", "multi_hot"], "int"))
def test_learned_vocabularies_of_saved_models_are_read_from_the_graph(keras, tmp_path, mode):
    """As data, of text and number layers, nested ones too; the graph is not run."""
    k = keras.layers
    words, years = k.TextVectorization(output_mode=mode), k.IntegerLookup()
    words.adapt(TEXTS)
    years.adapt(np.array([1999, 17, 17, 2005]))
    inner = keras.Input((1,), dtype="int64")
    nested = keras.Model(inner, years(inner), name="years")
    text, year = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    flat = [behind(keras, words(text), mode), behind(keras, nested(year), "int")]
    model = keras.Model([text, year], k.Add()(flat))
    model.save(tmp_path / "saved")
    assert_same(tmp_path / "saved", model, [NEW, np.array([[17], [5], [2005], [0]])])


@pytest.mark.slow
def test_weights_of_words_in_saved_models_are_refused_with_a_way_out(keras, tmp_path):
    """The command in the message gives a file that opens."""
    model = vectorizer(keras, output_mode="tf_idf")
    model.save(tmp_path / "saved")
    with pytest.raises(ModelError, match=r"tf_keras\.models\.load_model\(.*\.save\('NAME\.keras'\)"):
        open_model(tmp_path / "saved")
    keras.models.load_model(tmp_path / "saved").save(tmp_path / "NAME.keras")
    assert_same(tmp_path / "NAME.keras", model, [NEW])


def test_a_vocabulary_in_a_file_is_not_read_without_trust(either, tmp_path):
    """A model file could so carry any text of this machine into what is published."""
    (tmp_path / "words.txt").write_text("good\nbad\n")
    text = either.Input((1,), dtype="string")
    layer = either.layers.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    model = either.Model(text, behind(either, layer(text), "int"))
    model.save(tmp_path / "model.keras")
    if "words.txt" not in str(read_model_file(tmp_path / "model.keras").config):
        pytest.skip("this Keras writes the words")
    with pytest.raises(ModelError, match=r"words\.txt"):
        open_model(tmp_path / "model.keras")
    assert open_model(tmp_path / "model.keras", trust=True).front


def test_lengths_are_cut_and_filled_up():
    """Zeros at the end; open sizes stay."""
    array = np.arange(1, 7).reshape(2, 3)
    np.testing.assert_array_equal(fit(array, (2,)), [[1, 2], [4, 5]])
    np.testing.assert_array_equal(fit(array, (5,)), [[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]])
    assert fit(array, (None,)) is array
