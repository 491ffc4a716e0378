"""Losses: the labels that each takes, what it trains, and how it is made to fit outputs and labels."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from edgeprune._tensorflow import keras3_if_loaded
from edgeprune.models.compiled import Loaded
from edgeprune.tasks.metrics import canonical_name, is_kerases

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

# classes: class numbers, one axis less than the outputs. rows: one weight per class that sum to one. binary: of the
# outputs' shape, from 0 to 1. values: of the outputs' shape.
Labels = Literal["classes", "rows", "binary", "values"]


@dataclasses.dataclass(frozen=True)
class LossFacts:
    """What edgeprune knows of a loss.

    Attributes:
        labels: the form of labels that it takes; None: unknown.
        metric: reported where a model has no metrics; None: the loss itself.
    """

    labels: Labels | None = None
    metric: str | None = None


_VALUES = LossFacts("values")
LOSSES: dict[str, LossFacts] = {
    "sparse_categorical_crossentropy": LossFacts("classes", "accuracy"),
    "categorical_crossentropy": LossFacts("rows", "accuracy"),
    "categorical_focal_crossentropy": LossFacts("rows", "accuracy"),
    "categorical_hinge": LossFacts("rows", "accuracy"),
    "kl_divergence": LossFacts("rows"),
    "binary_crossentropy": LossFacts("binary", "binary_accuracy"),
    "binary_focal_crossentropy": LossFacts("binary", "binary_accuracy"),
    "dice": LossFacts("binary"),
    "tversky": LossFacts("binary"),
    **dict.fromkeys(
        (
            "mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", "huber", "log_cosh",
            "mean_squared_logarithmic_error", "poisson", "cosine_similarity", "hinge", "squared_hinge",
        ),
        _VALUES,
    ),
}  # fmt: skip


def facts_of(loss: Loaded) -> LossFacts:
    """What is known of a loss; nothing of a user's."""
    return LOSSES.get(canonical_name(loss), LossFacts()) if is_kerases(loss) else LossFacts()


def as_object(loss: Loaded, *, is_logits: bool | None, ignore: int | None, rows: bool = False) -> tf_keras.losses.Loss:
    """A tf_keras loss object, for labels in the form of the task.

    Args:
        loss: a function, or an object of either Keras.
        is_logits: whether the outputs are before softmax or sigmoid; a loss that says nothing about that, or that they
            are not, is told so, as cross-entropy of what is no probability has no meaning. None: it stays as it is.
        ignore: class number that does not count.
        rows: whether labels are rows made of class numbers; those that do not count are all zeros.
    """
    import tf_keras
    from tf_keras.src.losses import LossFunctionWrapper

    keras = keras3_if_loaded()
    if keras is not None and isinstance(loss, keras.losses.Loss):
        loss = _of_keras3(loss)
    elif not isinstance(loss, tf_keras.losses.Loss):
        of_class = _class_of(loss)
        loss = of_class() if of_class else LossFunctionWrapper(loss, name=loss.__name__)
    if "from_logits" in _arguments(type(loss)) and is_logits and not loss.get_config().get("from_logits"):
        loss = type(loss).from_config({**loss.get_config(), "from_logits": True})
    if ignore is not None:
        loss = _ignoring(loss, kept_rows if rows else lambda labels: kept_labels(labels, ignore))
    loss._allow_sum_over_batch_size = True
    return loss


def takes_logits(loss: Any) -> bool:
    """Whether a Keras loss was made for outputs before softmax or sigmoid; not all losses have it as an attribute."""
    return bool(loss.get_config().get("from_logits")) if hasattr(loss, "get_config") else False


def _class_of(function: Loaded) -> type | None:
    """The class of tf_keras for one of its loss functions."""
    import tf_keras

    name = canonical_name(function)
    for found in vars(tf_keras.losses).values():
        if inspect.isclass(found) and found is not tf_keras.losses.Loss and canonical_name(found) == name:
            return found if is_kerases(function) else None
    return None


def _arguments(of: type) -> set[str]:
    return set(inspect.signature(of).parameters)


def _of_keras3(theirs: Any) -> tf_keras.losses.Loss:
    """A loss of Keras 3, over the tensors of TensorFlow that both work with."""
    import tf_keras

    class OfKeras3(tf_keras.losses.Loss):
        def call(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            return theirs.call(labels, outputs)

    reduction = {"sum": "sum", "none": "none", None: "none"}.get(theirs.reduction, "sum_over_batch_size")
    return OfKeras3(reduction=reduction, name=theirs.name)


def kept_labels(labels: tf.Tensor, ignore: int) -> tf.Tensor:
    """Which class numbers count, bool of the labels' shape without a last axis of 1."""
    import tensorflow as tf

    kept = tf.not_equal(tf.cast(labels, tf.int64), ignore)
    spread = kept.shape.rank is not None and kept.shape.rank > 1 and kept.shape[-1] == 1
    return kept[..., 0] if spread else kept


def kept_rows(labels: tf.Tensor) -> tf.Tensor:
    """Which rows count, bool of the labels' shape without the last axis: those that are not all zeros."""
    import tensorflow as tf

    return tf.reduce_any(tf.not_equal(labels, 0), -1)


# Losses over whole regions: what does not count has to leave labels and outputs before they are summed.
_OF_REGIONS = {"dice", "tversky"}


def _ignoring(loss: Any, kept_of: Callable[[tf.Tensor], tf.Tensor]) -> tf_keras.losses.Loss:
    """The loss without the positions that do not count: the mean is over the others."""
    import tensorflow as tf
    import tf_keras

    each, of_regions = unreduced(loss), canonical_name(loss) in _OF_REGIONS or loss.name in _OF_REGIONS

    class Ignoring(tf_keras.losses.Loss):
        def call(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            kept = kept_of(labels)
            spread = kept if labels.shape.rank == kept.shape.rank else kept[..., None]
            labels = tf.where(spread, labels, tf.zeros_like(labels))
            if of_regions:
                outputs = outputs * tf.cast(kept[..., None], outputs.dtype)
                return each(labels, outputs)
            values = each(labels, outputs)
            weights = tf.cast(tf.reshape(kept, tf.shape(values)), values.dtype)
            return values * weights * (tf.size(weights, values.dtype) / tf.maximum(tf.reduce_sum(weights), 1))

        def get_config(self) -> dict[str, Any]:
            return loss.get_config()

    return Ignoring(name=loss.name)


def unreduced(loss: Any) -> Any:
    """``(labels, outputs) -> losses`` [batch, …], before any mean; of a loss object.

    Source: ``tf_keras.losses.Loss.call``, which all reductions start from.
    """
    import tensorflow as tf
    from tf_keras.src.engine.compile_utils import match_dtype_and_rank

    def each(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        labels, outputs, _ = match_dtype_and_rank(labels, outputs, None)
        return tf.convert_to_tensor(loss.call(labels, outputs))

    return each
