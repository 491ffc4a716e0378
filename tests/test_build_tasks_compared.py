"""The recipe of a run measures its files as its report says."""

import json

import numpy as np
import pytest
import quick

from edgeprune.builder import build
from edgeprune.profiling.compare import compare
from edgeprune.recipe.load import load_recipe


@pytest.mark.slow  # tests/evaluate/test_files.py
def test_compare_with_the_recipe_of_the_run_gives_the_figures_of_the_report(tmp_path):
    """Two outputs, of a dict whose keys are not the layers' names, one with AUC(curve="PR"), one with
    SparseTopK(k=2), compiled and weighted: with recipe.toml, compare gives what report.json says of both files."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    entry = layers.Input([6])
    x = layers.Dense(16, activation="relu")(entry)
    outputs = {
        "tag": layers.Dense(4, activation="softmax", name="b_tag")(x),
        "alarm": layers.Dense(1, activation="sigmoid", name="a_alarm")(x),
    }
    model = tf_keras.Model(entry, outputs)
    model.compile(
        "sgd",
        {"tag": "sparse_categorical_crossentropy", "alarm": "binary_crossentropy"},
        metrics={
            "tag": tf_keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2"),
            "alarm": tf_keras.metrics.AUC(curve="PR", name="pr"),
        },
        weighted_metrics={"tag": ["accuracy"], "alarm": []},
    )
    rng = np.random.default_rng(0)
    images = rng.normal(size=(400, 6)).astype(np.float32)
    labels = {"tag": images[:, :4].argmax(1), "alarm": (images[:, 4] > 0).astype(np.int64)}
    weights = rng.random(400).astype(np.float32)
    data = (images, labels, weights)
    run = tmp_path / "run"
    build(model, data=data, recipe=quick.INT8, out=run)
    report = json.loads((run / "report.json").read_text())
    baseline, integer = report["variants"][0], report["variants"][-1]
    recipe = run / "recipe.toml"
    found = compare(run / baseline["file"], run / integer["file"], data=data, recipe=recipe)["accuracy"]
    assert set(found["metrics"]) == set(baseline["metrics"]) == {"alarm.pr", "tag.top2", "tag.accuracy"}
    for name, pair in found["metrics"].items():
        assert pair["values"] == pytest.approx([variant["metrics"][name]["value"] for variant in (baseline, integer)])
    assert found["primary"] == report["metric"]["name"]
    assert load_recipe(recipe).task.outputs["alarm"].metric["curve"] == "PR"
    assert set(found["outputs"]) == {"alarm", "tag"}
