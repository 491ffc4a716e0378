"""Fine-tuning: a training that was broken off and resumed equals an unbroken one; the best epoch is kept."""

import dataclasses

import numpy as np
import pytest
from matrix import representatives

from edgeprune.data import InputSpec, load_data
from edgeprune.errors import ModelError
from edgeprune.progress import Progress
from edgeprune.prune import penalties
from edgeprune.prune.weights import magnitude, masked
from edgeprune.recipe.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    FinetuneConfig,
    SparsifyConfig,
    TaskConfig,
    WeightsConfig,
)
from edgeprune.tasks.resolve import resolve_task
from edgeprune.train.finetune import Lessons, finetune


def make_model(dropout=0.3):
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    x = inputs = layers.Input([16, 16, 1])
    x = layers.Conv2D(4, 3, strides=4)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(dropout)(layers.ReLU()(x))
    x = layers.Dense(10, activation="softmax")(layers.Flatten()(x))
    return tf_keras.Model(inputs, x)


@pytest.fixture(scope="module")
def data():
    return load_data("demo", DataConfig(scale=1 / 255), InputSpec.of(make_model()), seed=0)


class Stop(Progress):
    """Breaks off after a number of epochs, as Ctrl-C would."""

    def __init__(self, after):
        self.left = after

    def note(self, text):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def train(data, state, progress=None, deterministic=False, **config):
    model = make_model()
    task = resolve_task(model, TaskConfig(), data)
    config = FinetuneConfig(**{"epochs": 4, **config})
    # With dropout, a deterministic training traces the model anew for every epoch.
    arguments = {"seed": 3, "deterministic": deterministic, "state_file": state, "progress": progress or Progress()}
    return model, finetune(model, data, task, Lessons(config), **arguments)


@pytest.mark.parametrize("epochs_before", representatives([1, 3], 1))
def test_resumed_equals_unbroken(data, tmp_path, epochs_before):
    """Weights and history are the same to the last bit: optimizer, order of samples and dropout included."""
    options = {"deterministic": True, "epochs": epochs_before + 1}
    whole, history = train(data, tmp_path / "a.npz", **options)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "b.npz", Stop(epochs_before), **options)
    resumed, again = train(data, tmp_path / "b.npz", **options)
    assert again == history
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_model_ends_with_the_weights_of_its_best_epoch(data, tmp_path):
    """Its validation metric is the best of the history, not the last."""
    from edgeprune.evaluate.accuracy import evaluate_keras

    model, history = train(data, tmp_path / "s.npz", learning_rate=0.5, decay="constant", optimizer="sgd")
    task = resolve_task(model, TaskConfig(), data)
    values = [entry["val_metric"] for entry in history]
    assert evaluate_keras(model, data.validation, task) == pytest.approx(max(values), abs=1e-6)


def test_of_epochs_with_equal_metric_the_one_of_least_loss_is_kept(data, tmp_path):
    """On two validation samples most epochs answer the same: the first of them, at a high rate, has not settled."""
    few = dataclasses.replace(data, validation=data.validation.subset(np.arange(2)))
    model, history = train(few, tmp_path / "s.npz", epochs=5, deterministic=True)
    best = max(entry["val_metric"] for entry in history)
    losses = [entry["val_loss"] for entry in history if entry["val_metric"] == best]
    assert min(losses) < losses[0]
    loss = model.evaluate(few.validation.batches(2), verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(min(losses), rel=1e-5)


def test_early_stopping_waits_and_then_stops(data, tmp_path):
    """With a learning rate that ruins the model, training ends before its time."""
    _, history = train(data, tmp_path / "s.npz", learning_rate=50.0, decay="constant", epochs=30, patience=1)
    assert len(history) < 30


def test_a_training_that_diverges_ends_with_the_epoch_and_what_to_lower(data, tmp_path):
    """Weights that are no numbers are an error, and not what a later stage says of zeros or figures."""
    with pytest.raises(ModelError, match=r"diverged in epoch 1\..*NaN or infinite") as caught:
        train(data, tmp_path / "state.npz", learning_rate=1e38, epochs=2)
    assert "lower [finetune] learning_rate: this training began at 1e+38" in caught.value.fix
    assert not (tmp_path / "state.npz").exists()


def test_cosine_decay_goes_to_zero(data, tmp_path):
    """The learning rate falls from epoch to epoch and ends near zero."""
    _, history = train(data, tmp_path / "s.npz")
    rates = [entry["learning_rate"] for entry in history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-6


def partly_frozen():
    """A frozen convolution and normalization, a recurrent layer of which one direction is frozen, and a head."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    x = inputs = layers.Input([16, 16, 1])
    x = layers.BatchNormalization(trainable=False, name="norm")(
        layers.Conv2D(4, 3, strides=4, trainable=False, name="stem")(x)
    )
    both = layers.Bidirectional(layers.SimpleRNN(3), name="both")  # a GRU takes several times as long to trace
    x = both(layers.Reshape([16, 4])(x))
    both.forward_layer.trainable = False
    return tf_keras.Model(inputs, layers.Dense(10, "softmax", name="head")(x))


# What is around a training → how the model is wrapped for it, how it is unwrapped, and the callbacks.
AROUND = {
    "nothing": (lambda model: model, lambda model, trained: trained, tuple),
    "teacher": (lambda model: model, lambda model, trained: trained, tuple),
    "penalty": (
        lambda model: penalties.penalized(model, SparsifyConfig(weights_l1=0.1)),
        lambda model, trained: model,
        tuple,
    ),
    "tfmot": (
        lambda model: magnitude.wrap(model, WeightsConfig(), 6)[0],
        lambda model, trained: magnitude.strip(trained),
        magnitude.callbacks,
    ),
    "masks": (
        lambda model: masked.wrap(model, WeightsConfig(criterion="taylor"), 6)[0],
        lambda model, trained: masked.strip(trained),
        masked.callbacks,
    ),
}


# A penalty and a teacher add to the loss only; these wrap layers or change weights.
@pytest.mark.parametrize("around", representatives(AROUND, "tfmot", "masks"))
def test_frozen_layers_stay_frozen(data, tmp_path, around):
    """Whatever is around the training: frozen weights are what they were, but for those that pruning zeroes."""
    model, original = partly_frozen(), partly_frozen()
    wrap, unwrap, callbacks = AROUND[around]
    trained, task = wrap(model), resolve_task(model, TaskConfig(), data)
    taught = (DistillConfig(), AugmentConfig(), original) if around == "teacher" else ()
    lessons = Lessons(FinetuneConfig(epochs=1, batch_size=256, weight_decay=0.1), *taught)
    options = {"deterministic": False, "state_file": tmp_path / "state.npz", "progress": Progress()}
    finetune(trained, data, task, lessons, seed=0, callbacks=callbacks(), **options)
    found, before = ({layer.name: layer for layer in m.layers} for m in (unwrap(model, trained), original))
    for layers in (found, before):
        layers["forward"], layers["backward"] = layers["both"].forward_layer, layers["both"].backward_layer
    for name in ("stem", "norm", "forward"):
        assert not found[name].trainable
        for old, new in zip(before[name].get_weights(), found[name].get_weights(), strict=True):
            np.testing.assert_array_equal(new[new != 0], old[new != 0])
    for name in ("backward", "head"):
        assert found[name].trainable
        assert not np.array_equal(found[name].get_weights()[-1], before[name].get_weights()[-1])


def test_without_epochs_no_data_are_read(data, tmp_path):
    """The first batch of a folder of images takes a look at all of them; nobody waits for that who trains nothing."""
    blank = dataclasses.replace(data, train=None)
    model = make_model()
    before = [weight.copy() for weight in model.get_weights()]
    arguments = {"seed": 0, "deterministic": False, "state_file": tmp_path / "a.npz", "progress": Progress()}
    task = resolve_task(model, TaskConfig(), data)
    assert finetune(model, blank, task, Lessons(FinetuneConfig(epochs=0)), **arguments) == []
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.optimizer is not None
    assert not (tmp_path / "a.npz").exists()
