"""Penalties: their value is the formula's, training makes small what they name, and nothing of them is saved."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import RecipeError
from edgeprune.progress import Progress
from edgeprune.prune import penalties
from edgeprune.recipe.config import FinetuneConfig, SparsifyConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.finetune import Lessons, compile_model, finetune
from edgeprune.train.variables import trainable_kernels


@pytest.fixture
def copy(tiny_model):
    """``copy()``: the tiny model with its trained weights, to be changed."""
    import tf_keras

    def make():
        made = tf_keras.models.clone_model(tiny_model)
        made.set_weights(tiny_model.get_weights())
        return made

    return make


def value(model, name):
    return float(penalties.PENALTIES[name](model)())


def train(model, data, folder, progress=None, epochs=2, **config):
    settings = SparsifyConfig(**config)
    task = resolve_task(model, TaskConfig(), data)
    arguments = {"seed": 0, "deterministic": True, "progress": progress or Progress(), "first_eligible_epoch": epochs}
    shell = penalties.penalized(model, settings)
    lessons = Lessons(FinetuneConfig(epochs=epochs, learning_rate=1e-2))
    return finetune(shell, data, task, lessons, state_file=folder / "state.npz", **arguments)


def test_weights_l1_is_the_sum_of_absolute_kernels(tiny_model):
    """Convolutions and the dense layer count; biases and batch normalization do not."""
    layers = [tiny_model.get_layer(name) for name in ("conv2d", "conv2d_1", "dense")]
    expected = sum(np.abs(layer.get_weights()[0]).sum() for layer in layers)
    assert value(tiny_model, "weights_l1") == pytest.approx(expected, rel=1e-5)


def test_bn_l1_is_the_sum_of_absolute_scales(copy):
    """Scales of either sign count by their magnitude."""
    import tf_keras

    model = copy()
    norms = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    norms[0].gamma.assign([-1.0, 2.0] * 4)
    expected = 12.0 + np.abs(norms[1].gamma.numpy()).sum()
    assert value(model, "bn_l1") == pytest.approx(expected, rel=1e-5)


def test_group_lasso_is_the_sum_of_norms_over_all_that_makes_a_channel(tiny_model):
    """The two convolutions that an addition ties together have one norm per channel; the outputs have none."""
    kernels = [tiny_model.get_layer(name).get_weights()[0] for name in ("conv2d", "conv2d_1")]
    rows = np.concatenate([kernel.reshape(-1, 8) for kernel in kernels])
    assert value(tiny_model, "group_lasso") == pytest.approx(np.sqrt(np.square(rows).sum(0)).sum(), rel=1e-5)


def test_group_lasso_has_a_gradient_where_a_channel_is_zero(copy):
    """A channel whose weights are all zero gives a gradient of zero, not NaN."""
    import tensorflow as tf

    model = copy()
    for name in ("conv2d", "conv2d_1"):
        model.get_layer(name).kernel.assign(model.get_layer(name).kernel.numpy() * ([0] + [1] * 7))
    weight = model.get_layer("conv2d").kernel
    penalty = penalties.group_lasso(model)
    with tf.GradientTape() as tape:
        found = penalty()
    gradient = tape.gradient(found, weight).numpy()
    assert np.isfinite(gradient).all()
    assert not gradient[..., 0].any()
    assert gradient[..., 1].any()


@pytest.mark.parametrize("name", representatives(penalties.PENALTIES, "group_lasso"))
def test_training_with_a_penalty_makes_it_smaller(copy, tiny_data, tmp_path, name):
    """Than the same training with next to none of it does."""
    found = {}
    for weight in (1e-12, 0.2):
        model, folder = copy(), tmp_path / str(weight)
        folder.mkdir()
        history = train(model, tiny_data, folder, epochs=1, **{name: weight})
        found[weight] = value(model, name)
        assert len(history) == 1
    assert found[0.2] < 0.9 * found[1e-12]


def test_the_saved_model_has_no_penalty(copy, tiny_data, tmp_path):
    """Neither the model in memory nor the file has a loss beside the task's."""
    from edgeprune.models.load import load_model
    from edgeprune.models.save import save_model

    model = copy()
    train(model, tiny_data, tmp_path, epochs=1, bn_l1=0.1, group_lasso=0.1, weights_l1=0.1)
    assert model.losses == []
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.losses == []
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


@pytest.mark.slow  # a penalty has no state; tests/train/test_finetune.py
def test_a_penalized_training_resumes(copy, tiny_data, tmp_path):
    """Broken off after one epoch and resumed, it ends with the weights of an unbroken one, to the last bit."""

    class Stop(Progress):
        def note(self, text):
            raise KeyboardInterrupt

    models = []
    for folder in (tmp_path / "whole", tmp_path / "broken"):
        folder.mkdir()
        if folder.name == "broken":
            with pytest.raises(KeyboardInterrupt):
                train(copy(), tiny_data, folder, Stop(), bn_l1=0.01)
        models.append(copy())
        train(models[-1], tiny_data, folder, bn_l1=0.01)
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_penalty_without_anything_to_act_on_is_refused():
    """The message names the key, what it needs, and the other penalties."""
    import tf_keras

    inputs = tf_keras.layers.Input([3])
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(inputs))
    with pytest.raises(RecipeError, match=r"\[sparsify\] bn_l1 has nothing[\s\S]*BatchNormalization[\s\S]*weights_l1"):
        penalties.penalized(model, SparsifyConfig(bn_l1=0.1))
    with pytest.raises(RecipeError, match="group_lasso"):
        penalties.penalized(model, SparsifyConfig(group_lasso=0.1))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weight_decay_shrinks_kernels_alone(copy, tiny_data, optimizer):
    """With gradients of zero a step multiplies kernels by 1 - rate × decay, and leaves everything else as it is."""
    import tensorflow as tf

    model = copy()
    task = resolve_task(model, TaskConfig(), tiny_data)
    config = FinetuneConfig(learning_rate=0.1, decay="constant", weight_decay=0.5, optimizer=optimizer)
    compile_model(model, task, config, total_steps=10)
    before = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    for variable, old in zip(model.trainable_variables, before, strict=True):
        factor = 0.95 if "kernel" in variable.name else 1.0
        np.testing.assert_allclose(variable.numpy(), factor * old, rtol=1e-5, err_msg=variable.name)


def test_biases_of_higher_rank_are_no_kernels():
    """The biases of attention heads and gates are matrices, and biases all the same."""
    import tf_keras

    inputs = tf_keras.layers.Input([4, 6])
    x = tf_keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = tf_keras.layers.LayerNormalization(axis=[1, 2])(x)
    model = tf_keras.Model(inputs, tf_keras.layers.GRU(5, name="gates")(x))
    names = sorted(variable.name.rpartition("/")[2] for variable in trainable_kernels(model))
    assert names == ["kernel:0"] * 5 + ["recurrent_kernel:0"]
