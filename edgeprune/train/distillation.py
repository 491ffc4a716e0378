"""Knowledge distillation: the pruned model learns from the unpruned one beside the labels.

Hinton et al. 2015, arXiv:1503.02531: loss = (1 - weight) × task loss + weight × T² × KL(teacher ‖ student), both
softened by the temperature T. Where the task is not one label out of several classes, the second term is the mean
squared difference of the outputs.

The teacher's outputs travel with the labels: each batch's labels become (labels, teacher's outputs) in one tensor, so
the training loop, its callbacks and its state stay those of any fine-tuning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeprune.errors import RecipeError
from edgeprune.models.types import Structure
from edgeprune.recipe.config import DistillConfig
from edgeprune.train.task import metric_over, takes_logits

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

    from edgeprune.train.task import Task


def with_teacher(batches: tf.data.Dataset, teacher: tf_keras.Model) -> tf.data.Dataset:
    """Append the teacher's outputs to the labels: (x, [labels | outputs]), float32 [batch, label width + outputs]."""
    import tensorflow as tf

    def append(x: Structure, y: tf.Tensor) -> tuple[Structure, tf.Tensor]:
        outputs = tf.cast(teacher(x, training=False), tf.float32)
        return x, tf.concat([_flat(y), _flat(outputs)], -1)

    return batches.map(append, num_parallel_calls=1).prefetch(2)


def distilling(task: Task, config: DistillConfig, teacher: tf_keras.Model) -> Task:
    """The task over labels as :func:`with_teacher` makes them; its metric is that of the labels alone.

    Raises:
        RecipeError: a model of several outputs, or of one that is not a row per sample.
    """
    shapes = [tuple(tensor.shape) for tensor in teacher.outputs]
    if len(shapes) > 1 or len(shapes[0]) != 2 or isinstance(task.loss, dict | list | tuple):
        raise RecipeError(
            f"[distill] needs a model with one output, of one row of values per sample; its outputs are "
            f"{', '.join(map(str, shapes))}.",
            fix="leave the section out.",
        )
    width = shapes[0][1]
    soft = _softened(config.temperature, takes_logits(task.loss)) if task.classes else _squared
    base = task.loss_function()

    def loss(packed: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        labels, taught = _unpack(packed, outputs, width)
        return (1 - config.weight) * base(labels, outputs) + config.weight * soft(taught, outputs)

    labels_only = metric_over(task, lambda packed, outputs: _unpack(packed, outputs, width)[0])
    return dataclasses.replace(task, loss=loss, new_metric=labels_only)


def _flat(values: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.reshape(tf.cast(values, tf.float32), [tf.shape(values)[0], -1])


def _unpack(packed: tf.Tensor, outputs: tf.Tensor, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels as the task takes them, and the teacher's outputs in the shape of the student's."""
    import tensorflow as tf

    labels, taught = packed[:, :-width], packed[:, -width:]
    return labels, tf.reshape(taught, tf.shape(outputs))


def _softened(temperature: float, is_logits: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """T² × KL of distributions that the models give as logits or as probabilities."""
    import tensorflow as tf

    def soften(outputs: tf.Tensor) -> tf.Tensor:
        logits = outputs if is_logits else tf.math.log(tf.maximum(outputs, 1e-8))
        return tf.nn.log_softmax(logits / temperature)

    def divergence(taught: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        teacher, student = soften(taught), soften(outputs)
        return temperature**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(teacher) * (teacher - student), -1))

    return divergence


def _squared(taught: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.reduce_mean(tf.square(taught - outputs))
