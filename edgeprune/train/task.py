"""What a model is trained for: its loss, and the metric that is reported.

Taken from the recipe, else from how the model was compiled, else classification as its output suggests.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.code import load_function
from edgeprune.errors import DataError, RecipeError
from edgeprune.models.types import Structure
from edgeprune.recipe.config import TaskConfig
from edgeprune.selection import drop_points

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

    from edgeprune.data import Data

# What tf_keras.Model.compile takes as a loss: a name, a function or an object, or nested ones, one per output.
Loss = Any

# Metrics whose smaller value is the better one. Every other Keras metric is taken as higher-is-better.
LOWER_IS_BETTER = {
    "mae", "mean_absolute_error", "mse", "mean_squared_error", "rmse", "root_mean_squared_error", "mape",
    "mean_absolute_percentage_error", "msle", "mean_squared_logarithmic_error", "binary_crossentropy",
    "categorical_crossentropy", "sparse_categorical_crossentropy", "kl_divergence", "poisson", "logcosh", "hinge",
}  # fmt: skip
# Metrics that are a fraction, and whose differences people give in percentage points.
FRACTIONS = {
    "accuracy", "acc", "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy", "auc", "precision",
    "recall", "top_k_categorical_accuracy", "sparse_top_k_categorical_accuracy", "f1_score", "mean_io_u",
}  # fmt: skip
# Loss → what "accuracy" means, and the metric reported where the recipe and the model name none.
ACCURACY_OF = {
    "sparse_categorical_crossentropy": "sparse_categorical_accuracy",
    "categorical_crossentropy": "categorical_accuracy",
    "binary_crossentropy": "binary_accuracy",
    "binary_focal_crossentropy": "binary_accuracy",
}
# A loss over classes → its twin for the other form of label (class numbers, or one-hot rows).
FOR_CLASS_NUMBERS = {"categorical_crossentropy": "sparse_categorical_crossentropy"}
FOR_ONE_HOT = {twin: loss for loss, twin in FOR_CLASS_NUMBERS.items()}
CLASS_LOSSES = {
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "binary_crossentropy": "BinaryCrossentropy",
}


@dataclasses.dataclass(frozen=True)
class Task:
    """A loss to train with and a metric to report.

    Attributes:
        loss: what ``tf_keras.Model.compile`` takes.
        metric: name of the metric, for people.
        new_metric: makes a fresh ``tf_keras`` metric over (labels, outputs).
        higher_is_better: direction of the metric.
        points: factor from a difference of the metric to points: 100 for fractions, 1 otherwise.
        classes: number of classes of a classification with one label per sample, else None.
    """

    loss: Loss
    metric: str
    new_metric: Callable[[], tf_keras.metrics.Metric]
    higher_is_better: bool
    points: float
    classes: int | None

    def loss_function(self) -> Callable[..., tf.Tensor]:
        """The loss over a batch (labels, outputs[, weight per sample]) as one number, for one output or several."""
        import tensorflow as tf
        from tf_keras.src.engine.compile_utils import LossesContainer

        container = LossesContainer(self.loss)
        return lambda *batch: container(*tf.nest.map_structure(tf.convert_to_tensor, batch))

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is strictly better than ``b``."""
        return a > b if self.higher_is_better else a < b

    def drop(self, baseline: float, value: float) -> float:
        """How much worse ``value`` is than ``baseline``, in points (negative: better)."""
        return drop_points(self, baseline, value)


def metric_over(
    task: Task, choose: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> Callable[[], tf_keras.metrics.Metric]:
    """The task's metric over labels that stand for others: ``choose(labels, outputs) -> labels of the task``."""
    import tf_keras

    class Over(tf_keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name=task.metric)
            self.inner = task.new_metric()

        def update_state(self, labels: tf.Tensor, outputs: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
            self.inner.update_state(choose(labels, outputs), outputs)

        def result(self) -> tf.Tensor:
            return self.inner.result()

        def reset_state(self) -> None:
            self.inner.reset_state()

    return Over


def resolve_task(model: tf_keras.Model, config: TaskConfig, labels: Structure) -> Task:
    """Decide loss and metric.

    Args:
        model: with its compile information, if it had any.
        config: the recipe's ``[task]``.
        labels: a batch of labels from the data, to tell class numbers from one-hot rows.

    Raises:
        RecipeError: an unknown loss or metric, or a function whose direction is not given.
    """
    first = np.asarray(labels[0] if isinstance(labels, tuple | list) else labels)
    loss = _loss(model, config, first)
    name = _name(loss)
    metric = config.metric or _compiled_metric(model) or ACCURACY_OF.get(name, "mae")
    if metric in ("accuracy", "acc") and name in ACCURACY_OF:
        metric = ACCURACY_OF[name]
    label, make, higher = _metric(metric, config, loss)
    one_label = name in ("sparse_categorical_crossentropy", "categorical_crossentropy")
    outputs = model.outputs[0].shape[-1]
    return Task(loss, label, make, higher, 100.0 if label in FRACTIONS else 1.0, int(outputs) if one_label else None)


def _loss(model: tf_keras.Model, config: TaskConfig, labels: np.ndarray) -> Loss:
    import tf_keras

    if config.loss and ":" in config.loss:
        return load_function(config.loss, RecipeError)
    chosen = config.loss or getattr(model, "loss", None) or _default_loss(model)
    if isinstance(chosen, dict | list | tuple):
        return chosen
    try:
        loss = tf_keras.losses.get(chosen)
    except ValueError:
        raise RecipeError(
            f"There is no loss {chosen!r} in Keras.", fix="check [task] loss, or name a function: file.py:function."
        ) from None
    name = _name(loss)
    class_numbers = labels.ndim == 1 or labels.shape[1:] == (1,)
    name = (FOR_CLASS_NUMBERS if class_numbers else FOR_ONE_HOT).get(name, name)
    if name not in CLASS_LOSSES:
        return loss
    rebuilt = getattr(tf_keras.losses, CLASS_LOSSES[name])
    known = inspect.signature(rebuilt).parameters
    compiled = loss.get_config() if hasattr(loss, "get_config") else {}
    settings = {key: compiled[key] for key in ("from_logits", "label_smoothing") if key in compiled and key in known}
    # A loss named by a string says nothing about logits; the last activation does.
    settings.setdefault("from_logits", not ends_in_probabilities(model))
    return rebuilt(**settings)


def ends_in_probabilities(model: tf_keras.Model) -> bool:
    """Whether the model's first output comes out of a softmax or a sigmoid."""
    layer = model.outputs[0]._keras_history.layer
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", type(layer).__name__.lower())
    return name in ("softmax", "sigmoid", "hard_sigmoid")


def takes_logits(loss: Loss) -> bool:
    """Whether a Keras loss was made for outputs before softmax or sigmoid; not all losses have it as an attribute."""
    return bool(loss.get_config().get("from_logits")) if hasattr(loss, "get_config") else False


def _default_loss(model: tf_keras.Model) -> str:
    return "sparse_categorical_crossentropy" if model.outputs[0].shape[-1] > 1 else "binary_crossentropy"


def _compiled_metric(model: tf_keras.Model) -> str | None:
    """The first metric that the model was compiled with, or None."""
    compiled = getattr(model, "compiled_metrics", None)
    given = getattr(compiled, "_user_metrics", None)
    while isinstance(given, dict | list | tuple) and given:
        given = next(iter(given.values() if isinstance(given, dict) else given))
    return given if isinstance(given, str) else getattr(given, "name", None)


def _metric(name: str, config: TaskConfig, loss: Loss) -> tuple[str, Callable[[], tf_keras.metrics.Metric], bool]:
    import tf_keras

    higher = config.higher_is_better
    if ":" in name:
        if higher is None:
            raise RecipeError(
                f"The metric {name} is a function, and the recipe does not say whether higher is better.",
                fix="set [task] higher_is_better = true or false.",
            )
        function = load_function(name, RecipeError)
        label = name.rpartition(":")[2]
        return label, lambda: tf_keras.metrics.MeanMetricWrapper(function, name=label), higher
    try:
        metric = tf_keras.metrics.get(name)
    except ValueError:
        metric = name
    if isinstance(metric, str):  # Keras gives back a name that it does not know
        raise RecipeError(
            f"There is no metric {name!r} in Keras.", fix="check [task] metric, or name a function: file.py:function."
        )
    higher = name not in LOWER_IS_BETTER if higher is None else higher
    if isinstance(metric, tf_keras.metrics.Metric):
        return name, lambda: tf_keras.metrics.get(name), higher
    # Outputs that are logits cross zero where probabilities cross one half.
    extra = {"threshold": 0.0} if name == "binary_accuracy" and takes_logits(loss) else {}
    return name, lambda: tf_keras.metrics.MeanMetricWrapper(metric, name=name, **extra), higher


def _name(function: Loss) -> str:
    """The snake-case name of a loss, whether it is a function or an object."""
    return str(getattr(function, "name", None) or getattr(function, "__name__", ""))


def check_classes(task: Task, data: Data) -> None:
    """Raise a DataError if the data has more classes than the model has outputs."""
    known = data.train.labels
    classes = len(data.class_names) if data.class_names else int(known.max()) + 1 if known is not None else 0
    if task.classes and classes > task.classes:
        raise DataError(
            f"The data has {classes} classes, and the model has {task.classes} outputs.",
            expected="at most as many classes as outputs.",
            fix="check --data (is it the folder above the class folders?) or use the model of these classes.",
        )
