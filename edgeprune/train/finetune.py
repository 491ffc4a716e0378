"""Fine-tuning, epoch by epoch, so that it can be interrupted at any moment and resumed after the last finished epoch.

After each epoch the whole state (weights, optimizer variables, the best weights so far, the history) is written
atomically. The order of samples is a function of (seed, epoch), so a resumed run sees what an uninterrupted one would
have seen.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.files import atomic_path
from edgeprune.models.finite import first_not_finite
from edgeprune.recipe.config import AugmentConfig, DistillConfig, FinetuneConfig
from edgeprune.tasks.task import evaluation_batch
from edgeprune.train.augmentation import augment, mixing, unmixed, with_changed_sound
from edgeprune.train.distillation import distilling, with_teacher
from edgeprune.train.features import FeatureLessons
from edgeprune.train.machines import divided, in_step
from edgeprune.train.replicas import agree
from edgeprune.train.variables import trainable_kernels

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

    from edgeprune.data import Data
    from edgeprune.progress import Progress
    from edgeprune.tasks.task import Task


@dataclasses.dataclass
class TrainingState:
    """The progress of a fine-tuning after a number of finished epochs.

    Attributes:
        history: one entry per epoch: epoch, loss, metric, val_loss, val_metric, learning_rate.
        best: the weights of the best epoch on validation (``model.get_weights()``), or None before one was eligible.
        best_value: its validation metric.
        best_loss: its validation loss, which decides between epochs of equal metric.
        waited: eligible epochs since the best one.
    """

    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: list[np.ndarray] | None = None
    best_value: float = math.nan
    best_loss: float = math.nan
    waited: int = 0


def steps_per_epoch(data: Data, config: FinetuneConfig) -> int:
    """Optimizer steps in one epoch; the last, smaller batch counts."""
    return math.ceil(data.train.size / config.batch_size)


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What an epoch is made of: the recipe's ``[finetune]``, ``[distill]`` and ``[augment]``, and the teacher."""

    config: FinetuneConfig
    distill: DistillConfig | None = None
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    teacher: tf_keras.Model | None = None

    def trained(self, task: Task, data: Data) -> Task:
        """The task as it is trained."""
        labels = self._augmented(task, data, 0).element_spec[1]
        task = task.training
        task = mixing(task) if self.augment.mixup else task
        return task if self.distill is None else distilling(task, self.distill, labels)

    def features(self, model: tf_keras.Model) -> FeatureLessons | None:
        """The features that ``model`` is to learn, if there are any."""
        if self.distill is None or self.teacher is None or not self.distill.features:
            return None
        return FeatureLessons.of(model, self.teacher, self.distill)

    def training(self, task: Task, data: Data, order: int, features: FeatureLessons | None = None) -> tf.data.Dataset:
        """The batches of one epoch; ``order`` decides the order of the samples and every random change of them."""
        return self._taught(self._augmented(task, data, order), features)

    def validation(self, data: Data, features: FeatureLessons | None = None) -> tf.data.Dataset:
        batches = data.validation.batches(evaluation_batch(data.validation.spec))
        return self._taught(unmixed(batches) if self.augment.mixup else batches, features)

    def _augmented(self, task: Task, data: Data, order: int) -> tf.data.Dataset:
        train = with_changed_sound(data.train, self.augment, order)
        batches = train.batches(self.config.batch_size, shuffle_seed=order)
        if self.augment == AugmentConfig():
            return batches
        changed = augment(batches, self.augment, order, train.preprocessing.sound)
        answer = task.answers
        return changed if answer is None else changed.map(lambda x, *_: (x, answer(x)), num_parallel_calls=1)

    def _taught(self, batches: tf.data.Dataset, features: FeatureLessons | None) -> tf.data.Dataset:
        taught = batches if self.teacher is None else with_teacher(batches, self.teacher)
        return taught if features is None else features.taught(taught)


def finetune(
    model: tf_keras.Model,
    data: Data,
    task: Task,
    lessons: Lessons,
    *,
    seed: int,
    deterministic: bool,
    state_file: Path,
    progress: Progress,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    first_eligible_epoch: int = 0,
    start_epoch: int = 0,
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it with the weights of its best epoch on validation.

    Args:
        state_file: where the state is kept between epochs; training goes on from there if it exists.
        callbacks: Keras callbacks that act within an epoch.
        first_eligible_epoch: the best epoch is chosen from here on (before, a pruning schedule may not be finished).
        start_epoch: number of epochs that the model was trained for before: learning rate and order of samples continue
            from there.

    Returns:
        The history, one entry per epoch.

    Raises:
        ModelError: weights became NaN or infinite.
    """
    if start_epoch >= lessons.config.epochs:  # of a folder of images, even the first batch takes a look at all of them
        compile_for_saving(model, task)
        return []
    config, own_task, task = lessons.config, task, lessons.trained(task, data)
    kept, features = model, lessons.features(model)
    if features is not None:  # trained with more outputs; the layers are the model's own
        model, task = features.student, features.task(task)
    with model.distribute_strategy.scope():  # of edgeprune.train.replicas
        compile_model(model, task, config, total_steps=config.epochs * steps_per_epoch(data, config))
    model.optimizer.iterations.assign(start_epoch * steps_per_epoch(data, config))
    with in_step(model, state_file):
        state = _restore(model, state_file) or TrainingState()
        validation = lessons.validation(data, features)
        reseed = deterministic and _has_random_layers(model)
        progress.begin("fine-tuning", (config.epochs - start_epoch) * steps_per_epoch(data, config))
        progress.advance(len(state.history) * steps_per_epoch(data, config))
        for epoch in range(start_epoch + len(state.history), config.epochs):
            if config.patience is not None and state.waited > config.patience:
                break
            if reseed:
                _reseed(model, seed, epoch)
            order = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
            batches = lessons.training(own_task, data, order, features)
            logs = _run_epoch(model, batches, validation, epoch, [*callbacks, *_progress_callbacks(progress)])
            agree(model)
            _require_finite(model, epoch, config)
            _record(state, model, task, epoch, logs, eligible=epoch >= min(first_eligible_epoch, config.epochs - 1))
            _save(model, state, state_file)
            progress.note(_line(state.history[-1], config.epochs, task.metric))
        progress.end()
    if state.best is not None:
        model.set_weights(state.best)
    # Whoever trains the saved model further gets the task's own loss, not the one with the teacher.
    compile_for_saving(kept, own_task)
    return state.history


def _require_finite(model: tf_keras.Model, epoch: int, config: FinetuneConfig) -> None:
    """An epoch that ends in weights which are no numbers ends the training; what was kept of it is from before."""
    if found := first_not_finite(model):
        raise ModelError(
            f"The training diverged in epoch {epoch + 1}. {found}",
            expected="weights that stay finite.",
            fix=f"lower [finetune] learning_rate: this training began at {config.learning_rate:g}. If that does not "
            "help, values of the model overflow on training data: scale its inputs as they were when it was trained.",
        )


def compile_model(model: tf_keras.Model, task: Task, config: FinetuneConfig, total_steps: int) -> None:
    """Compile for fine-tuning: the optimizer and its schedule from the recipe, loss and metric from the task.

    Weight decay is decoupled: learning rate × decay × weight, whatever the gradient (Loshchilov & Hutter 2019,
    arXiv:1711.05101).
    """
    import tf_keras

    rate: float | tf_keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.decay == "cosine":
        rate = tf_keras.optimizers.schedules.CosineDecay(config.learning_rate, max(total_steps, 1))
    decay = config.weight_decay or None
    optimizers = {
        "adam": lambda: tf_keras.optimizers.Adam(rate, weight_decay=decay),
        "sgd": lambda: tf_keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay),
    }
    optimizer = optimizers[config.optimizer]()
    decayed = {id(weight) for weight in trainable_kernels(model)}
    optimizer.exclude_from_weight_decay([weight for weight in model.trainable_variables if id(weight) not in decayed])
    model.compile(optimizer=optimizer, **task.compile_arguments())
    model.optimizer.build(model.trainable_variables)


def compile_for_saving(model: tf_keras.Model, task: Task) -> None:
    """Compile as whoever trains the saved model further expects it; on the devices that the model was made on."""
    with model.distribute_strategy.scope():
        model.compile(**task.saved_arguments())


def _run_epoch(
    model: tf_keras.Model,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    epoch: int,
    callbacks: list[tf_keras.callbacks.Callback],
) -> dict[str, float]:
    fitted = model.fit(
        divided(batches),
        validation_data=divided(validation),
        initial_epoch=epoch,
        epochs=epoch + 1,
        verbose=0,
        callbacks=callbacks,
    )
    return {name: float(values[-1]) for name, values in fitted.history.items()}


def _record(
    state: TrainingState, model: tf_keras.Model, task: Task, epoch: int, logs: dict[str, float], eligible: bool
) -> None:
    # Keras names them after their outputs as well.
    watched = [metric.name for metric in model.compiled_metrics.metrics]
    rate = model.optimizer.learning_rate
    trained, value = (float(np.mean([logs[prefix + name] for name in watched])) for prefix in ("", "val_"))
    state.history.append(
        {
            "epoch": epoch + 1,
            "loss": logs["loss"],
            "metric": trained,
            "val_loss": logs["val_loss"],
            "val_metric": value,
            "learning_rate": float(rate.numpy() if hasattr(rate, "numpy") else rate),
        }
    )
    if not eligible:
        return
    if _is_better(state, task, value, logs["val_loss"]):
        state.best, state.best_value, state.best_loss = model.get_weights(), value, logs["val_loss"]
        state.waited = 0
    else:
        state.waited += 1


def _is_better(state: TrainingState, task: Task, value: float, loss: float) -> bool:
    """Whether an epoch goes before the best one so far. Of few samples, many epochs answer as many right: the loss
    tells the first of them, at a high learning rate, from those that have settled."""
    if state.best is None or task.better(value, state.best_value):
        return True
    return value == state.best_value and loss < state.best_loss


def _save(model: tf_keras.Model, state: TrainingState, path: Path) -> None:
    """One .npz with everything; it replaces the one before in one step."""
    arrays = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
    arrays |= {f"optimizer_{i}": value.numpy() for i, value in enumerate(model.optimizer.variables)}
    arrays |= {f"best_{i}": value for i, value in enumerate(state.best or [])}
    kept = ("history", "best_value", "best_loss", "waited")
    facts = {name: getattr(state, name) for name in kept}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def _restore(model: tf_keras.Model, path: Path) -> TrainingState | None:
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        groups: dict[str, list[np.ndarray]] = {"weight": [], "optimizer": [], "best": []}
        for kind, values in groups.items():
            while (name := f"{kind}_{len(values)}") in arrays:
                values.append(arrays[name])
        facts = json.loads(str(arrays["facts"]))
    model.set_weights(groups["weight"])
    for variable, value in zip(model.optimizer.variables, groups["optimizer"], strict=True):
        variable.assign(value)
    return TrainingState(best=groups["best"] or None, **facts)


def _has_random_layers(model: tf_keras.Model) -> bool:
    from tf_keras.src.engine.base_layer import BaseRandomLayer

    return any(isinstance(layer, BaseRandomLayer) for layer in model._flatten_layers())


def _reseed(model: tf_keras.Model, seed: int, epoch: int) -> None:
    """Start the random layers of this epoch afresh: their state lives in the traced function and cannot be saved."""
    import tf_keras

    tf_keras.utils.set_random_seed(int(np.random.SeedSequence([seed, epoch, 1]).generate_state(1)[0]))
    model.make_train_function(force=True)


def _progress_callbacks(progress: Progress) -> list[tf_keras.callbacks.Callback]:
    import tf_keras

    return [tf_keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: progress.advance())]


def _line(entry: dict[str, float], epochs: int, metric: str) -> str:
    return (
        f"epoch {entry['epoch']:.0f}/{epochs}: loss {entry['loss']:.4f}, "
        f"validation loss {entry['val_loss']:.4f}, validation {metric} {entry['val_metric']:.4f}"
    )
