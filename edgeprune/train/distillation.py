"""Knowledge distillation: the pruned model learns from the unpruned one beside the labels.

Hinton et al. 2015, arXiv:1503.02531: loss = (1 - weight) × task loss + weight × T² × KL(teacher ‖ student), both
softened by the temperature T. Of an output that is not one of several classes, the second term is the mean squared
difference; an output without a loss has the second term alone.

The teacher's outputs travel with the labels: for each output, labels and teacher's values lie in one tensor, so the
training loop, its callbacks and its state stay those of any fine-tuning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeprune.models.types import Structure
from edgeprune.recipe.config import DistillConfig
from edgeprune.tasks.losses import unreduced
from edgeprune.tasks.metrics import over
from edgeprune.tasks.task import Metric, Output, Task

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

# Outputs of one teacher and one student -> loss per position.
Difference = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]
# Of the labels of one output, without the batch.
Shape = Sequence[int | None]


def with_teacher(batches: tf.data.Dataset, teacher: tf_keras.Model) -> tf.data.Dataset:
    """Append the teacher's outputs to the labels, per output: float32 [batch, label values + output values]."""
    import tensorflow as tf

    def append(x: Structure, y: Structure, *w: Structure) -> tuple[Structure, ...]:
        outputs = tf.nest.flatten(teacher(x, training=False))
        labels = list(y) if isinstance(y, tuple) else [y]
        packed = [tf.concat([_flat(one), _flat(out)], -1) for one, out in zip(labels, outputs, strict=True)]
        return x, (packed[0] if len(packed) == 1 else tuple(packed)), *w

    return batches.map(append, num_parallel_calls=1).prefetch(2)


def distilling(task: Task, config: DistillConfig, labels: Structure) -> Task:
    """The task over labels as :func:`with_teacher` makes them; its metrics are those of the labels alone.

    Args:
        labels: ``tf.TensorSpec`` of a batch of labels in the form of ``task``.
    """
    specs = list(labels) if isinstance(labels, tuple) else [labels]
    shapes = [tuple(spec.shape[1:]) for spec in specs]

    def of_labels(metric: Metric) -> Metric:
        shape = shapes[metric.output]
        new = over(metric.name, metric.new, lambda packed, weights: (_labels(packed, shape), weights))
        return dataclasses.replace(metric, new=new)

    outputs = tuple(
        dataclasses.replace(
            output,
            loss=_distilled(output, config, shape),
            weight=output.weight if output.loss is not None else 1.0,
            metrics=tuple(map(of_labels, output.metrics)),
        )
        for output, shape in zip(task.outputs, shapes, strict=True)
    )
    return dataclasses.replace(task, outputs=outputs, watched=tuple(map(of_labels, task.watched)))


def _distilled(output: Output, config: DistillConfig, shape: Shape) -> tf_keras.losses.Loss:
    import tensorflow as tf
    import tf_keras

    soft = _softened(config.temperature, output.is_logits) if (output.classes or 0) > 1 else _squared
    hard = unreduced(output.loss) if output.loss is not None else None

    class Distilled(tf_keras.losses.Loss):
        def call(self, packed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            taught = tf.reshape(packed[:, _values(shape) :], tf.shape(outputs))
            difference = (_squared if outputs.shape[-1] == 1 else soft)(taught, outputs)
            if hard is None:
                return config.weight * difference
            losses = hard(_labels(packed, shape), outputs)
            if losses.shape.rank == 0:  # a function of the user's that sums up the batch
                return (1 - config.weight) * losses + config.weight * tf.reduce_mean(difference)
            if losses.shape.rank != difference.shape.rank:
                losses, difference = _per_sample(losses), _per_sample(difference)
            return (1 - config.weight) * losses + config.weight * difference

    return Distilled(getattr(output.loss, "reduction", "auto"), name="distilled")


def _flat(values: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.reshape(tf.cast(values, tf.float32), [tf.shape(values)[0], -1])


def _values(shape: Shape) -> int:
    """Number of values in the labels of a sample."""
    number = 1
    for length in shape:
        assert length is not None
        number *= length
    return number


def _labels(packed: tf.Tensor, shape: Shape) -> tf.Tensor:
    """The labels as the task takes them."""
    import tensorflow as tf

    return tf.reshape(packed[:, : _values(shape)], [-1, *shape])


def _per_sample(losses: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.reduce_mean(tf.reshape(losses, [tf.shape(losses)[0], -1]), -1)


def _softened(temperature: float, is_logits: bool) -> Difference:
    """T² × KL of distributions that the models give as logits or as probabilities."""
    import tensorflow as tf

    def soften(outputs: tf.Tensor) -> tf.Tensor:
        logits = outputs if is_logits else tf.math.log(tf.maximum(outputs, 1e-8))
        return tf.nn.log_softmax(logits / temperature)

    def divergence(taught: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        teacher, student = soften(taught), soften(outputs)
        return temperature**2 * tf.reduce_sum(tf.exp(teacher) * (teacher - student), -1)

    return divergence


def _squared(taught: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.reduce_mean(tf.square(taught - outputs), -1)
