"""Where a model's activations are rounded to int8, and the ranges that they have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.graph import CallKey, View, flat, symbol_of
from edgeprune.models.types import Node, Tensor
from edgeprune.quantize.rules import fuses, is_fused, output_range

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

# A tensor of a model: the name of the layer and the index of the call that make it, and its place among the outputs.
Point = tuple[str, int, int]
RoundOne = Callable[[Point, Tensor], Tensor]  # what stands in the place of a tensor: the same, rounded or not


def points(model: tf_keras.Model) -> dict[Point, Tensor]:
    """The tensors that are rounded in the int8 file, each with a range of its own.

    Left out are tensors that TFLite never makes (between an operator and the activation fused into it), those that
    share the range of their input, those whose range TFLite fixes, and integers.

    Args:
        model: as :func:`edgeprune.quantize.prepare.prepare` makes it.
    """
    view = View(model)
    inside = _inside_hard_swish(view)
    rounded_tensors: dict[Point, Tensor] = {}
    for key, node in view.calls.items():
        layer = node.layer
        if not node.is_input and output_range(layer) != "own":
            continue
        for place, tensor in enumerate(flat(node.outputs)):
            after = view.readers(tensor)
            fused = len(after) == 1 and not view.is_end(tensor) and fuses(layer) and is_fused(after[0].layer)
            if tensor.dtype.is_floating and not fused and id(tensor) not in inside:
                rounded_tensors[*key, place] = tensor
    return rounded_tensors


# x * (relu6(x + 3) / 6), which the converter makes one operator HARD_SWISH: from the product backwards, the operation
# that makes the factor, and its constant.
_HARD_SWISH = (
    ({"math.multiply", "__operators__.mul"}, 1 / 6),
    ({"nn.relu6"}, None),
    ({"math.add", "__operators__.add"}, 3.0),
)


def _inside_hard_swish(view: View) -> set[int]:
    """The tensors (by id) between ``x`` and the product: rounding them would keep the converter from fusing."""
    inside: set[int] = set()
    for node in view.nodes:
        if type(node.layer).__name__ != "Multiply" or len(node.keras_inputs) != 2:
            continue
        for x, factor in (node.keras_inputs, node.keras_inputs[::-1]):
            chain, tensor = [], factor
            for symbols, constant in _HARD_SWISH:
                maker = view.maker(tensor)
                if not _is_operation(maker, symbols, constant) or len(view.readers(tensor)) != 1:
                    break
                chain.append(id(tensor))
                tensor = maker.keras_inputs[0]
            if len(chain) == len(_HARD_SWISH) and tensor is x:
                inside |= set(chain)
    return inside


def _is_operation(node: Node, symbols: set[str], constant: float | None) -> bool:
    layer = node.layer
    if type(layer).__name__ == "ReLU":
        return "nn.relu6" in symbols and is_fused(layer) and layer.max_value == 6.0
    if symbol_of(layer) not in symbols:
        return False
    numbers = [value for value in flat((node.call_args, node.call_kwargs)) if isinstance(value, int | float)]
    return constant is None or any(abs(value - constant) < 1e-6 for value in numbers)


def observe(model: tf_keras.Model, batches: Iterable[Any]) -> dict[Point, tuple[float, float]]:
    """The smallest and largest value of every point over batches of inputs; zero is always inside.

    Args:
        batches: of inputs, as the model takes them.
    """
    import tensorflow as tf
    import tf_keras

    tensors = points(model)
    probe = tf_keras.Model(model.inputs, list(tensors.values()))

    @tf.function(reduce_retracing=True)
    def extremes(x: Any) -> list[tuple[tf.Tensor, tf.Tensor]]:
        return [(tf.reduce_min(part), tf.reduce_max(part)) for part in tf.nest.flatten(probe(x, training=False))]

    limits = np.zeros((len(tensors), 2))
    for x in batches:
        seen = np.asarray(extremes(x), "float64").reshape(-1, 2)
        limits = np.stack([np.minimum(limits[:, 0], seen[:, 0]), np.maximum(limits[:, 1], seen[:, 1])], 1)
    return {point: (float(low), float(high)) for point, (low, high) in zip(tensors, limits, strict=True)}


def rounded(outputs: Any, key: CallKey, round_one: RoundOne) -> Any:
    """``outputs`` of a call with ``round_one(point, tensor)`` in the place of each tensor."""
    import tensorflow as tf

    tensors = [round_one((*key, place), tensor) for place, tensor in enumerate(flat(outputs))]
    return tf.nest.pack_sequence_as(outputs, tensors)
