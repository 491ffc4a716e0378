"""What a build knows of a model's task: a loss and metrics per output, and the metric that choices go by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune.data.spec import values_in
from edgeprune.files import JsonObject
from edgeprune.models.types import Structure
from edgeprune.recipe.config import OutputTaskConfig
from edgeprune.selection import drop_points

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

    from edgeprune.data import Data, InputSpec, Split

# A loss function or object of tf_keras; it takes labels and outputs of one output, and perhaps weights.
Loss = Any
Kind = Literal["classification", "detection", "multilabel", "regression", "segmentation", "sequence"]
# A figure of each metric, by its name.
Figures = dict[str, float]
# A batch of inputs → per output the weights that leave padding out, [batch, steps], or None.
Masks = Callable[[Structure], "Sequence[tf.Tensor | None]"]
# Samples in a batch of ``tf_keras.Model.evaluate``, by default.
KERAS_BATCH = 32
_BATCH = 256  # a multiple of Keras' own, see Metric.by_batch
# Bytes of a batch's outputs and inputs: masks of 256 pictures would be gigabytes, and so would what a network makes of
# 256 pictures of 600 pixels.
_MOST_OUTPUTS, _MOST_INPUTS = 64 * 2**20, 160 * 2**20


def evaluation_batch(spec: InputSpec) -> int:
    """Samples in a batch of an evaluation, by the sizes of a model's inputs and outputs."""
    largest = max((values_in([shape]) for shape in spec.outputs), default=0)
    bytes_each = 4 * _BATCH
    fits = bytes_each * largest <= _MOST_OUTPUTS and bytes_each * values_in(spec.shapes) <= _MOST_INPUTS
    return _BATCH if fits else KERAS_BATCH


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric of one output.

    Attributes:
        name: as the model was compiled with it, or the recipe names it; with the output before it where a model has
            several: ``colour.accuracy``.
        output: position of its output.
        new: makes a fresh tf_keras metric over (labels, outputs), in the form that the task's labels have.
        higher_is_better: its direction.
        points: factor from a difference to points: 100 for fractions, 1 for metrics in their own unit.
        weighted: whether the weights of samples count.
        by_batch: whether its value may depend on how samples are batched, as that of a user's function does which
            gives one number per batch.
    """

    name: str
    output: int
    new: Callable[[], tf_keras.metrics.Metric]
    higher_is_better: bool
    points: float
    weighted: bool = False
    by_batch: bool = False


@dataclasses.dataclass(frozen=True)
class Output:
    """One output of the model.

    Attributes:
        name: the user's name for it.
        loss: a ``tf_keras.losses.Loss``; None: the output has no labels, or none that count.
        kind: None where there is no loss, or the loss is the user's function.
        weight: of the loss in the sum over all outputs.
        metrics: the first counts most.
        classes: number of classes where each label is one of several, else None.
        is_logits: of classes: whether softmax or sigmoid are still to come.
        width: length of its last axis; 1 for two classes as one number.
        origin: where kind and loss come from, in words.
        stated: what a recipe says for the same loss and metrics, compile information included; see
            :func:`edgeprune.tasks.stating.stated`.
    """

    name: str
    loss: Loss | None = None
    kind: Kind | None = None
    weight: float = 1.0
    metrics: tuple[Metric, ...] = ()
    classes: int | None = None
    is_logits: bool = False
    width: int = 1
    origin: str = ""
    stated: OutputTaskConfig | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Task:
    """Losses to train with and metrics to report, in the order of the model's outputs.

    Attributes:
        outputs: one per output of the model.
        watched: the metrics that picks, gates and the best epoch go by: one, or several whose mean counts.
        name: what reports call that figure.
        prepare: data as the source has it → data whose labels have the form of this task: an array for a model of one
            output, else a tuple with one array per output (zeros where an output has no labels); weights likewise.
        masks: a batch of inputs → per output the weights, [batch, steps] or None, by which Keras leaves out padding;
            None: the model pads nothing.
        answers: inputs → the labels that they have, where labels are made of inputs (by the unpruned model); None:
            labels are data.
        warnings: what a reader of the report should know.
    """

    outputs: tuple[Output, ...]
    watched: tuple[Metric, ...]
    name: str
    prepare: Callable[[Data], Data] = dataclasses.field(default=lambda data: data, repr=False)
    masks: Masks | None = dataclasses.field(default=None, repr=False)
    answers: Callable[[Structure], Structure] | None = dataclasses.field(default=None, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def training(self) -> Task:
        """What a model is trained by; another task where the figures cannot be trained for."""
        return self

    def judged(self, split: Split) -> Split:
        """A split prepared for the task, with the labels that the figures are counted on."""
        return split

    @property
    def merit(self) -> Callable[[Any, Sequence[np.ndarray]], np.ndarray] | None:
        """From labels and outputs of a batch to how good each answer is, 0 to 1, where that takes all outputs
        together; None: each output has answers of its own."""
        return None

    @property
    def metric(self) -> str:
        """Name of the figure that choices go by."""
        return self.name

    @property
    def higher_is_better(self) -> bool:
        return self.watched[0].higher_is_better

    @property
    def points(self) -> float:
        """Factor from a difference of the figure to points: 100 for fractions, 1 otherwise."""
        return self.watched[0].points

    @property
    def primary(self) -> Output:
        """The output whose metric choices go by."""
        return self.outputs[self.watched[0].output]

    @property
    def classes(self) -> int | None:
        """Number of classes, where the primary output gives one of several classes per sample."""
        return self.primary.classes if self.primary.kind == "classification" else None

    @property
    def row_classes(self) -> int | None:
        """Number of classes, where the model's only output is one row of classes: what labels.txt can name."""
        output = self.outputs[0]
        return self.classes if len(self.outputs) == 1 and output.width == output.classes else None

    def to_json(self) -> list[JsonObject]:
        """What each output is trained for and measured by, for reports."""
        return [
            {
                "name": output.name,
                "kind": output.kind,
                "loss": getattr(output.loss, "name", None),
                "weight": output.weight,
                "metrics": [metric.name for metric in output.metrics],
                "origin": output.origin,
            }
            for output in self.outputs
        ]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics of all outputs."""
        return tuple(metric for output in self.outputs for metric in output.metrics)

    def value(self, figures: Mapping[str, float]) -> float:
        """The figure that choices go by, out of those of all metrics."""
        return sum(figures[metric.name] for metric in self.watched) / len(self.watched)

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is strictly better than ``b``."""
        return a > b if self.higher_is_better else a < b

    def drop(self, baseline: float, value: float) -> float:
        """How much worse ``value`` is than ``baseline``: in points for fractions, else in the metric's own unit
        (negative: better)."""
        return drop_points(self, baseline, value)

    def per_output(self, values: Sequence[Any]) -> Any:
        """One value per output as Keras takes them: alone for a model of one output, else a list."""
        return values[0] if len(self.outputs) == 1 else list(values)

    def compile_arguments(self) -> dict[str, Any]:
        """``loss``, ``loss_weights`` and the watched metrics for ``tf_keras.Model.compile``."""
        arguments = {"loss": self.per_output([output.loss for output in self.outputs])}
        if any(output.weight != 1 for output in self.outputs):
            arguments["loss_weights"] = self.per_output([output.weight for output in self.outputs])
        for key, weighted in (("metrics", False), ("weighted_metrics", True)):
            of_key = [metric for metric in self.watched if metric.weighted == weighted]
            if of_key:
                arguments[key] = [[m.new() for m in of_key if m.output == i] for i in range(len(self.outputs))]
        return arguments

    def saved_arguments(self) -> dict[str, Any]:
        """As :meth:`compile_arguments`, for a model that is saved: nothing but what every Keras can read."""
        losses = [output.loss for output in self.outputs]
        if not all(loss is None or _is_of_keras2(loss) for loss in losses):
            return {}
        arguments = self.compile_arguments()
        for key in ("metrics", "weighted_metrics"):
            kept = [[metric for metric in own if _is_of_keras2(metric)] for own in arguments.pop(key, [])]
            if any(kept):
                arguments[key] = kept
        return arguments

    def loss_function(self) -> Callable[..., tf.Tensor]:
        """The loss over a batch (labels, outputs[, weights]) as one number, over all outputs."""
        import tensorflow as tf
        from tf_keras.src.engine.compile_utils import LossesContainer

        arguments = self.compile_arguments()
        names = [output.name for output in self.outputs]
        container = LossesContainer(arguments["loss"], arguments.get("loss_weights"), output_names=names)

        def loss(labels: Structure, outputs: Structure, weights: Structure = None) -> tf.Tensor:
            flat = [tf.convert_to_tensor(output) for output in tf.nest.flatten(outputs)]
            truth = tf.nest.map_structure(tf.convert_to_tensor, labels)
            given = None if weights is None else tf.nest.map_structure(tf.convert_to_tensor, weights)
            return container(truth, self.per_output(flat), given)

        return loss

    def meter(self, metrics: Sequence[Metric] | None = None) -> Meter:
        """All metrics, or those given, with nothing counted yet."""
        return Meter(self, self.metrics if metrics is None else metrics)


class Meter:
    """Metrics of a task over batches, as ``tf_keras.Model.evaluate`` counts them."""

    def __init__(self, task: Task, metrics: Sequence[Metric]):
        self._task = task
        self._metrics = [(metric, metric.new()) for metric in metrics]

    def update(self, inputs: Structure, labels: Structure, outputs: Sequence[Any], weights: Structure = None) -> None:
        """Count a batch.

        Args:
            inputs: the batch's inputs, for padding.
            labels: in the task's form.
            outputs: one array [batch, ...] per output.
            weights: None, or per sample and perhaps position, in the structure of the labels or one for all.
        """
        import tensorflow as tf
        from tf_keras.src.engine.compile_utils import match_dtype_and_rank
        from tf_keras.src.utils.losses_utils import apply_mask

        several = len(self._task.outputs) > 1
        masks = self._task.masks(inputs) if self._task.masks else [None] * len(self._task.outputs)
        for metric, counted in self._metrics:
            i = metric.output
            truth = tf.convert_to_tensor(labels[i] if several else labels)
            weight = weights[i] if isinstance(weights, tuple | list) else weights
            weight = None if weight is None or not metric.weighted else tf.convert_to_tensor(weight)
            truth, output, weight = match_dtype_and_rank(truth, tf.convert_to_tensor(outputs[i]), weight)
            mask = masks[i]
            weight = apply_mask(output, weight, mask)
            step = KERAS_BATCH if metric.by_batch else max(len(output), 1)
            for start in range(0, len(output), step):
                part = slice(start, start + step)
                judged = output[part]
                if mask is not None:  # Keras' losses divide by the steps that are left, and look for them here
                    judged._keras_mask = mask[part]
                counted.update_state(truth[part], judged, sample_weight=None if weight is None else weight[part])

    def result(self) -> Figures:
        """The figure of each metric; of one that has a figure per class, each under a name of its own: ``f1[0]``."""
        figures = {}
        for metric, counted in self._metrics:
            values = np.asarray(counted.result(), np.float64)
            if values.size == 1:
                figures[metric.name] = float(values.reshape(-1)[0])
            else:
                figures |= {f"{metric.name}[{i}]": float(value) for i, value in enumerate(values.reshape(-1))}
        return figures


def _is_of_keras2(thing: Any) -> bool:
    carried = getattr(thing, "fn", None) or getattr(thing, "_fn", None)
    modules = {type(thing).__module__, getattr(carried, "__module__", type(thing).__module__)}
    return all(module.startswith("tf_keras.") for module in modules)
