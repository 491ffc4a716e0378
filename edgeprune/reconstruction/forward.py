"""A functional model run call by call over the same batches, so that a layer can be changed before the next is run."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.graph import CallKey, View, activation_name, flat, is_symbolic
from edgeprune.models.types import Layer, Node
from edgeprune.reconstruction.linear import Values

if TYPE_CHECKING:
    import tf_keras

# What the tensors of the samples that are run at once may fill.
BATCH_BYTES = 128_000_000
# Samples in batches that are joined: with more of them, calls cost no less.
_JOINED = 256


class Forward:
    """The tensors of a model for every batch, each kept from the call that makes it to the last one that reads it.

    Every call is made once per batch, which costs what one pass over the data costs, however many layers change.

    Args:
        model: functional.
        batches: per batch the inputs, in the order of ``model.inputs``.

    Attributes:
        view: of the model.
        done: keys of the calls that were made.
    """

    def __init__(self, model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]]):
        import tensorflow as tf

        self.view = View(model)
        self._keys = {id(node): key for key, node in self.view.calls.items()}
        self.done: set[CallKey] = {key for key, node in self.view.calls.items() if node.is_input}
        self._kept: list[Values] = [
            {id(tensor): tf.convert_to_tensor(value) for tensor, value in zip(model.inputs, batch, strict=True)}
            for batch in batches
        ]

    def has(self, node: Node, more: Collection[CallKey] = ()) -> bool:
        """Whether what a call reads is there, once the calls ``more`` are made."""
        return all(self.key(self.view.maker(tensor)) in (*self.done, *more) for tensor in node.keras_inputs)

    def run(self, keys: Sequence[CallKey], batch: int) -> Values:
        """Make calls, in the order of the model, for one batch: the values that are kept, and those that they make."""
        values = dict(self._kept[batch])
        for key in keys:
            node = self.view.calls[key]
            for tensor, value in zip(flat(node.outputs), flat(call(node, values)), strict=True):
                values[id(tensor)] = value
        return values

    def keep(self, keys: Sequence[CallKey], batch: int, values: Values) -> None:
        """Keep of a batch's values what calls outside ``done`` and ``keys`` read."""
        made = {*self.done, *keys}
        needed = {id(x) for key, node in self.view.calls.items() if key not in made for x in node.keras_inputs}
        self._kept[batch] = {number: value for number, value in values.items() if number in needed}

    def key(self, node: Node) -> CallKey:
        """The key of a call of the model."""
        return self._keys[id(node)]


def in_pieces(batches: Sequence[Sequence[np.ndarray]], size: int) -> list[list[np.ndarray]]:
    """The batches, split into pieces of at most ``size`` samples."""
    return [
        [array[start : start + size] for array in batch] for batch in batches for start in range(0, len(batch[0]), size)
    ]


def joined(batches: Sequence[Sequence[np.ndarray]], size: int) -> list[list[np.ndarray]]:
    """Neighbours joined to batches of nearly one size, at most ``size`` samples and 256; an even number of them."""
    at_once = max(1, min(size, _JOINED) // max(len(batch[0]) for batch in batches))
    number = 2 * math.ceil(len(batches) / at_once / 2)
    groups = np.array_split(np.arange(len(batches)), min(number, len(batches)))
    parts = [[batches[i] for i in some] for some in groups]
    # A batch that stays alone is not copied: large images fill much of the memory as they are.
    return [[np.concatenate(x) if len(x) > 1 else x[0] for x in zip(*some, strict=True)] for some in parts]


def bytes_per_sample(model: tf_keras.Model, *, all_at_once: bool = False) -> int:
    """What :class:`Forward` keeps of one sample at most, between two calls; open sizes count as one.

    Args:
        all_at_once: count every tensor of the model, as a gradient needs them.
    """
    view = View(model)
    last = {id(x): place for place, node in enumerate(view.nodes) for x in node.keras_inputs}
    sizes: dict[int, int] = {}
    most = 0
    for place, node in enumerate(view.nodes):
        for tensor in flat(node.outputs):
            shape = [size or 1 for size in tensor.shape[1:]]
            sizes[id(tensor)] = int(np.prod(shape)) * int(tensor.dtype.size)
        if all_at_once:
            most = sum(sizes.values())
            continue
        sizes = {number: size for number, size in sizes.items() if last.get(number, -1) > place}
        most = max(most, sum(sizes.values()))
    return most


def call(node: Node, values: Values, *, linear: bool = False) -> Any:
    """Make one call.

    Args:
        node: of a functional model.
        values: of the tensors that it reads.
        linear: leave out the layer's activation.
    """
    import tensorflow as tf

    args, kwargs = tf.nest.map_structure(
        lambda value: values[id(value)] if is_symbolic(value) else value, (node.call_args, node.call_kwargs)
    )
    if not linear:
        return node.layer(*args, **kwargs)
    activation = node.layer.activation
    node.layer.activation = None  # of this call only
    try:
        return node.layer(*args, **kwargs)
    finally:
        node.layer.activation = activation


def apply_activation(layer: Layer, linear: Any) -> Any:
    """What a layer gives, from its output without the activation."""
    return linear if layer.activation is None else layer.activation(linear)


def norm_behind(view: View, node: Node) -> Node | None:
    """The batch normalization whose mean can take a constant of what a call makes; None: there is none."""
    reader = view.only_reader(node) if activation_name(node.layer) == "linear" else None
    return reader if reader is not None and type(reader.layer).__name__ == "BatchNormalization" else None


def in_order(model: tf_keras.Model, x: Any) -> list[np.ndarray]:
    """The inputs of a batch, in the structure that the model takes, as a list in the order of ``model.inputs``."""
    return [np.asarray(value) for value in model._flatten_to_reference_inputs(x)]
