"""Operators that run other graphs: loops, which recurrent layers become, calls and conditions.

A loop of a recurrent layer becomes that layer again: its kernels and biases are read off the loop's body, and which
layer it is, with which activations, is found by computing one step of the body and of each candidate on random
numbers. Any other loop of a fixed number of rounds is written out, round by round, with the same layers in each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.models.from_tflite.call import Call, Value
from edgeprune.models.from_tflite.quantization import real_values
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.models.types import Tensor
from edgeprune.models.verify import TOLERANCE, largest_difference
from edgeprune.tflite.graph import Operator, Subgraph

# Written out, a loop of more rounds makes files that nobody wants.
MOST_ROUNDS = 256
_SEED = 0
_SAMPLES = 3
# Operators that take one element of a sequence, or leave it as it is.
_TAKING = ("GATHER", "SLICE", "STRIDED_SLICE", "RESHAPE", "SQUEEZE")
_GATES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}
_ACTIVATIONS = ("tanh", "relu", "sigmoid", "linear", "elu", "softsign")
_RECURRENT = ("sigmoid", "hard_sigmoid", "tanh")


@rule("CALL")
def call_graph(call: Call) -> list[Value]:
    return call.shared.run(int(call.option("subgraph", 0)), _given(call))


@rule("STABLEHLO_COMPOSITE")
def composite(call: Call) -> list[Value]:
    """What a runtime may compute by one kernel, as the operators that it stands for."""
    return call.shared.run(int(call.option("decomposition_subgraph_index", 0)), _given(call))


@rule("IF")
def if_(call: Call) -> list[Value]:
    chosen = "then" if call.constant(0, "condition").ravel()[0] else "else"
    return call.shared.run(int(call.option(f"{chosen}_subgraph_index", 0)), _given(call)[1:])


@rule("WHILE")
def while_(call: Call) -> list[Value]:
    layer = _recurrent_layer(call)
    if layer is not None:
        return layer
    condition, body = (int(call.option(f"{name}_subgraph_index", 0)) for name in ("cond", "body"))
    values = _given(call)
    for _ in range(MOST_ROUNDS + 1):
        (goes_on,) = call.shared.run(condition, values)
        if goes_on.constant is None:
            raise NoRule("takes a number of rounds that is known at run time only", "a fixed number")
        if not goes_on.constant.ravel()[0]:
            return values
        values = call.shared.run(body, values)
    raise NoRule(f"takes more than {MOST_ROUNDS} rounds, and is no recurrent layer of Keras", "fewer rounds")


def _given(call: Call) -> list[Value]:
    return [call.value(position) for position in range(len(call.inputs))]


# -- recurrent layers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loop:
    """A loop over a sequence, as Keras writes one; what a loop carries is named by its position.

    Attributes:
        body: the graph of one round.
        steps: how many rounds there are.
        sequence: [steps, 1, channels], of which each round takes one.
        states: [1, units] each, zeros at first.
        results: [rounds kept, 1, units], where each round, or the last, puts its result; None if nothing does.
    """

    number: int
    body: Subgraph
    steps: int
    sequence: int
    states: tuple[int, ...]
    results: int | None


def _recurrent_layer(call: Call) -> list[Value] | None:
    """The results of the layer of Keras that a loop was; None if it is of another kind."""
    loop = _loop(call)
    read = _reads(call)
    # Keras gives the state of an LSTM's cells beside its outputs only.
    if loop is None or any(call.operator.outputs[position] in read for position in loop.states[1:]):
        return None
    found = _layer_of(call, loop)
    if found is None:
        return None
    class_name, weights, config = found
    values = _given(call)
    steps, _, channels = values[loop.sequence].shape
    sequence = call.symbolic(call.reshaped(values[loop.sequence], (1, steps, channels)))
    keeps_all = loop.results is not None and values[loop.results].shape[0] == loop.steps > 1
    needs_all = keeps_all and call.operator.outputs[loop.results or 0] in read
    made = call.weighted(class_name, sequence, weights, **config, return_sequences=needs_all)
    units = int(made.shape[-1])
    results = list(values)
    if needs_all:
        results[loop.results or 0] = call.reshaped(Value.of_tensor(made), (loop.steps, 1, units))
        if call.operator.outputs[loop.states[0]] in read:
            results[loop.states[0]] = Value.of_tensor(call.emit.getitem(made, (slice(None), -1)))
        return results
    results[loop.states[0]] = Value.of_tensor(made)
    if loop.results is not None:
        results[loop.results] = call.reshaped(Value.of_tensor(made), (1, 1, units))
    return results


def _reads(call: Call) -> set[int]:
    """The tensors that are used in the graph of an operator."""
    return {index for operator in call.graph.operators for index in operator.inputs} | set(call.graph.outputs)


def _loop(call: Call) -> _Loop | None:
    graphs, values = call.shared.subgraphs, _given(call)
    numbers = [int(call.option(f"{name}_subgraph_index", 0)) for name in ("cond", "body")]
    if any(not 0 < number < len(graphs) for number in numbers):
        return None
    condition, body = (graphs[number] for number in numbers)
    if not len(values) == len(body.inputs) == len(body.outputs) == len(condition.inputs):
        return None
    steps = _rounds(condition, values)
    carried = list(enumerate(zip(values, body.inputs, body.outputs, strict=True)))
    kept = [p for p, (value, before, after) in carried if before == after and len(value.shape) == 3]
    moving = [p for p, (_, before, after) in carried if before != after]
    states = tuple(p for p in moving if len(values[p].shape) == 2 and _is_zero(values[p]))
    results = [p for p in moving if len(values[p].shape) == 3 and values[p].constant is not None]
    counters = [p for p in moving if not values[p].shape and _is_zero(values[p])]
    others = len(carried) - len(kept) - len(states) - len(results) - len(counters)
    if steps is None or others or len(kept) != 1 or len(states) not in (1, 2) or len(results) > 1:
        return None
    if values[kept[0]].shape[:2] != (steps, 1) or values[kept[0]].constant is not None:
        return None
    return _Loop(numbers[1], body, steps, kept[0], states, results[0] if results else None)


def _is_zero(value: Value) -> bool:
    return value.constant is not None and not value.constant.any()


def _rounds(condition: Subgraph, values: Sequence[Value]) -> int | None:
    """How often a loop runs that counts from zero until constants."""
    limits = []
    for operator in condition.operators:
        if operator.name == "LOGICAL_AND":
            continue
        counter, limit = (condition.input(operator, position) for position in (0, 1))
        if operator.name != "LESS" or counter is None or limit is None or counter.index not in condition.inputs:
            return None
        if limit.index in condition.inputs:
            given = values[condition.inputs.index(limit.index)].constant
        else:
            given = limit.data() if limit.constant else None
        if given is None or given.size != 1:
            return None
        limits.append(int(given.ravel()[0]))
    return min(limits, default=None)


# -- which layer it is -----------------------------------------------------------------------------------------------


def _layer_of(call: Call, loop: _Loop) -> tuple[str, list[np.ndarray], dict[str, Any]] | None:
    """Class, weights and arguments of the layer whose step computes what the loop's body does."""
    import tensorflow as tf
    import tf_keras

    values = _given(call)
    (units,), channels = values[loop.states[0]].shape[1:], values[loop.sequence].shape[2]
    draw = np.random.default_rng(_SEED)
    x = draw.normal(size=(_SAMPLES, channels)).astype("float32")
    states = [tf.constant(draw.normal(size=(_SAMPLES, units)), tf.float32) for _ in loop.states]
    expected = None
    for class_name, weights, config in _candidates(loop, units, channels):
        cell = getattr(tf_keras.layers, f"{class_name}Cell")(**config)
        cell.build((None, channels))
        if [weight.shape.as_list() for weight in cell.weights] != [list(weight.shape) for weight in weights]:
            continue
        cell.set_weights(weights)
        if len(loop.states) != (2 if class_name == "LSTM" else 1):
            continue
        if expected is None:
            expected = _step(call, loop, x, states)
        made = cell(tf.constant(x), states)[1]
        made = [np.asarray(state) for state in (made if isinstance(made, list | tuple) else [made])]
        for order in itertools.permutations(range(len(made))):
            if largest_difference([expected[i] for i in order], made) <= TOLERANCE:
                return class_name, weights, config
    return None


def _step(call: Call, loop: _Loop, x: np.ndarray, states: Sequence[Tensor]) -> list[np.ndarray]:
    """The states after the first round, by the operators of the body."""
    import tf_keras

    values = _given(call)
    sequence = values[loop.sequence]
    inputs = [tf_keras.Input(sequence.shape[1:] if loop.steps == 1 else sequence.shape)]
    values[loop.sequence] = Value(sequence.shape, inputs[0])
    for position in loop.states:
        inputs.append(tf_keras.Input(values[position].shape[1:]))
        values[position] = Value(values[position].shape, inputs[-1])
    made = call.shared.run(loop.number, values, [loop.body.outputs[position] for position in loop.states])
    model = tf_keras.Model(inputs, [value.tensor for value in made])
    steps = np.zeros((len(x), *sequence.shape), np.float32)
    steps[:, 0, 0] = x
    results = model([steps.reshape(-1, *inputs[0].shape[1:]), *states], training=False)
    return [np.asarray(result) for result in (results if isinstance(results, list | tuple) else [results])]


def _candidates(loop: _Loop, units: int, channels: int) -> Iterator[tuple[str, list[np.ndarray], dict[str, Any]]]:
    """Layers with the kernels of the body; which of them computes the same is for the caller to find."""
    products = [operator for operator in loop.body.operators if operator.name == "FULLY_CONNECTED"]
    taken = _steps_taken(loop)
    of_sequence = [operator for operator in products if operator.inputs[0] in taken]
    of_states = [operator for operator in products if operator.inputs[0] not in taken]
    if len(of_sequence) != 1 or not of_states:
        return
    kernel = _constant(loop.body, of_sequence[0], 1)
    recurrent = [_constant(loop.body, operator, 1) for operator in of_states]
    if kernel is None or kernel.ndim != 2 or any(part is None or part.shape[1:] != (units,) for part in recurrent):
        return
    if kernel.shape[1] != channels or kernel.shape[0] % units or kernel.shape[0] // units not in _GATES:
        return
    class_name, width = _GATES[kernel.shape[0] // units], len(kernel)
    stacked: np.ndarray = np.concatenate([part for part in recurrent if part is not None])
    biases = [_constant(loop.body, of_sequence[0], 2), _constant(loop.body, of_states[0], 2)]
    added = [_added(loop.body, operator) for operator in loop.body.operators if operator.name == "ADD"]
    sums = [bias for bias in [*biases, *added] if bias is not None and bias.size == width]
    total = np.sum([bias.ravel() for bias in sums], axis=0) if sums else np.zeros(width, np.float32)
    both = [bias.ravel() if bias is not None and bias.size == width else np.zeros(width, np.float32) for bias in biases]
    options: list[tuple[np.ndarray, dict[str, Any]]] = [(total.astype("float32"), {})]
    if class_name == "GRU":
        options = [(np.stack(both), {"reset_after": True}), (total.astype("float32"), {"reset_after": False})]
    gates = ("sigmoid",) if class_name == "SimpleRNN" else _RECURRENT
    for (bias, more), activation, gate in itertools.product(options, _ACTIVATIONS, gates):
        config = {"units": units, "activation": activation, **more}
        if class_name != "SimpleRNN":
            config["recurrent_activation"] = gate
        yield class_name, [kernel.T, stacked.T, bias], config


def _steps_taken(loop: _Loop) -> set[int]:
    """The tensors of the body that are one element of the sequence."""
    known: set[int] = set()
    sequence = loop.body.inputs[loop.sequence]
    for operator in loop.body.operators:
        source = operator.inputs[0] if operator.name in _TAKING else None
        if source == sequence or source in known:
            known.update(operator.outputs)
    return known


def _constant(graph: Subgraph, operator: Operator, position: int) -> np.ndarray | None:
    """A constant input as real values, also behind an operator that unpacks it."""
    tensor = graph.input(operator, position)
    while tensor is not None and not tensor.constant and tensor.index in graph.producers:
        maker = graph.producers[tensor.index]
        if maker.name not in ("DEQUANTIZE", "DENSIFY"):
            return None
        tensor = graph.input(maker, 0)
    return real_values(tensor) if tensor is not None and tensor.constant else None


def _added(graph: Subgraph, operator: Operator) -> np.ndarray | None:
    constants = [_constant(graph, operator, position) for position in (0, 1)]
    return next((array for array in constants if array is not None and array.dtype.kind == "f"), None)
