"""Our own engine: criteria by hand, dynamic masks, exact resumption, and the sparsity that is asked for."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.progress import Progress
from edgeprune.prune.weights import masked
from edgeprune.prune.weights.engines import check
from edgeprune.prune.weights.schedule import Updates
from edgeprune.recipe.config import FinetuneConfig, TaskConfig, WeightsConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.finetune import Lessons, finetune, steps_per_epoch

X, Y = np.array([[1.0, 2.0, -1.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
KERNEL = np.array([[0.5, -0.2], [0.1, 0.4], [-0.3, 0.2]], np.float32)


def by_hand(steps, rate=0.1):
    """(weights, gradient) before each step of plain gradient descent on mean((xW - y)²) over two outputs."""
    weights, seen = KERNEL.astype(float), []
    for _ in range(steps):
        gradient = X.T @ (X @ weights - Y)  # 2 / outputs = 1
        seen.append((weights.copy(), gradient))
        weights = weights - rate * gradient
    return seen


def linear(criterion):
    import tf_keras

    inputs = tf_keras.Input([3])
    plain = tf_keras.Model(inputs, tf_keras.layers.Dense(2, use_bias=False, name="d")(inputs))
    plain.set_weights([KERNEL])
    model = masked.masked_model(plain, ["d"], criterion)
    model.compile(tf_keras.optimizers.SGD(0.1), "mse")
    return model


def test_taylor_and_movement_rank_as_computed_by_hand():
    """Two steps on one sample. Taylor: mean of |w·g|, recent batches first. Movement: minus the sum of w·g."""
    (w1, g1), (w2, g2) = by_hand(2)
    decayed = masked.MEMORY * np.abs(w1 * g1) * (1 - masked.MEMORY) + (1 - masked.MEMORY) * np.abs(w2 * g2)
    expected = {"taylor": decayed, "movement": -(w1 * g1) - w2 * g2, "magnitude": np.abs(by_hand(3)[2][0])}
    for criterion, scores in expected.items():
        model = linear(criterion)
        for _ in range(2):
            model.fit(X, Y, verbose=0)
        np.testing.assert_allclose(model.scores()[0], scores.T, rtol=1e-4, atol=1e-6)


def test_removed_weights_stay_zero_and_score_last():
    """A mask survives training, and what it removed is ranked below everything that stays."""
    model = linear("taylor")
    mask = np.array([[True, False, True], [True, True, False]])
    model.set_masks([mask])
    model.fit(X, Y, epochs=3, verbose=0)
    assert np.all(masked.strip(model).get_weights()[0].T[~mask] == 0)
    assert np.all(masked.strip(model).get_weights()[0].T[mask] != 0)
    assert np.all(np.isneginf(model.scores()[0][~mask]))


class Stop(Progress):
    def note(self, text):
        raise KeyboardInterrupt


def train(model, data, folder, config, progress=None, epochs=2, watch=()):
    training = FinetuneConfig(epochs=epochs, batch_size=64)
    wrapped, names = masked.wrap(model, config, epochs * steps_per_epoch(data, training), seed=5)
    finetune(
        wrapped,
        data,
        resolve_task(model, TaskConfig(), data),
        Lessons(training),
        seed=0,
        deterministic=True,
        state_file=folder / "state.npz",
        progress=progress or Progress(),
        callbacks=[*masked.callbacks(), *watch],
        first_eligible_epoch=epochs - 1,
    )
    return wrapped, names


@pytest.mark.parametrize(
    "config",
    [
        {"criterion": "taylor", "scope": "global"},
        pytest.param({"criterion": "movement", "granularity": "connection"}, marks=pytest.mark.slow),
        {"schedule": "one_cycle", "granularity": "block:4x2", "regrow": "random"},
        {"granularity": "1:4"},
    ],
)
def test_the_sparsity_is_exact_and_the_pattern_holds_after_stripping(tiny_model, tiny_data, tmp_path, config):
    """Zeros of the plain model, counted by hand; its layers are the original's, and the original is untouched."""
    before = [w.copy() for w in tiny_model.get_weights()]
    config = WeightsConfig(**{"sparsity": 0.75, "exclude": ("conv2d",), **config})
    wrapped, names = train(tiny_model, tiny_data, tmp_path, config, epochs=1)
    stripped = masked.strip(wrapped)
    rows = check(stripped, names, config)
    assert [row["layer"] for row in rows] == ["conv2d_1", "dense"]
    if config.scope == "layer":
        assert all(row["zeros"] == 0.75 * row["size"] for row in rows)
    assert sum(row["zeros"] for row in rows) == 0.75 * sum(row["size"] for row in rows)
    conv = stripped.get_layer("conv2d_1").get_weights()[0]  # height, width, in, out
    if config.granularity == "connection":
        assert set(np.count_nonzero(conv, axis=(0, 1)).ravel()) == {0, 9}
    if config.granularity == "block:4x2":
        blocks = conv.reshape(3, 3, 4, 2, 2, 4)
        assert set(np.count_nonzero(blocks, axis=(3, 5)).ravel()) == {0, 8}
    if config.granularity == "1:4":
        assert np.all(np.count_nonzero(conv.reshape(3, 3, 2, 4, 8), axis=3) == 1)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in tiny_model.layers]
    for old, new in zip(before, tiny_model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow  # on two devices: tests/train/test_replicas.py
@pytest.mark.parametrize("config", [{"criterion": "movement", "regrow": "gradient"}, {"regrow": "random"}])
def test_resumed_equals_unbroken(tiny_model, tiny_data, tmp_path, config):
    """Broken off after an epoch and started again: weights, masks and scores are the same to the last bit."""
    config = WeightsConfig(sparsity=0.6, end=0.9, **config)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, _ = train(tiny_model, tiny_data, tmp_path / "a", config)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model, tiny_data, tmp_path / "b", config, Stop())
    resumed, _ = train(tiny_model, tiny_data, tmp_path / "b", config)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("regrow", representatives(["gradient", "random"], "gradient"))
def test_dynamic_training_keeps_its_sparsity_and_regrows(tiny_model, tiny_data, tmp_path, regrow):
    """RigL, SET: from the first step on the number of zeros is constant, while weights come back and are trained."""
    import tf_keras

    masks = []

    class Watch(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks.append(np.concatenate([mask.ravel() for mask in self.model.masks()]))

    config = WeightsConfig(sparsity=0.6, schedule="constant", regrow=regrow, end=0.8)
    wrapped, _ = train(tiny_model, tiny_data, tmp_path, config, epochs=1, watch=[Watch()])
    assert len({int(mask.sum()) for mask in masks}) == 1
    assert masks[0].sum() < 0.41 * masks[0].size
    back = masks[-1] & ~np.all(masks, axis=0)
    assert back.sum() > 20
    weights = np.concatenate([p.kernel.to_tflite(p.kernel.variable.numpy()).ravel() for p in wrapped.pruned])
    assert np.mean(weights[back] != 0) > 0.9
    assert np.all(weights[~masks[-1]] == 0)


def test_rigl_grows_where_the_gradient_is_largest():
    """One update on the linear model: the weight that comes is the removed one with the largest gradient."""
    import tf_keras

    model = linear("magnitude")
    plain = masked.strip(model)
    model = masked.masked_model(plain, ["d"], "magnitude", by_gradient=True)
    model.compile(tf_keras.optimizers.SGD(0.0), "mse")
    config = WeightsConfig(sparsity=0.5, schedule="constant", regrow="gradient", regrow_fraction=0.4)
    model.fit(X, Y, verbose=0)
    masked.MaskSchedule(config, Updates(1, 10, 1), 0).update(model, 1)
    # Kept by magnitude: 0.5, 0.4, -0.3; one of three, the smallest, goes. Gradients: [-0.0, 0.4] x [1, 2, -1].
    gradient = np.abs(by_hand(1)[0][1]).T
    kept = np.array([[True, False, False], [False, True, False]])
    wanted = np.where(kept, -1, gradient)
    kept[np.unravel_index(np.argmax(wanted), wanted.shape)] = True
    np.testing.assert_array_equal(model.masks()[0], kept)
