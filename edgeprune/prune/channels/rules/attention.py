"""Channel rules of attention layers and of products between two tensors."""

from __future__ import annotations

from typing import Any

from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes, Role
from edgeprune.prune.channels.rules.axes import length, lengths, product, without_batch
from edgeprune.prune.channels.rules.registry import opaque, register
from edgeprune.prune.channels.units import Vector


@register("MultiHeadAttention")
def multi_head_attention(call: Call) -> list[Axes]:
    """Heads, the size of queries and keys, and the size of values can each be pruned.

    The output is a sum over heads and value channels, the scores are a sum over key channels. The layer divides
    queries by the square root of their size, which surgery compensates in the query weights.
    """
    layer = call.layer
    given = _sources(call)
    for axes, _ in given.values():
        call.freeze(axes[:-1], f"positions attended to by {call.name!r} cannot be removed")
    heads = call.produce(layer._num_heads, "heads")
    keys = call.produce(layer._key_dim, "key_dim")
    values = call.produce(layer._value_dim, "value_dim")
    out = call.produce(call.output_shapes[0][-1])  # type: ignore[arg-type]
    projections = {
        "query": (layer._query_dense, keys),
        "key": (layer._key_dense, keys),
        "value": (layer._value_dense, values),
    }
    for name, (projection, size) in projections.items():
        axes, shape = given[name]
        role: Role = "matched" if name == "query" else "produced"
        call.bind(projection.kernel, {0: (axes[-1], "consumed"), 1: (heads, "produced"), 2: (size, role)})
        call.bind(projection.bias, {0: (heads, "produced"), 1: (size, role)})
        call.size((f"{name}_shape", len(shape)), axes[-1])
        call.count_macs(product(shape[:-1]), lengths(axes, shape)[-1], heads, size)
    call.bind(layer._output_dense.kernel, {0: (heads, "consumed"), 1: (values, "consumed"), -1: (out, "produced")})
    call.bind(layer._output_dense.bias, {-1: (out, "produced")})
    targets = product(given["query"][1][:-1])
    pairs = targets * product([given["value"][1][axis - 1] for axis in layer._attention_axes])
    call.count_macs(targets * product(call.output_shapes[0][len(given["query"][1]) - 1 : -1]), heads, values, out)
    call.count_macs(pairs, heads, keys)
    call.count_macs(pairs, heads, values)
    for key, vector in (("num_heads", heads), ("key_dim", keys), ("value_dim", values)):
        call.size(key, vector)
    call.plan.scale_queries = keys
    return [_output(call, given["query"][0], out), *[_scores(call, heads, s) for s in call.output_shapes[1:]]]


def _sources(call: Call) -> dict[str, tuple[Axes, tuple[int | None, ...]]]:
    """Axes and shape of query, value and key; without a key, the values are the keys. Masks are left out."""
    ids = [id(tensor) for tensor in call.node.keras_inputs]
    known = dict(zip(ids, zip(call.inputs, call.input_shapes, strict=True), strict=True))

    def argument(position: int, name: str) -> Any:
        args, kwargs = call.node.call_args, call.node.call_kwargs
        return args[position] if len(args) > position else kwargs.get(name)

    tensors = {name: argument(position, name) for position, name in enumerate(("query", "value", "key"))}
    if tensors["key"] is None:
        tensors["key"] = tensors["value"]
    return {name: known[id(tensor)] for name, tensor in tensors.items()}


def _output(call: Call, query: Axes, out: Vector) -> Axes:
    """The output has the query's positions, and one axis of channels unless the layer was given several."""
    if len(call.output_shapes[0]) > len(query):
        call.freeze([out], f"{call.name!r} makes more than one axis of channels")
    else:
        call.size("output_shape", out)
    return (*(None,) * (len(call.output_shapes[0]) - 1), out)


def _scores(call: Call, heads: Vector, shape: tuple[int | None, ...]) -> Axes:
    """Attention scores, one map per head: the axis before those of the positions that attend and are attended to."""
    place = len(shape) - 1 - 2 * len(call.layer._attention_axes)
    return tuple(heads if axis == place else None for axis in range(len(shape)))


@register("Attention", "AdditiveAttention")
def dense_attention(call: Call) -> list[Axes]:
    """Queries and keys meet channel by channel in a sum, of products or of tanh; the values' channels pass."""
    layer, shapes = call.layer, call.input_shapes
    is_additive = "AdditiveAttention" in (kind.__name__ for kind in type(layer).__mro__)
    if getattr(layer, "score_mode", "dot") != "dot" or len(call.inputs) != len(call.node.call_args[0]):
        return opaque(call, f"this form of {type(layer).__name__} ({call.name!r}) has no channel rule")
    place = len(call.inputs) - 1  # of the keys, which are the values unless a third tensor is given
    query, value, key = call.inputs[0], call.inputs[1], call.inputs[place]
    for axes in call.inputs:
        call.freeze(axes[:-1], f"{call.name!r} attends to these positions")
    why = f"{call.name!r} compares them with channels that cannot be removed"
    if query[-1] is None or key[-1] is None:
        call.freeze([query[-1], key[-1]], why)
    else:
        call.unite(query[-1], key[-1], why)
        call.mask(0, len(query) - 1, query[-1])
        if is_additive:
            call.mask(place, len(key) - 1, key[-1])
    if is_additive and layer.scale is not None:
        call.bind(layer.scale, {0: (query[-1], "followed")})
        if query[-1] is None or value[-1] is None:
            call.freeze([query[-1], value[-1]], why)
        else:  # the layer makes a scale as long as the values' channels
            call.unite(query[-1], value[-1], why)
    pairs = product((*shapes[0][:-1], shapes[1][0]))
    call.count_macs(pairs, lengths(key, shapes[place])[-1])
    call.count_macs(pairs, lengths(value, shapes[1])[-1])
    outputs = [(None,) * len(shape) for shape in call.output_shapes]
    return [(*outputs[0][:-1], value[-1]), *outputs[1:]]


@register("Dot")
def dot(call: Call) -> Axes:
    """A sum over one axis of each input."""
    layer = call.layer
    given = layer.axes if isinstance(layer.axes, list | tuple) else (layer.axes, layer.axes)
    positions = [without_batch(axis) % len(axes) for axis, axes in zip(given, call.inputs, strict=True)]
    left, right = (axes[position] for axes, position in zip(call.inputs, positions, strict=True))
    why = f"{call.name!r} multiplies them with channels that cannot be removed"
    if layer.normalize or left is None or right is None:
        call.freeze([left, right], why)
    else:
        call.unite(left, right, why)
        call.mask(0, positions[0], left)
    rest = [axes[:p] + axes[p + 1 :] for axes, p in zip(call.inputs, positions, strict=True)]
    sizes = [shape[:p] + shape[p + 1 :] for shape, p in zip(call.input_shapes, positions, strict=True)]
    summed = length(call, positions[0])
    call.count_macs(1.0, summed, *lengths((*rest[0], *rest[1]), (*sizes[0], *sizes[1])))
    # Two vectors make one number, which Keras gives an axis.
    return (*rest[0], *rest[1]) or (None,)
