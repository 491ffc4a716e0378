"""The shapes that layers are called on, nested models included, with dimensions that a model leaves open filled in."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.models.graph import flat, is_graph, is_symbolic, ordered_nodes
from edgeprune.models.rebuild import rebuild
from edgeprune.models.types import Layer, Node, Structure, Tensor

if TYPE_CHECKING:
    import tf_keras

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class CallShapes:
    """What one call of a layer takes and makes: shapes without the batch dimension; ``None`` is an unknown dimension.

    Attributes:
        inputs: shapes of the Keras tensors among the positional arguments, lists opened; constants are left out.
        output: shape of the first output.
        named: shapes of the tensors among the keyword arguments.
        equation: the first argument when it is a string, as of ``tf.einsum``.
    """

    inputs: tuple[Shape, ...]
    output: Shape
    named: Mapping[str, Shape] = dataclasses.field(default_factory=dict)
    equation: str | None = None


def calls(model: tf_keras.Model, shapes: tuple[Shape, ...] | None = None) -> Iterator[tuple[str, Layer, CallShapes]]:
    """Every call of every layer, in the order of the data, input layers left out.

    A model nested in ``model`` is opened at each place where it is called; its layers are named ``outer/inner``.

    Args:
        model: a functional or built Sequential model.
        shapes: of the inputs, one per input, without the batch dimension, where they say more than the model itself
            (a nested model built for images of any size knows its sizes only from its call).

    Yields:
        ``(name, layer, shapes of the call)``; a layer that is called twice comes twice.
    """
    graph = with_shapes(model, shapes)
    for node in ordered_nodes(graph):
        if node.is_input:
            continue
        layer = model.get_layer(node.layer.name)
        call = call_shapes(node)
        if is_graph(layer):
            yield from ((f"{layer.name}/{name}", part, inner) for name, part, inner in calls(layer, call.inputs))
        else:
            yield layer.name, layer, call


def shape_of(tensor: Tensor) -> Shape:
    """Shape of a tensor without its batch dimension."""
    return tuple(tensor.shape)[1:] if tensor.shape.rank else ()


def shapes_with_batch(tensors: Sequence[Tensor]) -> list[Any]:
    """As report.json has them: the shape of the only tensor, or a list of shapes."""
    shapes = [list(tensor.shape) for tensor in tensors]
    return shapes[0] if len(shapes) == 1 else shapes


def with_shapes(model: tf_keras.Model, shapes: tuple[Shape, ...] | None = None) -> tf_keras.Model:
    """``model``, or a copy built for ``shapes`` where those fill in dimensions that the model leaves open.

    A model of fixed inputs may compute shapes from the number of samples, ``tf.reshape(x, [tf.shape(x)[0], -1, 8])``:
    for a batch of one it knows them.
    """
    import tf_keras

    own = tuple(shape_of(tensor) for tensor in model.inputs)
    filled = tuple(
        tuple(given if mine is None else mine for mine, given in zip(ours, theirs, strict=True))
        for ours, theirs in zip(own, own if shapes is None else shapes, strict=True)
    )
    is_open = None not in itertools.chain(*filled) and any(
        None in shape_of(tensor) for node in ordered_nodes(model) for tensor in flat(node.outputs)
    )
    if filled == own and not is_open:
        return model
    shape_by_name = {tensor.node.layer.name: shape for tensor, shape in zip(model.inputs, filled, strict=True)}

    def emit_input(layer: Layer) -> Tensor:
        shape = shape_by_name[layer.name]
        return tf_keras.Input(shape, 1 if is_open else None, dtype=layer.output.dtype, name=layer.name)

    return rebuild(model, emit_input=emit_input, drop_idle=True)


def call_shapes(node: Node) -> CallShapes:
    """What one call in a functional model takes and makes."""

    def shapes(structure: Structure) -> tuple[Shape, ...]:
        return tuple(shape_of(item) for item in flat(structure) if is_symbolic(item))

    named = {name: shapes(value) for name, value in node.call_kwargs.items()}
    first = node.call_args[0] if node.call_args else None
    return CallShapes(
        inputs=shapes(node.call_args),
        output=shape_of(flat(node.outputs)[0]),
        named={name: of_tensors[0] for name, of_tensors in named.items() if of_tensors},
        equation=first if isinstance(first, str) else None,
    )
