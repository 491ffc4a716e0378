"""Builds of models that leave sizes open, and of models that look words up, end to end."""

import json

import numpy as np
import pytest
import quick
import tf_keras

from edgeprune import build
from edgeprune.errors import UsageError
from edgeprune.models.load import load_model
from edgeprune.progress import Progress


class Heard(Progress):
    """What a build said, and which of its stages it reused."""

    def __init__(self):
        self.notes, self.reused = [], {}

    def note(self, text):
        self.notes.append(text)

    def stage(self, number, count, name, reused):
        self.reused[name] = reused


def run(model, data, out, **options):
    heard = Heard()
    report = build(model, data=data, target="rpi4", recipe=quick.INT8, out=out, progress=heard, **options)
    return report, heard


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """A text classifier of open length, trained on strings, and its data."""
    texts = np.array(["good fine day", "bad rain", "good good", "poor rain today now"] * 15)
    labels = np.array([1, 0, 1, 0] * 15)
    k = tf_keras.layers
    words = k.TextVectorization()
    words.adapt(texts)
    text = tf_keras.Input((1,), dtype="string", name="text")
    numbers = k.GlobalAveragePooling1D()(k.Embedding(20, 4)(words(text)))
    model = tf_keras.Model(text, k.Dense(2, activation="softmax")(numbers))
    model.compile(tf_keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(texts[:, None], labels, epochs=5, verbose=0)
    folder = tmp_path_factory.mktemp("text")
    model.save(folder / "model.keras")
    np.savez(folder / "data.npz", x=texts, y=labels)
    return folder


def test_a_text_model_is_built_for_the_length_of_the_data(text_model, tmp_path):
    """Length and host part are stated in notes and report; a second build reuses all; another length does not."""
    source, data = text_model / "model.keras", text_model / "data.npz"
    report, heard = run(source, data, tmp_path)
    assert report.model.input_shape == [None, 4]
    assert report.model.given_shape == [None, None]
    assert report.model.sizes_from == "the data"
    assert report.model.on_host.inputs == ["text"]
    assert any("input 4, from the data" in note for note in heard.notes)
    assert all(variant.metric.value == 1.0 for variant in report.variants)
    assert "the code beside the file" in (tmp_path / "report.md").read_text("utf-8")
    (rule,) = json.loads((tmp_path / "model-text.json").read_text("utf-8"))
    assert "rain" in rule["vocabulary"]
    assert load_model(tmp_path / "models" / "model-baseline.keras").inputs[0].shape == (None, 4)
    _, again = run(source, data, tmp_path)
    assert all(again.reused.values())
    longer, other = run(source, data, tmp_path, input_shape=(6,))
    assert longer.model.input_shape == [None, 6]
    assert longer.model.sizes_from == "--input-shape"
    assert other.reused["model"]
    assert not any(other.reused[name] for name in ("sized", "baseline", "float32.convert", "int8.convert"))


def test_a_shape_that_does_not_fit_is_refused_before_anything_is_built(text_model, tmp_path):
    """Nothing but the loaded model is there."""
    with pytest.raises(UsageError, match="--input-shape 128"):
        run(text_model / "model.keras", text_model / "data.npz", tmp_path, input_shape=(4, 4))
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["model"]
