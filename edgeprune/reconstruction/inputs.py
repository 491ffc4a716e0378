"""The second moments of what the layers of a model read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.graph import View, flat
from edgeprune.reconstruction.forward import BATCH_BYTES, Values, bytes_per_sample, call, in_pieces
from edgeprune.reconstruction.linear import product_of
from edgeprune.reconstruction.moments import Moments, sample

if TYPE_CHECKING:
    import tf_keras


def input_moments(
    model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]], names: Collection[str], seed: int = 0
) -> dict[str, Moments]:
    """The moments, without targets, of the rows that the named layers read; in one pass over the data.

    Args:
        model: flat functional tf_keras model.
        batches: per batch the inputs, in the model's order.
        names: of layers that are products (:func:`edgeprune.reconstruction.linear.product_of`) and called once.
        seed: of the rows that are looked at, where there are more than enough.

    Raises:
        ModelError: a layer reads what is NaN or infinite, though the model's answers may be neither.
    """
    import tensorflow as tf

    view, generator = View(model), np.random.default_rng(seed)
    products = {node.layer.name: product_of(node.layer) for node in view.nodes if node.layer.name in names}
    found = {
        name: Moments(product.parts, product.matrix.shape[1], 0)
        for name, product in products.items()
        if product is not None
    }
    last = {id(x): place for place, node in enumerate(view.nodes) for x in node.keras_inputs}
    pieces = in_pieces(batches, max(1, BATCH_BYTES // bytes_per_sample(model)))
    for piece in pieces:
        values: Values = {id(x): tf.convert_to_tensor(value) for x, value in zip(model.inputs, piece, strict=True)}
        for place, node in enumerate(view.nodes):
            if node.is_input:
                continue
            made = flat(call(node, values))
            if moments := found.get(node.layer.name):
                product = products[node.layer.name]
                assert product is not None
                (read,) = node.keras_inputs
                positions = int(np.prod(made[0].shape[:-1]))
                index = sample(positions, moments.inputs.shape[1], len(pieces), generator)
                rows = product.rows(values[id(read)], index).numpy()
                moments.add(rows, np.zeros([*rows.shape[:2], 0]))
            values |= {id(x): value for x, value in zip(flat(node.outputs), made, strict=True)}
            values = {number: value for number, value in values.items() if last.get(number, -1) > place}
    broken = next((name for name, moments in found.items() if not moments.is_finite), None)
    if broken is not None:
        raise ModelError(
            f"What the layer {broken!r} reads is NaN or infinite on some samples: the values before it overflow.",
            expected="a model whose values stay finite between its layers, too.",
            fix='train it with smaller weights or inputs. As it is, [filters] criterion = "l2" chooses by weights '
            "alone, and the recipe int8 makes it smaller without pruning.",
        )
    return found
