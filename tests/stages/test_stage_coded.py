"""Grids for encoded weights in a build: a size, or a drop on validation, is kept by the file that is flashed."""

import numpy as np
import pytest
import tf_keras

from edgeprune.builder import _with_data, build_context
from edgeprune.context import Trust
from edgeprune.errors import RecipeError
from edgeprune.pipeline import Run
from edgeprune.plan import make_plan, source_step
from edgeprune.progress import Progress
from edgeprune.recipe.load import parse_recipe
from edgeprune.selection import Limits
from edgeprune.target import load_target
from edgeprune.tflite.compact import compact
from edgeprune.tflite.encode import encoded
from edgeprune.tflite.flatbuffer import read


@pytest.fixture(scope="module")
def model():
    """Convolutions for the demo's digits; not trained."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input([16, 16, 1])
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(48, 3, padding="same", activation="relu", name="wide")(x)
    x = layers.Conv2D(48, 3, strides=2, activation="relu", name="late")(x)
    x = layers.Dense(10, activation="softmax", name="dense")(layers.GlobalAveragePooling2D()(x))
    made = tf_keras.Model(inputs, x, name="small")
    made.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return made


def coded(model, folder, **table):
    """The artifact of the int8 file under these keys of [coded], as it is converted."""
    table = {
        "coded": table,
        "reconstruct": {"samples": 64},
        "calibration": {"samples": 32},
        "quantize": {"modes": ["int8"]},
        "data": {"scale": 1 / 255},
    }
    recipe, target = parse_recipe(table, "mine.toml"), load_target("cortex-m4")
    context = build_context(model, (recipe,), target, 0, False, Trust(), Progress(), None)
    run = Run(folder)
    run.execute([source_step(False)], context)
    context, source = _with_data(context, run, "demo", Limits(), None)
    steps = {step.name: step for step in make_plan([recipe], target, source=source).steps}
    run.execute([steps["coded"], steps["coded-int8.convert"]], context)
    return run.artifacts["coded-int8.convert"]


@pytest.fixture(scope="module")
def smaller(model, tmp_path_factory):
    """60 % of the plain file in flash."""
    return coded(model, tmp_path_factory.mktemp("smaller"), max_size="60%")


def test_the_flashed_file_has_the_size_that_was_asked_for(smaller):
    """The rest of the file counted: at most that, and near to it."""
    artifact = smaller
    content = artifact.files["tflite"].read_bytes()
    plain, flashed = len(compact(content)), len(compact(encoded(content).content))
    assert 0.54 * plain < flashed <= 0.61 * plain
    facts = artifact.facts["coded"]
    assert facts["trials"][-1]["met"]
    assert facts["warnings"] == []


def test_grids_are_found_in_the_file(smaller):
    """No channel of a tensor has more different weights than its grid has values."""
    artifact = smaller
    graph = read(artifact.files["tflite"]).subgraphs[0]
    by_size = {tensor.size: tensor for tensor in graph.tensors if tensor.constant and tensor.dtype == "int8"}
    tensors = {one["layer"]: one for one in artifact.facts["coded"]["tensors"]}
    assert set(tensors) == {"stem", "depthwise", "wide", "late", "dense"}
    coarse = [one for one in tensors.values() if one["levels"] < 60]
    assert coarse
    for one in coarse:
        stored = by_size[one["weights"]]
        channels = np.moveaxis(stored.data(), stored.quantization.axis, 0)
        assert max(len(np.unique(channel)) for channel in channels) <= 2 * one["levels"] + 1


@pytest.mark.slow
def test_a_drop_leads_to_the_smallest_size(model, tmp_path):
    """An untrained model loses nothing that could be missed: the last size of six is near the least there is."""
    trials = coded(model, tmp_path, max_drop=100).facts["coded"]["trials"]
    assert [one["met"] for one in trials] == [True] * 6
    sizes = [one["bytes"] for one in trials]
    assert sizes == sorted(sizes, reverse=True)


def test_training_samples_judge_as_well(model, tmp_path, monkeypatch):
    """A drop that they show and validation does not is too much: no size is taken for good."""
    sizes = []

    def figure(model, split, task):
        sizes.append(split.size)
        return 0.8 if len(sizes) > 2 and split.size == 64 else 1.0  # the first two are of the model as it was

    monkeypatch.setattr("edgeprune.evaluate.accuracy.evaluate_keras", figure)
    facts = coded(model, tmp_path, max_drop=1).facts["coded"]
    assert not any(one["met"] for one in facts["trials"])
    assert facts["trials"][-1]["drop_points"] == pytest.approx(20)
    assert "training samples" in facts["warnings"][0]


def test_a_size_below_everything_is_refused(model, tmp_path):
    """The message says how small the file can be."""
    with pytest.raises(RecipeError, match="cannot be smaller than about"):
        coded(model, tmp_path, max_size=2000)
