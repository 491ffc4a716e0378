"""What a model answers to samples, and how far a changed model's answers are from those, in nats."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprune.data.spec import values_in
from edgeprune.models.graph import flat
from edgeprune.tasks.infer import End, output_facts

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

Kind = Literal["classes", "chances", "numbers", "none"]
_KINDS: dict[End, Kind] = {"softmax": "classes", "sigmoid": "chances"}
# Below this, a probability counts as this.
_LEAST = 1e-7
# What the answers to the samples that are compared may fill: the masks of a thousand pictures would be gigabytes.
_BYTES = 256_000_000
# Values that are compared at once, in double precision.
_AT_ONCE = 4_000_000


def with_room(model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """The first batches, as many as there is memory for the answers to; one at least."""
    each = sum(output.dtype.size * values_in([output.shape[1:]]) for output in model.outputs)
    ends = np.cumsum([len(batch[0]) for batch in batches])
    return [list(batch) for batch, end in zip(batches, ends, strict=True) if end * each <= _BYTES or end == ends[0]]


def answers_of(model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """What a model answers to all samples, one array per output; ``batches``: per batch the inputs, in its order."""
    found = [[np.asarray(answer) for answer in flat(model(list(batch), training=False))] for batch in batches]
    return [np.concatenate(same) for same in zip(*found, strict=True)]


def in_graph(model: tf_keras.Model) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """What answers a batch, an array per output, as :func:`answers_of` does: by a graph in which operations are fused.

    It takes half of the time, and is worth its making where a model runs dozens of times.
    """
    import tensorflow as tf

    run = tf.function(lambda inputs: flat(model(inputs, training=False)), reduce_retracing=True)
    return lambda inputs: [answer.numpy() for answer in run(list(inputs))]


def divergence(kinds: Sequence[Answer], original: Sequence[np.ndarray], changed: Sequence[np.ndarray]) -> float:
    """How far the answers of a changed model are from those of the original one, in nats per sample.

    The Kullback-Leibler divergence where outputs are distributions or chances; of other outputs, half of the square
    error relative to their own variance: what Fisher information approximates for small errors.

    Args:
        kinds: of the outputs, by :func:`kinds_of`.
        original, changed: an array per output, [samples, ...].
    """
    triples = zip(kinds, original, changed, strict=True)
    return float(np.sum([kind.divergences(p, q).mean() for kind, p, q in triples]))


def kinds_of(model: tf_keras.Model, answers: Sequence[np.ndarray]) -> list[Answer]:
    """What kind of answers each output gives, by the operations that end it, for numbers may lie between 0 and 1, too.

    Args:
        model: functional.
        answers: to some samples, an array per output: [samples, ...].
    """
    facts = output_facts(model, list(answers))
    return [Answer.ending(fact.end, values) for fact, values in zip(facts, answers, strict=True)]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What kind of answers one output gives.

    Attributes:
        kind: rows that are distributions, chances of a yes, numbers, or none that can be compared.
        variance: of all of its values in the original model.
    """

    kind: Kind
    variance: float = 1.0

    @classmethod
    def ending(cls, end: End, values: np.ndarray) -> Answer:
        """The kind of an output that ends so, with the variance of some of its values, [samples, ...]."""
        if not np.issubdtype(values.dtype, np.floating):
            return cls("none")
        return cls(_KINDS.get(end, "numbers"), max(float(values.var(dtype=np.float64)), 1e-12))

    def divergences(self, original: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """How far the answer to each sample is from the original one, in nats: [samples, ...] → float64 [samples]."""
        if self.kind == "none":
            return np.zeros(len(original))
        size = max(1, _AT_ONCE // max(1, original[:1].size))
        starts = range(0, max(1, len(original)), size)
        return np.concatenate([self._of_some(original[i : i + size], changed[i : i + size]) for i in starts])

    def _of_some(self, original: np.ndarray, changed: np.ndarray) -> np.ndarray:
        p, q = original.astype(np.float64), changed.astype(np.float64)
        if self.kind == "classes":
            each = _relative(p, q)
        elif self.kind == "chances":
            each = _relative(p, q) + _relative(1 - p, 1 - q)
        else:
            each = np.square(p - q) / (2 * self.variance)
        return each.sum(tuple(range(1, each.ndim)))

    def loss(self, original: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
        """The sum of :meth:`divergences`, but for what does not depend on the changed model: for gradients."""
        import tensorflow as tf

        if self.kind == "classes":
            return -tf.reduce_sum(original * tf.math.log(changed + _LEAST))
        if self.kind == "chances":
            yes, no = tf.math.log(changed + _LEAST), tf.math.log(1 - changed + _LEAST)
            return -tf.reduce_sum(original * yes + (1 - original) * no)
        return tf.reduce_sum(tf.square(original - changed)) / (2 * self.variance)

    def evened(self, answers: tf.Tensor) -> tf.Tensor:
        """The answers on a scale where a small change of one means as many nats wherever it is.

        The Fisher information of such values is one: the square of a change, halved, is what it diverges by (for
        distributions the square roots of Bartlett 1936, for chances the arcsine of their root).
        """
        import tensorflow as tf

        if self.kind == "classes":
            return 2 * tf.sqrt(tf.maximum(answers, _LEAST))
        if self.kind == "chances":
            return 2 * tf.asin(tf.sqrt(tf.clip_by_value(answers, _LEAST, 1 - _LEAST)))
        return answers / np.sqrt(self.variance)


def _relative(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p * np.log((p + _LEAST) / (q + _LEAST))
