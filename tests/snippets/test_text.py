"""Snippets of models that look words up: what they compute of a text is what the whole Keras model does."""

import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from edgeprune.convert.converter import convert
from edgeprune.errors import DataError
from edgeprune.models.load import open_model
from edgeprune.models.sizes import with_sizes
from edgeprune.profiling.compare import compare
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.snippets import write_snippets
from edgeprune.snippets.text import plain_rules
from edgeprune.target import load_target

PREPROCESSING = {"scale": 1.0, "mean": (0.0,), "std": (1.0,)}
TEXTS = np.array(["Good, fine day!", "a BAD poor rain", "good good day", "Füße und Ärger"])
# Settings of TextVectorization, and whether plain Python covers them.
SETTINGS = {
    "int": ({"output_sequence_length": 6}, True),
    "open length": ({}, True),
    "characters": ({"split": "character", "standardize": "lower"}, True),
    "ngrams": ({"ngrams": 2, "output_mode": "count"}, True),
    "multi_hot": ({"output_mode": "multi_hot", "standardize": "strip_punctuation"}, True),
    "whole texts": ({"split": None, "standardize": None}, True),
    "tf_idf": ({"output_mode": "tf_idf"}, False),
}


def opened_model(k, settings):
    words = k.layers.TextVectorization(**settings)
    words.adapt(TEXTS)
    text = k.Input((1,), dtype="string")
    x = words(text)
    if settings.get("output_mode", "int") == "int":
        x = k.layers.GlobalMaxPooling1D()(k.layers.Embedding(60, 3)(x))
    return k.Model(text, k.layers.Dense(2, name="answer")(x))


@pytest.mark.parametrize("version", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SETTINGS)
def test_plain_rules_are_written_where_they_equal_keras(version, name):
    """For the settings that they cover; what they do not cover is left to Keras."""
    import keras
    import tf_keras

    settings, is_plain = SETTINGS[name]
    opened = open_model(opened_model(tf_keras if version == 2 else keras, settings))
    shapes = [tuple(size or 9 for size in tensor.shape[1:]) for tensor in opened.model.inputs]
    assert (plain_rules(opened.front, shapes) is not None) == is_plain


@pytest.mark.parametrize("name", ["open length", pytest.param("tf_idf", marks=pytest.mark.slow)])
def test_the_snippet_answers_a_text_as_the_whole_model_does(name, tmp_path):
    """In a process of its own: by rules, or by the layers of Keras beside the file."""
    import keras

    whole = opened_model(keras, SETTINGS[name][0])
    opened = open_model(whole)
    model = with_sizes(opened.model, [tuple(size or 4 for size in tensor.shape[1:]) for tensor in opened.model.inputs])
    opened.front.save(tmp_path / "front.keras")
    (tmp_path / "words.tflite").write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    names = model.input_names, model.output_names
    target = load_target("rpi4")
    written = write_snippets(tmp_path / "words.tflite", target, PREPROCESSING, *names, None, tmp_path / "front.keras")
    assert (tmp_path / f"words-text.{'json' if name == 'open length' else 'keras'}") in written
    (tmp_path / "sample.txt").write_text("a FINE day, unknown\n", "utf-8")
    command = [sys.executable, "run_words.py", "sample.txt"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    expected = np.asarray(whole(tf.constant([["a FINE day, unknown"]])))[0]
    np.testing.assert_allclose(np.array(found.stdout.strip("[] \n").split(), float), expected, atol=1e-5)


def test_texts_for_a_file_are_refused_with_the_line_that_makes_its_numbers(tmp_path, monkeypatch):
    """A comparison of files on texts, in arrays or datasets, says that their lookups are not in them; what it says to
    write gives the numbers that they take."""
    import keras

    opened = open_model(opened_model(keras, SETTINGS["int"][0]))
    opened.front.save(tmp_path / "front.keras")
    file = tmp_path / "words.tflite"
    file.write_bytes(convert(opened.model, QuantizationPlan("float32", "float", False)))
    names = opened.model.input_names, opened.model.output_names
    write_snippets(file, load_target("rpi4"), PREPROCESSING, *names, None, tmp_path / "front.keras")
    texts = np.tile(TEXTS, 5)
    for data in (texts, {"x": texts[:, None].astype(object)}, tf.data.Dataset.from_tensor_slices(texts[:, None])):
        with pytest.raises(DataError, match=r"are texts, and .* takes numbers of shape \(6,\)") as caught:
            compare(file, file, data=data)
    line = re.search(r"from run_words import on_host; .*\)", str(caught.value))[0]
    monkeypatch.syspath_prepend(tmp_path)
    made = {"np": np, "texts": texts}
    exec(line, made)
    np.testing.assert_array_equal(made["x"], opened.front.run_all([texts[:, None]])[0])
    assert compare(file, file, data=made["x"])["accuracy"]["agreement"] == 1
