"""Variables that survive from one inference to the next, as inputs and outputs of the model.

Keras models that are pruned and quantized keep nothing between samples. So a variable that a file reads becomes an
input, and what the file assigns to it becomes an output; whoever runs the model hands it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgeprune.models.from_tflite.call import Call, Value
from edgeprune.models.from_tflite.quantization import real_values
from edgeprune.models.from_tflite.registry import NoRule, rule
from edgeprune.tflite.graph import Operator, Subgraph, Tensor


@dataclass
class States:
    """The variables of a file.

    Attributes:
        open: makes the input that a variable is, from its name and a tensor of the file that it is read into.
        first: name → value before the first inference.
        read: name → the input, of those that are read before anything is assigned to them.
        now: name → what the variable holds at this place of the graph.
        tensors: name → a tensor of the file with the type of the variable.
    """

    open: Callable[[str, Tensor], Value]
    subgraphs: tuple[Subgraph, ...]
    first: dict[str, np.ndarray] = field(default_factory=dict)
    read: dict[str, Value] = field(default_factory=dict)
    now: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def held(self, name: str, tensor: Tensor) -> Value:
        """What a variable holds at this place.

        Args:
            tensor: of the file, that it is read into.
        """
        if name not in self.now:
            self.read[name] = self.now[name] = self.open(name, tensor)
            self.tensors[name] = tensor
        return self.now[name]

    @property
    def kept(self) -> list[str]:
        """The variables that a later inference reads."""
        return [name for name in self.read if self.now[name] is not self.read[name]]


# Operators that keep a variable tensor themselves, and at which input. (A fused LSTM begins each sample with zeros.)
KEEPING = {"SVDF": 4}


def variables(graph: Subgraph) -> list[str]:
    """The names of what a graph keeps from one inference to the next."""
    handles = [name_of(operator) for operator in graph.operators if operator.name == "VAR_HANDLE"]
    tensors = [
        graph.input(operator, KEEPING[operator.name]) for operator in graph.operators if operator.name in KEEPING
    ]
    return list(dict.fromkeys([*handles, *(variable_name(tensor) for tensor in tensors if tensor is not None)]))


def variable_name(tensor: Tensor) -> str:
    """The name of a variable tensor, which a file need not give it."""
    return tensor.name or f"state{tensor.index}"


@rule("VAR_HANDLE")
def var_handle(call: Call) -> Value:
    return Value.of_constant(np.array(name_of(call.operator)))


def name_of(handle: Operator) -> str:
    """The name of the variable that an operator gives a handle to."""
    given = handle.options.get("shared_name") or b""
    return given.decode("utf-8", "replace") if isinstance(given, bytes) else str(given)


@rule("CALL_ONCE")
def call_once(call: Call) -> list[Value]:
    """The graph that sets variables before the first inference."""
    number = int(call.option("init_subgraph_index", 0))
    if not 0 < number < len(call.states.subgraphs):
        raise NoRule(f"calls the graph {number}", "a graph of the file")
    call.states.first.update(_assigned(call.states.subgraphs[number]))
    return []


def _assigned(graph: Subgraph) -> Iterator[tuple[str, np.ndarray]]:
    handles = {}
    for operator in graph.operators:
        if operator.name == "VAR_HANDLE":
            handles[operator.outputs[0]] = name_of(operator)
        elif operator.name == "ASSIGN_VARIABLE" and graph.tensors[operator.inputs[1]].constant:
            yield handles.get(operator.inputs[0], ""), real_values(graph.tensors[operator.inputs[1]])
        else:
            raise NoRule(f"sets variables by {operator.name}", "variables that begin as constants")


@rule("READ_VARIABLE")
def read_variable(call: Call) -> Value:
    return call.states.held(str(call.constant(0, "variable")), call.output())


@rule("ASSIGN_VARIABLE")
def assign_variable(call: Call) -> list[Value]:
    name = str(call.constant(0, "variable"))
    call.states.now[name] = call.value(1)
    return []
