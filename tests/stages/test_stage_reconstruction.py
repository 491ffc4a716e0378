"""A repair is kept only where validation is no worse for it."""

from types import SimpleNamespace

import numpy as np
import pytest
import tf_keras

from edgeprune.data import InputSpec, load_data
from edgeprune.progress import Progress
from edgeprune.recipe.config import DataConfig, TaskConfig
from edgeprune.stages.reconstruction import undo_if_worse
from edgeprune.tasks.resolve import resolve_task

FIGURES = [(0.8, 0.81, False), (0.8, 0.8, False), (0.8, 0.79, True), (0.8, np.nan, True), (np.nan, np.nan, True)]


@pytest.mark.parametrize(("before", "after", "expected"), FIGURES)
def test_a_repair_that_makes_validation_worse_undo_if_worse(before, after, expected):
    """So is one after which the figure is no number; the model then has the weights and the figure from before."""
    model = tf_keras.Sequential([tf_keras.layers.Input((2,)), tf_keras.layers.Dense(3, "softmax")])
    data = load_data((np.zeros((30, 2), np.float32), np.arange(30) % 3), DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data)
    old = model.get_weights()
    model.set_weights([weight + 1 for weight in old])
    validation = {"pruned": before, "reconstructed": after}
    context = SimpleNamespace(progress=Progress())
    assert undo_if_worse(model, old, validation, task, context) is expected
    for now, was in zip(model.get_weights(), old, strict=True):
        np.testing.assert_array_equal(now, was + (not expected))
    assert validation["reconstructed"] == pytest.approx(before if expected else after, nan_ok=True)
