"""Channel rules of recurrent layers and of the wrappers around layers."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgeprune.models.types import Layer
from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes, Path
from edgeprune.prune.channels.rules.axes import length, product
from edgeprune.prune.channels.rules.basic import check_activation
from edgeprune.prune.channels.rules.registry import find_rule, opaque, register
from edgeprune.prune.channels.rules.shape import broadcast, join
from edgeprune.prune.channels.units import Vector

# Layer → gates whose weights stand side by side along the last axis of its kernels.
GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


@register(*GATES)
def recurrent(call: Call) -> list[Axes]:
    """Hidden units are channels: they are made by the layer and read by its own recurrent kernel."""
    layer = call.layer
    if layer.time_major:
        return _opaque(call)
    cell = layer.cell
    gates = next(GATES[cls.__name__] for cls in type(layer).__mro__ if cls.__name__ in GATES)
    hidden = call.produce(cell.units, "units")
    wide = np.tile(hidden, gates)
    for function in (cell.activation, getattr(cell, "recurrent_activation", None)):
        if function is not None:
            check_activation(call, function, (hidden,))
    inputs = call.inputs[0]
    call.freeze(inputs[:-1], f"time steps of {call.name!r} cannot be removed")
    call.bind(cell.kernel, {0: (inputs[-1], "consumed"), 1: (wide, "produced")})
    call.bind(cell.recurrent_kernel, {0: (hidden, "consumed"), 1: (wide, "produced")})
    call.bind(cell.bias, {-1: (wide, "produced")})
    call.size("units", hidden)
    steps = float(call.input_shapes[0][0] or 1)
    call.count_macs(steps, length(call, -1), wide)
    call.count_macs(steps, hidden, wide)
    mask = call.node.call_kwargs.get("mask")
    for tensor, state in list(zip(call.node.keras_inputs, call.inputs, strict=False))[1:]:
        if tensor is not mask:
            _tie(call, hidden, state[-1])
    sequence: Axes = (None, hidden) if layer.return_sequences else (hidden,)
    return [sequence] + [(hidden,)] * (len(call.output_shapes) - 1)


def _tie(call: Call, hidden: Vector, other: Vector | None) -> None:
    if other is None:
        call.freeze([hidden], f"the initial state of {call.name!r} cannot be removed")
    else:
        call.unite(hidden, other, f"the initial state of {call.name!r} cannot be removed")


@register("Bidirectional")
def bidirectional(call: Call) -> list[Axes]:
    """Both directions have one number of units, so they lose the same ones."""
    layer = call.layer
    if len(call.inputs) > 1 or layer.forward_layer.return_state or type(layer.forward_layer).__name__ not in GATES:
        return _opaque(call)
    has_own_backward = "backward_layer" in layer.get_config()
    both = []
    for inner, key in ((layer.forward_layer, "layer"), (layer.backward_layer, "backward_layer")):
        written = key == "layer" or has_own_backward
        (axes,) = recurrent(_inside(call, inner, (key, "config"), call.inputs, call.input_shapes))
        if not written:
            call.plan.sizes.pop((*call.path, key, "config", "units"))
        both.append(axes)
    forward, backward = both
    call.unite(forward[-1], backward[-1], "")  # type: ignore[arg-type]
    half = (*call.output_shapes[0][:-1], len(forward[-1]))  # type: ignore[arg-type]
    if layer.merge_mode == "concat":
        return [join(call, both, [half, half], -1)]
    if layer.merge_mode is None:
        return both
    return [broadcast(call, both, [half, half])[0]]


@register("TimeDistributed")
def time_distributed(call: Call) -> list[Axes]:
    """The wrapped layer's rule, behind the time axis."""
    inner = call.layer.layer
    rule = find_rule(inner)
    if rule is None or len(call.inputs) > 1:
        return _opaque(call)
    time = call.inputs[0][0]
    behind = _inside(
        call, inner, ("layer", "config"), [call.inputs[0][1:]], [s[1:] for s in call.input_shapes], time_axis=True
    )
    inner_axes = rule(behind)
    return [(time, *axes) for axes in (inner_axes if isinstance(inner_axes, list) else [inner_axes])]


def _inside(
    call: Call,
    layer: Layer,
    path: Path,
    inputs: list[Axes],
    shapes: list[tuple[int | None, ...]],
    time_axis: bool = False,
) -> Call:
    outputs = [shape[1:] for shape in call.output_shapes] if time_axis else call.output_shapes[:1]
    steps = call.repeat * (product(call.input_shapes[0][:1]) if time_axis else 1.0)
    return dataclasses.replace(
        call, layer=layer, path=(*call.path, *path), inputs=inputs, input_shapes=shapes, output_shapes=outputs,
        repeat=steps,
    )  # fmt: skip


def _opaque(call: Call) -> list[Axes]:
    return opaque(call, f"this form of {type(call.layer).__name__} ({call.name!r}) has no channel rule")
