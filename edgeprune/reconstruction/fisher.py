"""How much a model's answers feel an error in the output of each layer, without labels.

A small error e of a layer's output changes the log-likelihood of the model's own answers by half the sum of F e², where
F is the Fisher information of that output: the mean square of the gradient, for answers drawn from what the model
itself predicts (Martens 2020, arXiv:1412.1193, section 5; for pruning Theis et al. 2018, arXiv:1801.05787).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune.models.graph import View, flat
from edgeprune.reconstruction.forward import Values, apply_activation, bytes_per_sample, call, in_pieces
from edgeprune.reconstruction.linear import Product, product_of

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# What the tensors that a gradient needs may fill for the samples that are run at once.
TAPE_BYTES = 256_000_000
_SUMS_TO_ONE = 1e-3


def output_fisher(model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]], seed: int = 0) -> dict[str, Array]:
    """The Fisher information of the outputs, before the activation, of every layer that is a product.

    Args:
        model: flat functional tf_keras model.
        batches: per batch the inputs, in the model's order.
        seed: of the drawn answers.

    Returns:
        Layer → float64 [parts × columns of its product]: for one sample, summed over the positions of the output.
    """
    import tensorflow as tf

    view, generator = View(model), np.random.default_rng(seed)
    totals: dict[str, Array] = {}
    samples = 0
    size = max(1, TAPE_BYTES // bytes_per_sample(model, all_at_once=True))
    for batch in in_pieces(batches, size):
        values: Values = {id(x): tf.convert_to_tensor(value) for x, value in zip(model.inputs, batch, strict=True)}
        seen: list[tuple[str, Product, tf.Tensor]] = []
        with tf.GradientTape() as tape:
            # Watched, so that gradients reach the layers even where all weights are frozen.
            for value in values.values():
                if value.dtype.is_floating:
                    tape.watch(value)
            for node in view.nodes:
                if node.is_input:
                    continue
                product = product_of(node.layer)
                if product is None:
                    made = call(node, values)
                else:
                    linear = call(node, values, linear=True)
                    tape.watch(linear)
                    seen.append((node.layer.name, product, linear))
                    made = apply_activation(node.layer, linear)
                values |= {id(x): value for x, value in zip(flat(node.outputs), flat(made), strict=True)}
            loss = tf.add_n([_surprise(values[id(x)], generator) for x in model.outputs])
        gradients = tape.gradient(loss, [linear for *_, linear in seen])
        samples += len(batch[0])
        for (name, product, _), gradient in zip(seen, gradients, strict=True):
            if gradient is None:
                continue
            squared = np.square(np.asarray(product.outputs(gradient, None), np.float64)).sum(1).reshape(-1)
            totals[name] = totals.get(name, 0) + squared
    return {name: total / samples for name, total in totals.items()}


def answers_of(model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """What a model answers to all samples, one array per output; ``batches``: per batch the inputs, in its order."""
    found = [[np.asarray(answer) for answer in flat(model(list(batch), training=False))] for batch in batches]
    return [np.concatenate(same) for same in zip(*found, strict=True)]


def divergence(original: Sequence[np.ndarray], changed: Sequence[np.ndarray]) -> float:
    """How far the answers of a changed model are from those of the original one, in nats per sample.

    The Kullback-Leibler divergence where outputs are distributions or values between zero and one; of other outputs,
    half of the square error relative to their own variance: what Fisher information approximates for small errors.

    Args:
        original, changed: an array per output, [samples, ...]; those that are not floating are left out.
    """
    return sum(
        _divergence(p.astype(np.float64), q.astype(np.float64)) / len(p)
        for p, q in zip(original, changed, strict=True)
        if np.issubdtype(p.dtype, np.floating)
    )


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    kind = _kind(p)
    if kind == "classes":
        return float((p * np.log((p + 1e-7) / (q + 1e-7))).sum())
    if kind == "chances":
        return sum(float((a * np.log((a + 1e-7) / (b + 1e-7))).sum()) for a, b in ((p, q), (1 - p, 1 - q)))
    return float(np.square(p - q).sum()) / (2 * max(float(p.var()), 1e-12))


def _kind(values: np.ndarray) -> Literal["classes", "chances", "numbers"]:
    """What outputs are: rows that are distributions, values between zero and one, or numbers."""
    if not ((values >= 0) & (values <= 1)).all():
        return "numbers"
    rows = values.reshape(-1, values.shape[-1])
    return "classes" if rows.shape[1] > 1 and np.abs(rows.sum(1) - 1).max() < _SUMS_TO_ONE else "chances"


def _surprise(outputs: tf.Tensor, generator: np.random.Generator) -> tf.Tensor:
    """The negative log-likelihood, summed over samples, of answers drawn from what the outputs say.

    Rows that are distributions give classes, values between zero and one give yes or no. Of other outputs nothing is
    known: their noise is taken as normal, with the variance that they have themselves.
    """
    import tensorflow as tf

    values = np.asarray(outputs, np.float64)
    if not np.issubdtype(outputs.dtype.as_numpy_dtype, np.floating):
        return tf.constant(0.0)
    kind = _kind(values)
    if kind == "classes":
        rows = values.reshape(-1, values.shape[-1])
        drawn = (rows.cumsum(1) > generator.random([len(rows), 1]) * rows.sum(1, keepdims=True)).argmax(1)
        flat_outputs = tf.reshape(outputs, rows.shape)
        return -tf.reduce_sum(tf.math.log(tf.gather(flat_outputs, drawn, batch_dims=1) + 1e-7))
    if kind == "chances":
        drawn = tf.constant(generator.random(values.shape) < values, outputs.dtype)
        return -tf.reduce_sum(drawn * tf.math.log(outputs + 1e-7) + (1 - drawn) * tf.math.log(1 - outputs + 1e-7))
    noise: Any = generator.normal(size=values.shape) / max(float(values.std()), 1e-12)
    return tf.reduce_sum(outputs * tf.constant(noise, outputs.dtype))
