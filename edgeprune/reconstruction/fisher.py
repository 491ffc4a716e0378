"""How much a model's answers feel an error in the output of each layer, without labels.

A small error e of a layer's output changes the answers by half the sum of F e², in nats, where F is the Fisher
information of that output (Martens 2020, arXiv:1412.1193, section 5; for pruning Theis et al. 2018, arXiv:1801.05787).
It is the mean square of a gradient: of the sum of all answers with random signs, on a scale where the information of an
answer is one. Gradients of answers that are drawn from what the model predicts have the same mean square, but where the
model is certain nearly all of them vanish, and a few that are large decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import View, flat
from edgeprune.models.types import Node
from edgeprune.reconstruction.answers import Answer, answers_of, kinds_of, with_room
from edgeprune.reconstruction.forward import Values, apply_activation, bytes_per_sample, call, in_pieces
from edgeprune.reconstruction.linear import Product, product_of

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# What the tensors that a gradient needs may fill for the samples that are run at once.
TAPE_BYTES = 256_000_000
# Samples that show what kind of answers a model gives, and how far numbers vary; fewer where masks fill the memory.
_KINDS_BY = 256


def output_fisher(model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]], seed: int = 0) -> dict[str, Array]:
    """The Fisher information of the outputs, before the activation, of every layer that is a product.

    Args:
        model: flat functional tf_keras model.
        batches: per batch the inputs, in the model's order.
        seed: of the signs.

    Returns:
        Layer → float64 [parts × columns of its product]: for one sample, summed over the positions of the output.
    """
    import tensorflow as tf

    view, generator = View(model), np.random.default_rng(seed)
    totals: dict[str, Array] = {}
    samples = 0
    size = max(1, TAPE_BYTES // bytes_per_sample(model, all_at_once=True))
    pieces = in_pieces(batches, size)
    starts = np.cumsum([0, *(len(piece[0]) for piece in pieces)])
    first = [piece for piece, start in zip(pieces, starts, strict=False) if start < _KINDS_BY]
    kinds = kinds_of(model, answers_of(model, with_room(model, first)))
    for batch in pieces:
        with tf.GradientTape() as tape:
            outputs, seen = watched(view, batch, tape)
            loss = with_random_signs(kinds, outputs, generator)
        gradients = tape.gradient(loss, [linear for *_, linear in seen])
        samples += len(batch[0])
        for (node, product, _), gradient in zip(seen, gradients, strict=True):
            if gradient is None:
                continue
            name = node.layer.name
            # A root or a logarithm of zero has no slope; such a sample says nothing about this output.
            finite = np.nan_to_num(np.asarray(product.outputs(gradient, None), np.float64), posinf=0, neginf=0)
            squared = np.square(finite).sum(1).reshape(-1)
            totals[name] = totals.get(name, 0) + squared
    return {name: total / samples for name, total in totals.items()}


def watched(
    view: View, batch: Sequence[np.ndarray], tape: tf.GradientTape
) -> tuple[list[tf.Tensor], list[tuple[Node, Product, tf.Tensor]]]:
    """Run a model on one batch of inputs; the tape is to know what its layers make.

    Returns:
        What the model gives; and for each call of a layer that is a product: the call, the product, and what it makes
        before the layer's activation.
    """
    import tensorflow as tf

    model = view.model
    values: Values = {id(x): tf.convert_to_tensor(value) for x, value in zip(model.inputs, batch, strict=True)}
    seen: list[tuple[Node, Product, tf.Tensor]] = []
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
            seen.append((node, product, linear))
            made = apply_activation(node.layer, linear)
        values |= {id(x): value for x, value in zip(flat(node.outputs), flat(made), strict=True)}
    return [values[id(x)] for x in model.outputs], seen


def with_random_signs(
    kinds: Sequence[Answer], outputs: Sequence[tf.Tensor], generator: np.random.Generator
) -> tf.Tensor:
    """The sum of all answers, on the scale of :meth:`Answer.evened`, each with a random sign.

    The outer product of its gradient is an unbiased estimate of the Fisher information (Hutchinson 1990,
    doi:10.1080/03610919008812866).
    """
    import tensorflow as tf

    total = tf.constant(0.0)
    for kind, output in zip(kinds, outputs, strict=True):
        if kind.kind != "none":
            signs = tf.constant(generator.choice([-1.0, 1.0], output.shape), output.dtype)
            total += tf.cast(tf.reduce_sum(signs * kind.evened(output)), tf.float32)
    return total
