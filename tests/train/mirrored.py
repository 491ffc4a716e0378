"""Run by test_replicas.py in a process of two logical devices: trains on one and on both, and prints what came out."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

from edgeprune._tensorflow import import_tf

tf = import_tf()
if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )

import numpy as np  # noqa: E402
import tf_keras  # noqa: E402

from edgeprune.data import InputSpec, load_data  # noqa: E402
from edgeprune.errors import RecipeError  # noqa: E402
from edgeprune.progress import Progress  # noqa: E402
from edgeprune.prune import penalties  # noqa: E402
from edgeprune.prune.weights.engines import engine_for  # noqa: E402
from edgeprune.quantize.qat import Preserved, prepare_training  # noqa: E402
from edgeprune.recipe.config import (  # noqa: E402
    DataConfig,
    DistillConfig,
    FinetuneConfig,
    SparsifyConfig,
    TaskConfig,
    WeightsConfig,
)
from edgeprune.tasks.resolve import resolve_task  # noqa: E402
from edgeprune.train.finetune import Lessons, finetune  # noqa: E402
from edgeprune.train.replicas import replicated  # noqa: E402

EPOCHS = 2
BATCH = 64


def make_model(normalized=False):
    """Normalization and dropout are each replica's own; without them, what is learned is the same to rounding."""
    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    x = inputs = layers.Input([16, 16, 1])
    x = layers.Conv2D(4, 3, strides=4, name="first")(x)
    x = layers.Dropout(0.3)(layers.BatchNormalization(momentum=0.9)(x)) if normalized else x
    x = layers.Dense(10, activation="softmax", name="last")(layers.Flatten()(layers.ReLU()(x)))
    return tf_keras.Model(inputs, x)


def even_batches():
    data = load_data("demo", DataConfig(scale=1 / 255), InputSpec.of(make_model()), seed=0)
    return dataclasses.replace(data, train=data.train.subset(np.arange(8 * BATCH)))


DATA = even_batches()
STEPS = EPOCHS * 8


def plain(model):
    return model, lambda trained: trained, ()


def penalized(model):
    return penalties.penalized(model, SparsifyConfig(weights_l1=0.001)), lambda _: model, ()


def pruned(model):
    return with_engine(model, WeightsConfig(sparsity=0.5))


def regrown(model):
    return with_engine(model, WeightsConfig(sparsity=0.5, criterion="taylor", regrow="gradient"))


def with_engine(model, config):
    engine = engine_for(model, config)
    wrapped, _ = engine.wrap(model, config, STEPS, 0)
    return wrapped, engine.strip, engine.callbacks()


def for_int8(model):
    samples = (x for x, *_ in DATA.train.batches(BATCH, indices=np.arange(BATCH)))
    trainee = prepare_training(model, samples, Preserved())
    return trainee.model, lambda _: trainee.baked(), ()


WRAPPED = {"penalized": penalized, "pruned": pruned, "regrown": regrown, "int8": for_int8}


class Interrupted(Progress):
    """Keeps what is on disk after the first epoch: what a training that is broken off there leaves behind."""

    def __init__(self, state, left):
        self.state, self.left = state, left

    def note(self, text):
        if not self.left.exists():
            self.left.parent.mkdir(exist_ok=True)
            shutil.copyfile(self.state, self.left)


def train(case, strategy, state, progress=None):
    """The model that was trained, the weights that are left without what was around it, and the history."""
    config = FinetuneConfig(
        strategy=strategy, epochs=EPOCHS, batch_size=BATCH, optimizer="sgd", learning_rate=0.02, weight_decay=0.01
    )
    with replicated(config):
        model, strip, callbacks = WRAPPED.get(case, plain)(make_model(normalized=case == "normalized"))
    taught = {"distill": DistillConfig(), "teacher": make_model()} if case == "teacher" else {}
    options = {"seed": 3, "deterministic": True, "state_file": state, "progress": progress or Progress()}
    task = resolve_task(model, TaskConfig(), DATA)
    lessons = Lessons(config, **taught)
    history = finetune(model, DATA, task, lessons, callbacks=callbacks, first_eligible_epoch=EPOCHS - 1, **options)
    return model, strip(model).get_weights(), history


def compared(case, folder):
    """What comes out on one device, on both, and on both after an interruption."""
    state, left = folder / f"{case}-mirrored.npz", folder / f"{case}-left.npz"
    _, alone, history = train(case, "none", folder / f"{case}-alone.npz")
    model, together, mirrored = train(case, "mirrored", state, Interrupted(state, left))
    _, resumed, gone_on = train(case, "mirrored", left)
    return {
        "replicas": model.distribute_strategy.num_replicas_in_sync,
        "difference": max(float(np.abs(a - b).max()) for a, b in zip(alone, together, strict=True)),
        "losses": [history[-1]["val_loss"], mirrored[-1]["val_loss"]],
        "resumes": mirrored == gone_on and all(map(np.array_equal, together, resumed)),
        "zeros": float(np.mean(together[0] == 0)),
    }


def refused(batch_size):
    """The message about batches of this size."""
    try:
        with replicated(FinetuneConfig(strategy="mirrored", batch_size=batch_size)):
            return ""
    except RecipeError as error:
        return str(error)


if __name__ == "__main__":
    cases = {case: compared(case, Path(sys.argv[1])) for case in sys.argv[2:]}
    print(json.dumps({"cases": cases, "refused": refused(33)}))
