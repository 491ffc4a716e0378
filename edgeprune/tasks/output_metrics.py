"""The metrics of one output: from the recipe, else as compiled, else the one that goes with its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgeprune.errors import RecipeError
from edgeprune.models.compiled import Loaded, Unknown, restore
from edgeprune.recipe.config import Term
from edgeprune.tasks.given import Given
from edgeprune.tasks.infer import Reading
from edgeprune.tasks.losses import facts_of, kept_labels, kept_rows, takes_logits
from edgeprune.tasks.metrics import (
    OVER_CLASS_NUMBERS,
    by_shape,
    canonical_name,
    is_kerases,
    is_loss_object,
    known,
    maker,
    metric_name,
    of_loss,
    over,
)  # fmt: skip
from edgeprune.tasks.stating import named_term, term_of
from edgeprune.tasks.task import Kind, Metric

if TYPE_CHECKING:
    import tf_keras

# Metrics that compare rows, for labels that are class numbers.
_OVER_ROWS = {
    "categorical_accuracy", "categorical_crossentropy", "top_k_categorical_accuracy", "binary_accuracy",
    "binary_crossentropy", "auc", "precision", "recall", "f1_score", "fbeta_score", "one_hot_io_u",
    "one_hot_mean_io_u", "kl_divergence", "mean_squared_error", "mean_absolute_error", "categorical_hinge",
    "categorical_focal_crossentropy", "cosine_similarity",
}  # fmt: skip


# The mean over the classes of intersection over union, under this name in recipes and reports.
MEAN_IOU = "mean_iou"
# Pixels are counted one by one, and float32 has no 16,777,217.
EXACT = {"dtype": "float64"}
# Metrics of tf_keras that take neither integers nor weights [batch, 1], as those of Keras 3 do.
_STRICT = {"f1_score", "fbeta_score"}


class OutputMetrics:
    """Decides the metrics of one output.

    Attributes:
        terms: what a recipe has to say for the same metrics; None: it has no words for one.
    """

    def __init__(self, given: Given):
        self.given = given
        self.terms: list[Term | None] = []
        self._to_rows = False
        self._seen: list[Loaded] = []

    def decide(
        self,
        loss: Loaded,
        made: Loaded,
        reading: Reading | None,
        in_classes: bool,
        to_rows: bool = False,
        kind: Kind | None = None,
    ) -> Iterable[Metric]:
        """The metrics, the one that counts most first.

        Args:
            loss: as the model was compiled with it, or as the recipe names it.
            made: the same as an object, for labels in the task's form.
            reading: where the loss comes from if neither of the two names it.
            in_classes: whether labels in the task's form are class numbers.
            to_rows: whether they are rows made of class numbers.
            kind: of the output.

        Raises:
            RecipeError: one cannot be restored, or its direction is not known.
        """
        given = self.given
        self._to_rows = to_rows
        if given.config.metric is not None:
            terms = given.config.metric if isinstance(given.config.metric, tuple) else (given.config.metric,)
            for place, term in enumerate(map(self._filled, terms)):
                metric = given.restore(term, "metrics")
                name = _term_name(term, metric)
                weighted = isinstance(term, Mapping) and bool(term.get("weighted"))
                higher = term.get("higher_is_better") if isinstance(term, Mapping) else None
                if higher is None and place == 0:
                    higher = given.config.higher_is_better
                if higher is None and _direction(metric) is None:
                    raise self._unknown_direction(name, term)
                self.terms.append(term)
                yield self._metric(metric, name, made, in_classes, higher=higher, weighted=weighted)
            return
        yielded = False
        for key in ("metrics", "weighted_metrics"):
            for place, config in enumerate(getattr(given.compiled, key)):
                first = place == 0 and not yielded
                try:
                    metric = restore(config, "metrics", given.objects)
                except Unknown as error:
                    if first:
                        raise self._unknown_metric(error) from None
                    given.warnings.append(
                        f"The metric {error.name!r}{given.of} cannot be restored ({error.reason}), and is not reported."
                    )
                    continue
                name = metric_name(metric, config)
                higher = given.config.higher_is_better if first else None
                if higher is None and _direction(metric) is None:
                    if first:
                        raise self._unknown_direction(name, name)
                    given.warnings.append(
                        f"The metric {name!r}{given.of} is no metric of Keras: whether higher is better is not known, "
                        f"and it is not reported. Under [{given.section}], metric can be a list that names it with "
                        "higher_is_better."
                    )
                    continue
                weighted = key == "weighted_metrics"
                self.terms.append(named_term(term_of(config, metric), name, weighted))
                yield self._metric(metric, name, made, in_classes, higher=higher, weighted=weighted, compiled=True)
                self._seen.append(metric)
                yielded = True
        if yielded:
            if kind == "segmentation" and not any("io_u" in canonical_name(m) for m in self._seen):
                yield self._mean_iou(made, in_classes)
            return
        default = facts_of(loss).metric if reading is None else reading.metric
        if kind == "segmentation":
            # Of two classes that fill a picture unevenly, the share of right pixels says little.
            yield self._mean_iou(made, in_classes)
        if default is None and kind != "segmentation":
            yield self._loss_as_metric(made)
        else:
            default = default or "accuracy"
            self.terms.append(default)
            higher = given.config.higher_is_better
            yield self._metric(restore(default, "metrics"), default, made, in_classes, higher=higher)

    def _mean_iou(self, made: Any, in_classes: bool) -> Metric:
        term = self._filled(MEAN_IOU)
        self.terms.append(term)
        return self._metric(self.given.restore(term, "metrics"), MEAN_IOU, made, in_classes, higher=True)

    def _filled(self, term: Term) -> Term:
        """``"mean_iou"`` as a metric of Keras, for the classes of this output; any other term as it is."""
        facts = self.given.facts
        if term != MEAN_IOU:
            return term
        if facts.width > 1:
            return {"class": "MeanIoU", "name": MEAN_IOU, "num_classes": facts.width, "sparse_y_pred": False, **EXACT}
        threshold = 0.5 if facts.end == "sigmoid" or (facts.low >= 0 and facts.high <= 1) else 0.0
        return {"class": "BinaryIoU", "name": MEAN_IOU, "target_class_ids": [0, 1], "threshold": threshold, **EXACT}

    def _unknown_metric(self, error: Unknown) -> RecipeError:
        given = self.given
        return RecipeError(
            f"The model was compiled with the metric {error.name!r}{given.of}, which cannot be restored: "
            f"{error.reason}.",
            expected="a metric that can be loaded, or one that the recipe names.",
            fix=f"write in the recipe:\n  [{given.section}]\n"
            f'  metric = "file.py:{error.name}"    # where it is defined; or a metric of Keras\n'
            "  higher_is_better = true    # or false\n"
            "or give the file with --custom-objects FILE.py --trust-model.",
        )

    def _loss_as_metric(self, made: Any) -> Metric:
        """A model without metrics is judged by its loss."""
        given = self.given
        name = given.full(made.name or "loss")
        return Metric(name, given.index, lambda: of_loss(made, name), False, 1.0, weighted=True, by_batch=True)

    def _metric(
        self,
        metric: Loaded,
        name: str,
        made: Any,
        in_classes: bool,
        *,
        higher: bool | None,
        weighted: bool = False,
        compiled: bool = False,
    ) -> Metric:
        given = self.given
        import tf_keras

        extra = {}
        if isinstance(metric, str):  # "accuracy" or "crossentropy"
            shape = (None, *given.facts.shape)
            chosen = by_shape(metric, shape[:-1] if in_classes and given.facts.width > 1 else shape, shape)
            metric = getattr(tf_keras.metrics, chosen)
        canonical = canonical_name(metric)
        # Outputs that are logits cross zero where probabilities cross one half. A compiled metric stays Keras' own.
        if canonical == "binary_accuracy" and takes_logits(made):
            if compiled:
                if not hasattr(metric, "update_state"):
                    # In a recipe the name alone would have the threshold of logits.
                    stated = {"class": "BinaryAccuracy", "name": name, "threshold": 0.5}
                    self.terms[-1] = named_term(stated, name, weighted)
                given.warnings.append(
                    f"The metric {name!r}{given.of} was compiled with a threshold of 0.5, and the outputs are logits, "
                    'which cross zero. The figure is Keras\' own; [task] metric = "binary_accuracy" would have a '
                    "threshold of 0."
                )
            elif not hasattr(metric, "update_state"):
                extra["threshold"] = 0.0
        new = maker(metric, name, extra)
        over_numbers = canonical in OVER_CLASS_NUMBERS or canonical == "mean_io_u"
        if over_numbers and not in_classes and given.facts.width > 1:
            new = over(name, new, lambda labels, weights: (_class_numbers(labels), weights))
        elif in_classes and canonical in _OVER_ROWS and given.facts.width > 1:
            width = given.facts.width
            if compiled and self._takes_numbers(new):
                given.warnings.append(
                    f"The metric {name!r}{given.of} was compiled for rows of {width} values, and the labels are class "
                    "numbers, each of which Keras compares with all values of its row. The figure is Keras' own; "
                    f'[task] metric = "{canonical}" would compare one-hot rows.'
                )
            else:
                new = over(name, new, lambda labels, weights: (_rows(labels, width), weights))
        if canonical in _STRICT:
            new = over(name, new, _floats)
        if given.config.ignore is not None:
            new = over(name, new, _without(given.config.ignore, rows=self._to_rows))
        facts = known(metric)
        direction = facts.higher_is_better if higher is None else higher
        assert direction is not None
        by_batch = is_loss_object(metric) or not is_kerases(metric)
        return Metric(given.full(name), given.index, new, direction, facts.points, weighted, by_batch)

    def _takes_numbers(self, new: Callable[[], tf_keras.metrics.Metric]) -> bool:
        """Whether a metric over rows takes class numbers as they come: Keras' functions spread them over the row."""
        given = self.given
        import tensorflow as tf
        from tf_keras.src.engine.compile_utils import match_dtype_and_rank

        assert given.target is not None
        shapes = ([2, *(size or 1 for size in shape)] for shape in (given.target.shape, given.facts.shape))
        labels, outputs, _ = match_dtype_and_rank(*map(tf.zeros, shapes), None)
        # What does not take them fails in any way.
        try:
            new().update_state(labels, outputs)
        except Exception:
            return False
        return True

    def _unknown_direction(self, name: str, term: Term) -> RecipeError:
        given = self.given
        named = term if isinstance(term, str) else term["class"]
        return RecipeError(
            f"Whether a higher {name!r}{given.of} is better cannot be known: it is no metric of Keras.",
            expected="its direction, or another metric.",
            fix=f"write in the recipe:\n  [{given.section}]\n"
            "  higher_is_better = true    # or false; of the first metric\n"
            f'or, of any of several: {{ class = "{named}", higher_is_better = true }}',
        )


def _direction(metric: Loaded) -> bool | None:
    """Whether a higher metric is better; None: it is not known."""
    if isinstance(metric, str):  # "accuracy" or "crossentropy"
        return metric in ("accuracy", "acc")
    return known(metric).higher_is_better


def _term_name(term: Term, metric: Loaded) -> str:
    if isinstance(term, str):
        return term.rpartition(":")[2]
    return str(term.get("name") or getattr(metric, "name", term["class"].rpartition(":")[2]))


def _class_numbers(labels: Any) -> Any:
    import tensorflow as tf

    return tf.argmax(labels, -1)


def _rows(labels: Any, width: int) -> Any:
    import tensorflow as tf

    numbers = tf.cast(labels, tf.int32)
    if numbers.shape.rank is not None and numbers.shape.rank > 1 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    return tf.one_hot(numbers, width)


def _floats(labels: Any, weights: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    spread = weights is not None and weights.shape.rank > 1 and weights.shape[-1] == 1
    return tf.cast(labels, tf.float32), weights[..., 0] if spread else weights


def _without(ignore: int, *, rows: bool) -> Any:
    """Labels and weights without the positions of one class number, which are rows of zeros in ``rows``."""
    import tensorflow as tf

    def change(labels: Any, weights: Any) -> tuple[Any, Any]:
        kept = kept_rows(labels) if rows else kept_labels(labels, ignore)
        mask = tf.cast(kept, tf.float32)
        if weights is not None:
            extra = mask.shape.rank - weights.shape.rank
            mask = mask * tf.cast(
                tf.reshape(weights, [*weights.shape[:], *[1] * extra]) if extra > 0 else weights, tf.float32
            )
        spread = kept if kept.shape.rank == labels.shape.rank else kept[..., None]
        return tf.where(spread, labels, tf.zeros_like(labels)), mask

    return change
