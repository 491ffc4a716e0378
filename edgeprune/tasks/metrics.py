"""Metrics: which way each is better, whether it is a fraction, and how it takes labels.

A metric is known by the name of its function, or of its class in snake case, in whichever Keras.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgeprune._tensorflow import keras3_if_loaded
from edgeprune.models.compiled import BY_SHAPE, Loaded, of_keras
from edgeprune.models.types import Config

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

# Fractions in [0, 1] of which more is better: differences are given in percentage points.
FRACTIONS = {
    "accuracy", "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy",
    "top_k_categorical_accuracy", "sparse_top_k_categorical_accuracy",
    "auc", "precision", "recall", "f1_score", "fbeta_score",
    "sensitivity_at_specificity", "specificity_at_sensitivity", "precision_at_recall", "recall_at_precision",
    "io_u", "binary_io_u", "mean_io_u", "one_hot_io_u", "one_hot_mean_io_u",
}  # fmt: skip
# Other metrics of which more is better.
HIGHER = {
    "r2_score", "cosine_similarity", "pearson_correlation", "concordance_correlation", "true_positives",
    "true_negatives",
}  # fmt: skip
# Metrics of which less is better. Whatever is a loss in one of the Kerases is one, too.
LOWER = {
    "mean_absolute_error", "mean_squared_error", "root_mean_squared_error", "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error", "mean_relative_error", "log_cosh_error", "log_cosh", "logcosh", "kl_divergence",
    "kld", "kullback_leibler_divergence", "poisson", "hinge", "squared_hinge", "categorical_hinge",
    "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy", "binary_focal_crossentropy",
    "categorical_focal_crossentropy", "false_positives", "false_negatives",
}  # fmt: skip
# Metrics over class numbers; the others compare labels and outputs of one shape.
OVER_CLASS_NUMBERS = {
    "sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy", "sparse_categorical_crossentropy",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Known:
    """What edgeprune knows of a metric: its direction (None: unknown), and its factor from a difference to points."""

    higher_is_better: bool | None
    points: float


def known(metric: Loaded) -> Known:
    """What is known of a metric function or object, or of a loss that is used as a metric."""
    name = canonical_name(metric)
    if name in FRACTIONS and is_kerases(metric):
        return Known(True, 100.0)
    if name in HIGHER and not _is_loss(metric) and is_kerases(metric):
        return Known(True, 1.0)
    if _is_loss(metric) or (name in LOWER and is_kerases(metric)):
        return Known(False, 1.0)
    return Known(None, 1.0)


def canonical_name(thing: Loaded) -> str:
    """The name of a function, or of an object's class in snake case; what a wrapper of Keras carries, instead of it.

    Names given by the user do not count: a metric is what it computes.
    """
    function = carried(thing)
    if function is not None:
        return canonical_name(function)
    if isinstance(thing, str):
        return {"acc": "accuracy", "ce": "crossentropy"}.get(thing, thing)
    if inspect.isfunction(thing) or hasattr(thing, "__wrapped__"):
        return _ALIASES.get(thing.__name__, thing.__name__)
    name = thing.__name__ if inspect.isclass(thing) else type(thing).__name__
    # Each upper-case letter begins a word, unless it is followed by another one: AUC, F1Score, MeanIoU.
    snake = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)).lower()
    return _ALIASES.get(snake, snake)


_ALIASES = {"mean_io_u": "mean_io_u", "f_beta_score": "fbeta_score", "log_cosh_error": "log_cosh"}


def carried(thing: Loaded) -> Callable[..., Any] | None:
    """The function inside a wrapper of Keras, where the user made one of a function of their own or of Keras'."""
    if type(thing).__name__ not in ("MeanMetricWrapper", "LossFunctionWrapper"):
        return None
    return getattr(thing, "_fn", None) or getattr(thing, "fn", None)


def is_kerases(thing: Loaded) -> bool:
    """Whether Keras defines it; a user's function of the same name may compute anything."""
    return of_keras(carried(thing) or thing)


def is_loss_object(thing: Loaded) -> bool:
    """Whether a metric is a loss object, which gives one number per batch."""
    inner = carried(thing) or thing
    return any(isinstance(inner, keras.losses.Loss) for keras in _loaded_kerases())


def _loaded_kerases() -> tuple[ModuleType, ...]:
    """Every Keras that something here can be of."""
    import tf_keras

    keras = keras3_if_loaded()
    return (tf_keras,) if keras is None else (tf_keras, keras)


def _is_loss(thing: Loaded) -> bool:
    if is_loss_object(thing):
        return True
    function = carried(thing) or thing
    name = getattr(function, "__name__", "")
    if name == "cosine_similarity":  # as a metric its sign is the opposite of the loss's
        return "losses" in function.__module__.split(".")
    return inspect.isfunction(function) and any(
        name in vars(keras.losses) and inspect.unwrap(getattr(keras.losses, name)) is inspect.unwrap(function)
        for keras in _loaded_kerases()
    )


def metric_name(metric: Loaded, config: Any = None) -> str:
    """What Keras calls a metric in the results of ``evaluate``."""
    if isinstance(config, str) and not hasattr(metric, "update_state"):
        return config
    name = str(getattr(metric, "name", None) or getattr(metric, "__name__", None) or type(metric).__name__)
    # Keras numbers the objects that it makes of a class, over all models of a process.
    return re.sub(r"_\d+$", "", name) if isinstance(config, str) and is_kerases(metric) else name


def maker(metric: Loaded, name: str, extra: Config | None = None) -> Callable[[], tf_keras.metrics.Metric]:
    """A function that makes a fresh tf_keras metric of a function or object.

    Args:
        metric: a metric object of either Keras, or a function or loss over (labels, outputs).
        name: of the metric.
        extra: arguments of the function.
    """
    import tf_keras

    if isinstance(metric, tf_keras.metrics.Metric):
        return lambda: type(metric).from_config(metric.get_config())
    keras = keras3_if_loaded()
    if keras is not None and isinstance(metric, keras.metrics.Metric):
        return lambda: _of_keras3(metric, name)
    if isinstance(metric, tf_keras.losses.Loss):
        metric._allow_sum_over_batch_size = True
    return lambda: tf_keras.metrics.MeanMetricWrapper(metric, name=name, **(extra or {}))


def _of_keras3(metric: Any, name: str) -> tf_keras.metrics.Metric:
    import tf_keras

    class OfKeras3(tf_keras.metrics.Metric):
        """A metric of Keras 3, which counts by itself."""

        def __init__(self) -> None:
            super().__init__(name=name)
            # Keras 3 tracks its variables; tf_keras must not, which would not know them.
            self.__dict__["_inner"] = type(metric).from_config(metric.get_config())

        def update_state(self, labels: tf.Tensor, outputs: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
            self.__dict__["_inner"].update_state(labels, outputs, sample_weight=sample_weight)

        def result(self) -> tf.Tensor:
            return self.__dict__["_inner"].result()

        def reset_state(self) -> None:
            self.__dict__["_inner"].reset_state()

    return OfKeras3()


def of_loss(loss: Any, name: str) -> tf_keras.metrics.Metric:
    """A loss object as a metric: the mean over batches, as ``evaluate`` has it (weights of samples do not divide it).

    Source: ``tf_keras.src.engine.compile_utils.LossesContainer``.
    """
    import tensorflow as tf
    import tf_keras

    class OfLoss(tf_keras.metrics.Mean):
        def update_state(self, labels: tf.Tensor, outputs: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
            super().update_state(loss(labels, outputs, sample_weight), sample_weight=tf.shape(outputs)[0])

    return OfLoss(name=name)


def by_shape(name: str, label_shape: tuple[int | None, ...], output_shape: tuple[int | None, ...]) -> str:
    """The function that Keras chooses for "accuracy" or "crossentropy" (``compile_utils`` of tf_keras).

    Args:
        name: one of ``BY_SHAPE``.
        label_shape, output_shape: with the batch.
    """
    assert name in BY_SHAPE
    ending = "accuracy" if name in ("accuracy", "acc") else "crossentropy"
    if output_shape[-1] == 1:
        return f"binary_{ending}"
    # Labels of one axis less get it as a last axis of 1 first.
    sparse = len(label_shape) < len(output_shape) or label_shape[-1] == 1
    return f"sparse_categorical_{ending}" if sparse else f"categorical_{ending}"


def over(
    name: str, new: Callable[[], tf_keras.metrics.Metric], change: Callable[[Any, Any], tuple[Any, Any]]
) -> Callable[[], tf_keras.metrics.Metric]:
    """A metric over changed labels: ``change(labels, weights) -> (labels, weights)``, weights may be None."""
    import tf_keras

    class Over(tf_keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name=name)
            self.inner = new()

        def update_state(self, labels: tf.Tensor, outputs: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
            changed, weights = change(labels, sample_weight)
            self.inner.update_state(changed, outputs, sample_weight=weights)

        def result(self) -> tf.Tensor:
            return self.inner.result()

        def reset_state(self) -> None:
            self.inner.reset_state()

    return Over
