"""The walk through a model that finds out which of its channels depend on each other.

It goes through the layer calls of a functional model once, in order. For every tensor it knows, per axis, the unit of
each position (:mod:`edgeprune.prune.channels.units`), or None for an axis that nothing removes anything from. A rule
per layer class (:mod:`edgeprune.prune.channels.rules`) says how units pass through a call and along which axes its
weights follow them. What has no rule freezes the units that reach it, with a reason.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.graph import View, flat
from edgeprune.models.macs import UnknownShape, layer_macs
from edgeprune.models.shapes import call_shapes, with_shapes
from edgeprune.models.types import Layer, Node, Tensor, Variable
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes, Binding, Graph, Group, LayerPlan, Member, Term
from edgeprune.prune.channels.rules import apply_rule
from edgeprune.prune.channels.units import Vector

if TYPE_CHECKING:
    import tf_keras


def analyse(model: tf_keras.Model) -> Graph:
    """Find out which channels of ``model`` depend on each other.

    Args:
        model: flat functional tf_keras model (nested models have no rule, and freeze what reaches them).
    """
    graph = Graph(model)
    axes, shapes = graph.axes, dict[int, tuple[int | None, ...]]()
    twins = View(with_shapes(model)).calls  # the same calls, whose shapes may be better known
    for key, node in graph.view.calls.items():
        outputs, twin = flat(node.outputs), twins.get(key, node)  # layers that only add a loss have no twin
        known_shapes = [_shape(tensor, node) for tensor in flat(twin.outputs)]
        shapes.update(zip(map(id, outputs), known_shapes, strict=True))
        if node.is_input:
            axes.update({id(tensor): (None,) * (len(tensor.shape) - 1) for tensor in outputs})
            continue
        inputs = list(node.keras_inputs)
        call = Call(
            graph,
            node.layer,
            node.layer,
            node,
            key[1],
            [axes[id(tensor)] for tensor in inputs],
            [shapes[id(tensor)] for tensor in inputs],
            [shapes[id(tensor)] for tensor in outputs],
        )
        counted = len(graph.macs)
        output_axes = apply_rule(call)
        if len(graph.macs) == counted:
            call.count_macs(fixed_macs(twin))
        _check(call, output_axes)
        axes.update({id(tensor): made for tensor, made in zip(outputs, output_axes, strict=True)})
    for tensor in model.outputs:
        for vector in axes[id(tensor)]:
            if vector is not None:
                graph.units.freeze(vector, "output of the model")
    _finish(graph)
    return graph


def fixed_macs(node: Node) -> float:
    """MACs of a call whose rule counts none: they stay, whatever is removed."""
    try:
        return float(layer_macs(node.layer, call_shapes(node)) or 0)
    except UnknownShape:
        return 0.0


def _shape(tensor: Tensor, node: Node) -> tuple[int | None, ...]:
    """The shape of an output of a call, without the batch."""
    if tensor.shape.rank is None:
        raise ModelError(
            f"The layer {node.layer.name!r} makes a tensor whose number of axes is not known before it runs.",
            expected="a model whose tensors all have a known number of axes",
            fix="name the axes that it drops or makes, as in tf.squeeze(x, axis=1).",
        )
    return tuple(tensor.shape[1:])


def _check(call: Call, output_axes: Sequence[Axes | None]) -> None:
    """Refuse axes that are not as many and as long as those of the outputs."""
    sizes = [None if axes is None else tuple(None if v is None else len(v) for v in axes) for axes in output_axes]
    fits = len(sizes) == len(call.output_shapes) and all(
        made is not None
        and len(made) == len(shape)
        and all(size is None or size == true for size, true in zip(made, shape, strict=True))
        for made, shape in zip(sizes, call.output_shapes, strict=True)
    )
    if not fits:
        raise ModelError(
            f"The channel rule of {type(call.layer).__name__} returned axes of the sizes {sizes} for the layer "
            f"{call.name!r}, whose outputs have the shapes {call.output_shapes}.",
            expected="for each output a tuple with one entry for each axis but the batch: an array of that size, or "
            "None.",
            fix="correct the rule that was registered with edgeprune.register_rule.",
        )


def _finish(graph: Graph) -> None:
    """Resolve every vector to representatives, and collect the groups."""
    find = graph.units.find
    for plan in graph.layers.values():
        plan.bindings = [dataclasses.replace(b, vector=find(b.vector)) for b in plan.bindings]
        plan.sizes = {key: find(vector) for key, vector in plan.sizes.items()}
        plan.scale_queries = None if plan.scale_queries is None else find(plan.scale_queries)
    graph.edits = {
        key: [dataclasses.replace(e, vector=find(e.vector)) for e in edits] for key, edits in graph.edits.items()
    }
    graph.macs = [dataclasses.replace(t, vectors=tuple(find(v) for v in t.vectors)) for t in graph.macs]
    graph.masks = {key: [(t, axis, find(v)) for t, axis, v in rows] for key, rows in graph.masks.items()}
    graph.params = [term for layer in graph.model.layers for term in _weight_terms(layer, graph.layers[layer.name])]
    graph.axes = {key: tuple(None if v is None else find(v) for v in axes) for key, axes in graph.axes.items()}
    graph.producers = [(label, layer, find(vector)) for label, layer, vector in graph.producers]
    graph.nonempty = [find(v) for v in graph.nonempty] + [vector for _, _, vector in graph.producers]
    graph.groups = tuple(_groups(graph))


def _weight_terms(layer: Layer, plan: LayerPlan) -> Iterator[Term]:
    """One term per weight: the axes that follow units move, the others are fixed."""
    for number, weight in enumerate(layer.weights):
        moving = {binding.axis: binding.vector for binding in plan.bindings if binding.weight == number}
        fixed = math.prod(size for axis, size in enumerate(weight.shape) if axis not in moving)
        yield Term(layer.name, float(fixed), tuple(moving.values()))


def _groups(graph: Graph) -> list[Group]:
    """Producers that share a unit make one group, named after the first of them."""
    home = np.full(len(graph.units), -1)  # unit → number of its set of producers
    merged: list[list[int]] = []
    for number, (_, _, vector) in enumerate(graph.producers):
        touched = [int(n) for n in np.unique(home[vector]) if n >= 0]
        if not touched:
            touched = [len(merged)]
            merged.append([])
        for other in touched[1:]:
            merged[touched[0]] += merged[other]
            merged[other] = []
            home[home == other] = touched[0]
        merged[touched[0]].append(number)
        home[vector] = touched[0]
    bindings: list[list[tuple[str, Variable, Binding]]] = [[] for _ in merged]
    for layer in graph.model.layers:
        weights = layer.weights
        for binding in graph.layers[layer.name].bindings:
            for target in np.unique(home[binding.vector]).tolist():
                if target >= 0:
                    bindings[target].append((layer.name, weights[binding.weight], binding))
    number_of = np.full(len(graph.units), -1)
    return [
        _group(graph, [graph.producers[n] for n in sorted(numbers)], reached, number_of)
        for numbers, reached in zip(merged, bindings, strict=True)
        if numbers
    ]


def _group(
    graph: Graph,
    producers: Sequence[tuple[str, str, Vector]],
    bindings: Sequence[tuple[str, Variable, Binding]],
    number_of: np.ndarray,
) -> Group:
    """``number_of`` [units] is scratch space, -1 everywhere before and after."""
    everything = np.concatenate([vector for _, _, vector in producers])
    units = everything[np.sort(np.unique(everything, return_index=True)[1])]
    number_of[units] = np.arange(len(units))
    members = tuple(Member(layer, weight.name, b.axis, b.role, number_of[b.vector]) for layer, weight, b in bindings)
    number_of[units] = -1
    reasons = {i: graph.units.reason(unit) for i, unit in enumerate(units.tolist())}
    return Group(producers[0][0], units, members, {i: reason for i, reason in reasons.items() if reason})
