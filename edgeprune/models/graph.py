"""A functional model as a graph: its layer calls in order, and who makes and who reads each tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeprune.models.types import Layer, Node, Structure, Tensor, Value

if TYPE_CHECKING:
    import tf_keras

# A call: the name of the layer, and the call index, which counts the calls of that layer from 0 in the order of the
# data. It names the same call in a model and in its copies.
CallKey = tuple[str, int]


class View:
    """An index over one functional model. Calls are the ``Node`` objects of tf_keras, those of input layers included.

    It describes the model as it was when the view was made, and leaves out what other models do with the same layers.

    Attributes:
        calls: every call by its key, each after those that it takes its inputs from.
        nodes: the same calls, without the keys.
    """

    def __init__(self, model: tf_keras.Model):
        self.model = model
        self.nodes = ordered_nodes(model)
        self.calls: dict[CallKey, Node] = {}
        self._uses: dict[str, list[Node]] = {}
        self._makers: dict[int, Node] = {}
        self._readers: dict[int, list[Node]] = {}
        self._ends = {id(tensor) for tensor in model.outputs}
        for node in self.nodes:
            uses = self._uses.setdefault(node.layer.name, [])
            self.calls[node.layer.name, len(uses)] = node
            uses.append(node)
            self._makers |= dict.fromkeys(map(id, flat(node.outputs)), node)
            for tensor in dict.fromkeys(map(id, node.keras_inputs)):
                self._readers.setdefault(tensor, []).append(node)

    def maker(self, tensor: Tensor) -> Node:
        """The call that a tensor of the model is an output of."""
        return self._makers[id(tensor)]

    def readers(self, tensor: Tensor) -> list[Node]:
        """The calls that take a tensor among their arguments, each once, in order."""
        return self._readers.get(id(tensor), [])

    def uses(self, layer: Layer) -> list[Node]:
        """The calls of a layer of the model, in order."""
        return self._uses[layer.name]

    def only_reader(self, node: Node) -> Node | None:
        """The call that reads what a call makes, if there is one only, of a layer that is called once."""
        readers = self.readers(node.outputs)
        is_alone = len(readers) == 1 and not self.is_end(node.outputs) and len(self.uses(readers[0].layer)) == 1
        return readers[0] if is_alone else None

    def is_end(self, tensor: Tensor) -> bool:
        """Whether a tensor is an output of the model."""
        return id(tensor) in self._ends

    def needed(self, replaced: Mapping[int, Tensor] | None = None) -> set[int]:
        """Ids of the calls that the outputs depend on, and of all inputs.

        Args:
            replaced: id of a tensor → the earlier tensor that takes its place.
        """
        needed = {id(node) for node in self.nodes if node.is_input}
        waiting = [*self.model.outputs]
        while waiting:
            node = self.maker(final(waiting.pop(), replaced or {}))
            if id(node) not in needed:
                needed.add(id(node))
                waiting += node.keras_inputs
        return needed


def final(tensor: Value, replaced: Mapping[int, Tensor]) -> Value:
    """The tensor that takes the place of a tensor, replacements of replacements followed; other values as they are."""
    while id(tensor) in replaced:
        tensor = replaced[id(tensor)]
    return tensor


def ordered_nodes(model: tf_keras.Model) -> list[Node]:
    """The calls of a functional model, inputs included, each after those that it takes its inputs from."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def flat(structure: Structure) -> list[Value]:
    """The leaves of nested lists, tuples and dicts, as TensorFlow orders them."""
    import tensorflow as tf

    return tf.nest.flatten(structure)


def is_graph(layer: Layer) -> bool:
    """Whether a layer is a model whose layers can be listed."""
    return bool(getattr(layer, "_is_graph_network", False))


def is_symbolic(value: Value) -> bool:
    """Whether a value is a tensor of a tf_keras graph."""
    from tf_keras.src.engine.keras_tensor import KerasTensor

    return isinstance(value, KerasTensor)


def activation_name(layer: Layer) -> str:
    """The name of the function in ``layer.activation``, of its class if it is a layer; ``linear`` if there is none."""
    function = getattr(layer, "activation", None)
    return "linear" if function is None else getattr(function, "__name__", type(function).__name__)


def symbol_of(layer: Layer) -> str:
    """The public name of the TensorFlow function that an operation layer calls, such as ``math.add``.

    Without the prefix ``compat.v1.``, which ``tf.transpose`` and others get from the function that they call in turn;
    the arguments of the call are that function's. Empty for other layers, and for functions that are not public.
    """
    return (getattr(layer, "symbol", None) or "").removeprefix("compat.v1.")
