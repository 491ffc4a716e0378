"""The task without labels: the unpruned model's outputs are what a changed model is trained for and measured by.

Every output counts at its own scale: a distribution by its divergence from the teacher's (Hinton et al. 2015,
arXiv:1503.02531), any other by the squared difference relative to the variance of the teacher's values. So a model can
be pruned whose outputs nobody can name, a detector for example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.spec import values_in
from edgeprune.models.types import Structure
from edgeprune.tasks.infer import OutputFacts, output_facts
from edgeprune.tasks.task import Metric, Output, Task

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

    from edgeprune.data import Data

SCALE_SAMPLES = 256  # training samples that the scale of each output is taken from
SCALE_BYTES = 256_000_000  # of masks and other large outputs there are fewer
BATCH = 32
NAME = "agreement"
ORIGIN = "the unpruned model's output"


def teacher_task(model: tf_keras.Model, data: Data, names: Sequence[str]) -> Task:
    """The task of giving the outputs of ``model``.

    Args:
        model: the unpruned model.
        data: with or without labels, which are not used.
        names: of its outputs.

    Returns:
        A task whose figure is the mean over the outputs of their agreement with the teacher, 1 for the teacher itself:
        of a distribution the fraction of equal classes, of other outputs 1 - squared error / variance.
    """
    samples = _samples(model, data)
    facts = output_facts(model, samples)
    outputs = tuple(
        _output(i, name, fact, values, len(names) > 1)
        for i, (name, fact, values) in enumerate(zip(names, facts, samples, strict=True))
    )
    answers = _answers(model)
    watched = tuple(output.metrics[0] for output in outputs)
    return Task(outputs, watched, NAME, prepare=_prepare(answers), answers=answers)


def _samples(model: tf_keras.Model, data: Data) -> list[np.ndarray]:
    """Outputs on some training samples, one array per output."""
    import tensorflow as tf

    from edgeprune.data import data_errors

    count = max(1, min(SCALE_SAMPLES, SCALE_BYTES // (4 * values_in(output.shape[1:] for output in model.outputs))))
    indices = np.random.default_rng(0).permutation(data.train.size)[:count]
    with data_errors():
        batches = [tf.nest.flatten(model(x, training=False)) for x in data.train.inputs(BATCH, indices=indices)]
    return [np.concatenate([np.asarray(value) for value in values]) for values in zip(*batches, strict=True)]


def _output(index: int, name: str, facts: OutputFacts, values: np.ndarray, many: bool) -> Output:
    import tf_keras

    full = f"{name}.{NAME}" if many else NAME
    if facts.end == "softmax":
        metric = Metric(full, index, lambda: tf_keras.metrics.CategoricalAccuracy(name=NAME), True, 100.0)
        classes = facts.width if len(facts.shape) == 1 else None
        kind: Any = "classification" if classes else None
        return Output(
            name, tf_keras.losses.KLDivergence(), kind, 1.0, (metric,), classes, width=facts.width, origin=ORIGIN
        )
    # Of its channels' own means: a box and a score in one output have different ones.
    spread = float(np.square(values - values.mean(tuple(range(values.ndim - 1)), keepdims=True)).mean())
    weight = 1 / spread if spread > 0 else 1.0
    metric = Metric(full, index, lambda: explained_variance(NAME), True, 100.0)
    return Output(
        name, tf_keras.losses.MeanSquaredError(), "regression", weight, (metric,), width=facts.width, origin=ORIGIN
    )


def explained_variance(name: str) -> tf_keras.metrics.Metric:
    """1 - sum of squared errors / sum of squared deviations from the mean of each channel (the last axis).

    1 for equal outputs; 0 for an output that is always its mean; of a constant output 1 if it is met, else 0.
    """
    import tensorflow as tf
    import tf_keras

    class ExplainedVariance(tf_keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name=name)
            self.error = self.add_weight("error", initializer="zeros", dtype="float64")
            self.values = self.add_weight("values", initializer="zeros", dtype="float64")
            self.total: Any = None
            self.squares: Any = None

        def update_state(self, labels: tf.Tensor, outputs: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
            truth = tf.reshape(tf.cast(labels, tf.float64), [-1, outputs.shape[-1]])
            given = tf.reshape(tf.cast(outputs, tf.float64), [-1, outputs.shape[-1]])
            if self.total is None:
                with tf.init_scope():
                    self.total, self.squares = (
                        self.add_weight(part, shape=[outputs.shape[-1]], initializer="zeros", dtype="float64")
                        for part in ("total", "squares")
                    )
            self.error.assign_add(tf.reduce_sum(tf.square(truth - given)))
            self.values.assign_add(tf.cast(tf.shape(truth)[0], tf.float64))
            self.total.assign_add(tf.reduce_sum(truth, 0))
            self.squares.assign_add(tf.reduce_sum(tf.square(truth), 0))

        def reset_state(self) -> None:
            for variable in self.variables:
                variable.assign(tf.zeros_like(variable))

        def result(self) -> tf.Tensor:
            if self.total is None:
                return tf.constant(0.0, tf.float64)
            spread = tf.reduce_sum(self.squares - tf.square(self.total) / tf.maximum(self.values, 1))
            met = tf.where(self.error > 0, tf.zeros_like(spread), tf.ones_like(spread))
            return tf.where(spread > 0, 1 - self.error / tf.maximum(spread, 1e-300), met)

    return ExplainedVariance()


def _answers(model: tf_keras.Model) -> Callable[[Structure], Structure]:
    def answers(x: Structure) -> Structure:
        import tensorflow as tf

        outputs = tf.nest.flatten(model(x, training=False))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    return answers


def _prepare(answers: Callable[[Structure], Structure]) -> Callable[[Data], Data]:
    def relabel(x: Structure, y: Structure, w: Structure) -> tuple[Structure, Structure]:
        return answers(x), ()

    def prepare(data: Data) -> Data:
        splits = {name: dataclasses.replace(getattr(data, name), relabel=relabel) for name in _SPLITS}
        return dataclasses.replace(data, **splits)

    return prepare


_SPLITS = ("train", "validation", "test")
