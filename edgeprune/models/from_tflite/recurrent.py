"""Recurrent operators: fused LSTM and simple recurrent layers over a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.models.from_tflite.call import Call, Value
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.models.types import Tensor

_GATES = 4  # input, forget, cell, output: the order of the file, and of Keras

_CLIP_OF_KERAS = 10.0


@rule("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(call: Call) -> Value:
    """An LSTM layer, which begins each sample with a state of zeros, as edgeprune runs files."""
    tensor, steps_first = _sequence(call)
    _refuse(call, 1, "an input gate that is computed from the forget gate (CIFG)", missing=True)
    _refuse(call, 9, "peepholes")
    _refuse(call, 16, "a projection")
    _refuse(call, 20, "layer normalization")
    _refuse_clips(call)
    if call.option("fused_activation_function", "TANH") != "TANH":
        raise NoRule(f"has the activation {call.option('fused_activation_function')}", "TANH")
    return _recurrent(call, tensor, steps_first, _lstm_weights(call, 1), "LSTM")


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


def _refuse_clips(call: Call) -> None:
    """The converter gives the LSTM of Keras, which clips nothing, a clip that no cell reaches."""
    if call.option("cell_clip", 0) not in (0, _CLIP_OF_KERAS) or call.option("proj_clip", 0):
        raise NoRule("clips its state", "an LSTM as Keras has it")


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
    units = weights[1].shape[0]
    made = call.weighted(kind, tensor, weights, units=units, return_sequences=True, **config)
    value = Value.of_tensor(made)
    return call.reshaped(value, (value.shape[1], 1, units)) if steps_first else value


@rule("UNIDIRECTIONAL_SEQUENCE_RNN")
def rnn(call: Call) -> Value:
    tensor, steps_first = _sequence(call)
    names = {"NONE": "linear", "RELU": "relu", "TANH": "tanh"}
    activation = call.option("fused_activation_function", "NONE")
    if activation not in names:
        raise NoRule(f"has the activation {activation}", "none, RELU or TANH")
    weights = [call.constant(1, "kernel").T, call.constant(2, "kernel").T, call.constant(3, "bias")]
    return _recurrent(call, tensor, steps_first, weights, "SimpleRNN", activation=names[activation])
