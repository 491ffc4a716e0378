"""Lottery tickets: early weights under a mask, fresh weights from initializers."""

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.prune.weights import lottery
from edgeprune.prune.weights.masked import masked_model, strip
from edgeprune.recipe.config import WeightsConfig


def test_rewound_weights_equal_the_early_ones_under_the_mask(tiny_model, tmp_path):
    """Saved and loaded, then masked: kept weights are the early ones to the last bit, removed ones zero."""
    trained = masked_model(tiny_model, ["conv2d_1", "dense"])
    config = WeightsConfig(sparsity=0.8, scope="global")
    masks = lottery.next_masks(trained, config, 0.8)
    early = lottery.reinitialized(tiny_model, 7)
    lottery.save_arrays(early.get_weights(), tmp_path / "early.npz")
    lottery.save_arrays(masks, tmp_path / "masks.npz")
    early.set_weights(lottery.load_arrays(tmp_path / "early.npz"))
    rewound = masked_model(early, ["conv2d_1", "dense"])
    rewound.set_masks(lottery.load_arrays(tmp_path / "masks.npz"))
    for layer, mask in zip(("conv2d_1", "dense"), masks, strict=True):
        kernel = strip(rewound).get_layer(layer).get_weights()[0]
        expected = np.where(np.moveaxis(mask, 0, -1), early.get_layer(layer).get_weights()[0], 0)
        np.testing.assert_array_equal(kernel, expected)
    np.testing.assert_array_equal(
        rewound.get_layer("conv2d").get_weights()[0], early.get_layer("conv2d").get_weights()[0]
    )
    assert sum(np.sum(~mask) for mask in masks) == round(0.8 * sum(mask.size for mask in masks))


def test_reinitialized_weights_come_from_the_seed_alone():
    """Same seed, same weights; another seed, others, even if initializers bring seeds; frozen layers keep theirs."""
    import tf_keras

    inputs = tf_keras.Input([4])
    start = tf_keras.initializers.HeNormal(seed=3)
    x = tf_keras.layers.Dense(5, kernel_initializer=start, name="a")(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2, trainable=False, name="frozen")(x))
    one, same, other = (lottery.reinitialized(model, seed).get_weights() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], same[0])
    assert not np.allclose(one[0], other[0])
    assert not np.allclose(one[0], model.get_weights()[0])
    np.testing.assert_array_equal(one[2], model.get_weights()[2])


def test_a_part_that_is_frozen_keeps_its_weights():
    """Of a bidirectional layer, the frozen direction starts with what it had, the other one anew."""
    import tf_keras

    inputs = tf_keras.Input([4, 3])
    both = tf_keras.layers.Bidirectional(tf_keras.layers.GRU(2), name="both")
    model = tf_keras.Model(inputs, both(inputs))
    both.forward_layer.trainable = False
    fresh = lottery.reinitialized(model, 1).get_layer("both")
    for old, new in zip(both.forward_layer.get_weights(), fresh.forward_layer.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert not np.allclose(both.backward_layer.get_weights()[0], fresh.backward_layer.get_weights()[0])


def test_rounds_remove_equal_shares_of_what_is_left():
    """75 % in two rounds: half, then half of the rest."""
    config = WeightsConfig(sparsity=0.75)
    assert [lottery.round_sparsity(config, number, 2) for number in (1, 2)] == pytest.approx([0.5, 0.75])


def test_initial_weights_of_another_architecture_are_refused(tiny_model, tmp_path):
    """The user's own early weights are taken if they fit."""
    import tf_keras

    fresh = lottery.reinitialized(tiny_model, 4)
    fresh.save(tmp_path / "fresh.keras")
    taken = lottery.load_initial(str(tmp_path / "fresh.keras"), tiny_model, trust=False)
    for a, b in zip(taken.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    inputs = tf_keras.Input([3])
    tf_keras.Model(inputs, tf_keras.layers.Dense(2)(inputs)).save(tmp_path / "other.keras")
    with pytest.raises(ModelError, match="do not fit"):
        lottery.load_initial(str(tmp_path / "other.keras"), tiny_model, trust=False)


def test_the_early_weights_are_those_of_the_epoch(tiny_model, tiny_data, tmp_path):
    """What is kept on the way equals, to the last bit, what a training broken off after that epoch has."""
    from edgeprune.progress import Progress
    from edgeprune.recipe.config import FinetuneConfig, TaskConfig
    from edgeprune.tasks.resolve import resolve_task
    from edgeprune.train.finetune import Lessons, finetune

    class Stop(Progress):
        def note(self, text):
            raise KeyboardInterrupt

    def train(progress, state, callbacks=()):
        model = masked_model(lottery.reinitialized(tiny_model, 3), ["dense"])
        task, lessons = resolve_task(tiny_model, TaskConfig(), tiny_data), Lessons(FinetuneConfig(epochs=2))
        finetune(model, tiny_data, task, lessons, seed=0, deterministic=False, state_file=tmp_path / state,
                 progress=progress, callbacks=callbacks)  # fmt: skip

    train(Progress(), "whole.npz", [lottery.save_at(1, tmp_path / "early.npz")])
    with pytest.raises(KeyboardInterrupt):
        train(Stop(), "broken.npz")
    with np.load(tmp_path / "broken.npz") as state:
        early = lottery.load_arrays(tmp_path / "early.npz")
        for number, weight in enumerate(early):
            np.testing.assert_array_equal(weight, state[f"weight_{number}"])
