"""Magnitude pruning: the sparsity asked for is there at the end, whatever the length of the training."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.progress import Progress
from edgeprune.prune.weights import magnitude
from edgeprune.prune.weights.engines import check
from edgeprune.recipe.config import FinetuneConfig, TaskConfig, WeightsConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.finetune import Lessons, finetune, steps_per_epoch


@pytest.mark.parametrize("schedule", ["cubic", "constant", "one_shot", "exponential"])
@pytest.mark.parametrize("total_steps", representatives([2, 3, 7, 36, 99, 1000], 2, 3, 7, 36, 99))
def test_the_last_update_falls_within_training_and_reaches_the_target(schedule, total_steps):
    """For every length of training there is an update at full sparsity before the last step."""
    made = magnitude.schedule(WeightsConfig(sparsity=0.75, schedule=schedule, begin=0.1, end=0.9), total_steps)
    updates = [s for s in range(total_steps + 1) if bool(made(s)[0])]
    assert updates, "no update at all"
    assert float(made(updates[-1])[1]) == pytest.approx(0.75)
    assert updates[-1] == made.get_config()["config"]["end_step"] < total_steps


@pytest.mark.parametrize("schedule", representatives(["polynomial", "constant", "one_cycle"], "one_cycle"))
def test_the_sparsity_asked_for_is_in_the_stripped_model(tiny_model, tiny_data, tmp_path, schedule):
    """After fine-tuning and stripping: zeros as asked, names and architecture as before, the original untouched."""
    before = [w.copy() for w in tiny_model.get_weights()]
    config, training = WeightsConfig(sparsity=0.7, schedule=schedule, exclude=("dense*",)), FinetuneConfig(epochs=1)
    wrapped, names = magnitude.wrap(tiny_model, config, steps_per_epoch(tiny_data, training))
    finetune(
        wrapped,
        tiny_data,
        resolve_task(tiny_model, TaskConfig(), tiny_data),
        Lessons(training),
        seed=0,
        deterministic=False,
        state_file=tmp_path / "state.npz",
        progress=Progress(),
        callbacks=magnitude.callbacks(),
    )
    stripped = magnitude.strip(wrapped)
    rows = check(stripped, names, config)
    assert [row["layer"] for row in rows] == ["conv2d", "conv2d_1"]
    for row in rows:
        kernel = stripped.get_layer(row["layer"]).get_weights()[0]
        assert np.mean(kernel == 0) == pytest.approx(0.7, abs=1.5 / kernel.size)
    assert np.mean(stripped.get_layer("dense").get_weights()[0] == 0) == 0
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in tiny_model.layers]
    for old, new in zip(before, tiny_model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
