"""Recurrent operators: fused LSTM and simple recurrent layers over a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.models.from_tflite.call import Call, Value
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.models.from_tflite.states import KEEPING, variable_name
from edgeprune.models.types import Tensor

_GATES = 4  # input, forget, cell, output: the order of the file, and of Keras

_CLIP_OF_KERAS = 10.0


@rule("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(call: Call) -> Value:
    """An LSTM layer, which begins each sample with a state of zeros, as edgeprune runs files."""
    tensor, steps_first = _sequence(call)
    _refuse_other_kinds(call, 1)
    _refuse(call, 20, "layer normalization")
    return _recurrent(call, tensor, steps_first, _lstm_weights(call, 1), "LSTM")


@rule("BIDIRECTIONAL_SEQUENCE_LSTM")
def bidirectional_lstm(call: Call) -> list[Value]:
    """Two LSTM layers, one of which goes backwards."""
    tensor, steps_first = _sequence(call)
    _refuse(call, 39, "a second sequence")
    weights = []
    for first in (1, 18):
        _refuse_other_kinds(call, first)
        weights.append(_lstm_weights(call, first))
    forward, backward = (
        call.weighted("LSTM", tensor, own, name, units=own[1].shape[0], return_sequences=True, go_backwards=bool(name))
        for own, name in zip(weights, ("", "backward"), strict=True)
    )
    made = [forward, call.emit.op("reverse", backward, [1], suffix="reversed")]
    if call.option("merge_outputs", False):
        made = [call.emit.layer("Concatenate", made, "both", axis=-1)]
    return [_in_order(call, one, steps_first) for one in made]


def _lstm_weights(call: Call, first: int) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias of Keras, from four matrices each."""
    kernels = [call.constant(first + gate, "kernel") for gate in range(_GATES)]
    recurrent = [call.constant(first + 4 + gate, "kernel") for gate in range(_GATES)]
    biases = [call.constant(first + 11 + gate, "bias") for gate in range(_GATES)]
    return [np.concatenate(kernels).T, np.concatenate(recurrent).T, np.concatenate(biases)]


def _refuse(call: Call, position: int, what: str, *, missing: bool = False) -> None:
    if call.has(position) == missing:
        return
    raise NoRule(f"has {what}", "an LSTM as Keras has it")


def _refuse_other_kinds(call: Call, first: int) -> None:
    """Refuse an LSTM that Keras has not.

    Args:
        first: input of the operator that is its first kernel.
    """
    _refuse(call, first, "an input gate that is computed from the forget gate (CIFG)", missing=True)
    _refuse(call, first + 8, "peepholes")
    _refuse(call, first + 15, "a projection")
    # The converter gives the LSTM of Keras, which clips nothing, a clip that no cell reaches.
    if call.option("cell_clip", 0) not in (0, _CLIP_OF_KERAS) or call.option("proj_clip", 0):
        raise NoRule("clips its state", "an LSTM as Keras has it")
    if call.option("fused_activation_function", "TANH") != "TANH":
        raise NoRule(f"has the activation {call.option('fused_activation_function')}", "TANH")


def _sequence(call: Call) -> tuple[Tensor, bool]:
    """[batch, steps, channels], and whether the file has the steps first."""
    value, steps_first = call.value(0), bool(call.option("time_major", False))
    batch = value.shape[1 if steps_first else 0] if len(value.shape) == 3 else 0
    if batch != 1 or value.constant is not None:
        raise NoRule(f"works on a tensor of shape {list(value.shape)}", "one sequence")
    if steps_first:
        steps, _, channels = value.shape
        value = call.reshaped(value, (1, steps, channels))
    return call.symbolic(value), steps_first


def _recurrent(
    call: Call, tensor: Tensor, steps_first: bool, weights: list[np.ndarray], kind: str, **config: Any
) -> Value:
    made = call.weighted(kind, tensor, weights, units=weights[1].shape[0], return_sequences=True, **config)
    return _in_order(call, made, steps_first)


def _in_order(call: Call, tensor: Tensor, steps_first: bool) -> Value:
    """[batch, steps, units] with the axes in the order of the file."""
    value = Value.of_tensor(tensor)
    return call.reshaped(value, (value.shape[1], 1, value.shape[2])) if steps_first else value


@rule("UNIDIRECTIONAL_SEQUENCE_RNN")
def rnn(call: Call) -> Value:
    tensor, steps_first = _sequence(call)
    names = {"NONE": "linear", "RELU": "relu", "TANH": "tanh"}
    activation = call.option("fused_activation_function", "NONE")
    if activation not in names:
        raise NoRule(f"has the activation {activation}", "none, RELU or TANH")
    weights = [call.constant(1, "kernel").T, call.constant(2, "kernel").T, call.constant(3, "bias")]
    return _recurrent(call, tensor, steps_first, weights, "SimpleRNN", activation=names[activation])


@rule("SVDF")
def svdf(call: Call) -> Value:
    """A Dense layer for one step, and a depthwise convolution over what it gave for this step and those before.

    What it gave before is kept from one inference to the next.
    """
    kernel, over_time = call.constant(1, "kernel"), call.constant(2, "kernel over time")
    rank, value = int(call.option("rank", 0)), call.value(0)
    filters, steps = over_time.shape if over_time.ndim == 2 else (0, 0)
    units = filters // max(rank, 1)
    if rank < 1 or not filters or units * rank != filters or kernel.ndim != 2 or len(kernel) != filters:
        raise NoRule(
            f"has kernels of {list(kernel.shape)} and {list(over_time.shape)}, and rank {rank}", "sizes that fit"
        )
    held = call.graph.input(call.operator, KEEPING["SVDF"])
    if held is None or held.shape != (1, filters * steps) or value.shape != (1, kernel.shape[1]):
        raise NoRule(f"works on a tensor of shape {list(value.shape)}", "one step of one sequence, and its state")
    name, emit = variable_name(held), call.emit
    now = call.weighted("Dense", call.single(value), [kernel.T], "step", units=filters, use_bias=False)
    before = emit.layer("Reshape", call.states.held(name, held).tensor, "before", target_shape=(filters, steps))
    past = emit.getitem(emit.layer("Permute", before, "past", dims=(2, 1)), (slice(None), slice(1, None)))
    now = emit.layer("Reshape", now, "now", target_shape=(1, filters))
    history = emit.layer("Concatenate", [past, now], "history", axis=1) if steps > 1 else now
    kept = emit.layer("Permute", history, "after", dims=(2, 1))
    kept = emit.layer("Reshape", kept, "kept", target_shape=(filters * steps,))
    call.states.now[name] = Value((1, filters * steps), kept)
    bias = np.zeros((units, rank), np.float32)  # of a unit: of the first of the filters that it is the sum of
    bias[:, 0] = call.constant(3, "bias").ravel() if call.has(3) else 0
    image = emit.layer("Reshape", history, "image", target_shape=(steps, 1, filters))
    weights = [over_time.T.reshape(steps, 1, filters, 1), bias.ravel()]
    made = call.weighted("DepthwiseConv2D", image, weights, "time", kernel_size=(steps, 1))
    if rank > 1:
        made = emit.layer("Reshape", made, "ranks", target_shape=(units, rank))
        made = emit.op("math.reduce_sum", made, [2], suffix="sum")
    else:
        made = emit.layer("Reshape", made, "units", target_shape=(units,))
    return Value.of_tensor(call.activated(made))
