"""Tests of builds in which one variant cannot be made."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgeprune
from edgeprune.errors import ConversionError
from edgeprune.progress import Progress

# What weights are rounded to, and by which samples, is no matter of the variants that are left.
QUICK = 'extends = ["int8"]\n[calibration]\nsamples = 16\nrange = "minmax"\n[quantize]\nrounding = "nearest"\n'


class Notes(Progress):
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


@pytest.fixture(scope="module")
def one_feature():
    """A model whose int8 file aborts LiteRT, and data for it."""
    import tf_keras
    from tf_keras import layers

    inputs = layers.Input((12, 1))
    x = layers.LayerNormalization(name="over_one")(inputs)
    x = layers.GlobalMaxPooling1D()(layers.Conv1D(3, 1, activation="relu")(x))
    model = tf_keras.Model(inputs, layers.Dense(2, activation="softmax")(x), name="series")
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    r = np.random.default_rng(0)
    sizes = {"train": 32, "test": 16}
    return model, {k: (r.normal(size=(n, 12, 1)).astype("float32"), np.arange(n) % 2) for k, n in sizes.items()}


def test_the_other_variants_are_built_and_reported(one_feature, tmp_path):
    """The build ends with the error of the variant; its report has the others, and says which is missing and why."""
    model, data = one_feature
    recipe = tmp_path / "both.toml"
    recipe.write_text(f'{QUICK}modes = ["int8", "dynamic"]\n')
    notes = Notes()
    with pytest.raises(ConversionError, match="over_one") as caught:
        edgeprune.build(model, target="rpi4", data=data, recipe=recipe, out=tmp_path / "run", progress=notes)
    assert "has everything else" in " ".join(caught.value.__notes__)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert [variant["name"] for variant in report["variants"]] == ["float32", "dynamic"]
    ((missing,),) = [report["missing"]]
    assert missing["name"] == "int8"
    assert "over_one" in missing["what"]
    assert any("goes on without it" in text for text in notes.texts)
    for view in ("report.md", "report.html"):
        assert "int8 is missing" in (tmp_path / "run" / view).read_text()


@pytest.mark.slow  # what failed is no finished stage: test_pipeline.py
def test_what_is_missing_is_tried_again(one_feature, tmp_path):
    """Only what failed runs again in the next build; a recipe without it succeeds, and reports nothing missing."""
    model, data = one_feature
    recipe = tmp_path / "both.toml"
    recipe.write_text(f'{QUICK}modes = ["int8"]\n')
    with pytest.raises(ConversionError):
        edgeprune.build(model, target="rpi4", data=data, recipe=recipe, out=tmp_path / "run")
    recipe.write_text(f'{QUICK}modes = ["dynamic"]\n')
    report = edgeprune.build(model, target="rpi4", data=data, recipe=recipe, out=tmp_path / "run")
    assert report.missing == []
    assert {run.name: run.reused for run in report.stages}["float32.convert"]
