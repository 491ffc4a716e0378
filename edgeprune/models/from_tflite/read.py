"""Build the model of a .tflite, operator by operator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.models.from_tflite import content as editing
from edgeprune.models.from_tflite import (  # noqa: F401  # the modules enter their rules
    convolutions,
    elementwise,
    loops,
    recurrent,
    reductions,
    shapes,
)
from edgeprune.models.from_tflite.call import MOST_IN_ALL, Call, Shared, Value, check_size
from edgeprune.models.from_tflite.quantization import bounds, is_quantized, real_values
from edgeprune.models.from_tflite.registry import RULES, NoRule, needed_for
from edgeprune.models.from_tflite.states import KEEPING, States, variable_name, variables
from edgeprune.models.graph import flat, is_symbolic
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.limits import LAYER_CALLS
from edgeprune.models.naming import scope_name
from edgeprune.models.sizes import Inputs, InputShapes, still_open
from edgeprune.models.walk import UniqueNames
from edgeprune.tflite.faults import faults
from edgeprune.tflite.flatbuffer import parse, read_bytes
from edgeprune.tflite.graph import Operator, Subgraph, Tensor, TFLiteModel
from edgeprune.tflite.interface import interface

if TYPE_CHECKING:
    import tf_keras

_REPORT = "please report the operator, best with the file."
# Operators whose results have either sign.
_SUMS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "ADD", "SUB", "MUL")
# Rounding by operations: type → bits.
_BITS = {"int8": 8, "uint8": 8, "int16": 16}
# Graphs that call graphs: published files have loops within loops at most. And what their rounds may come to.
_DEEPEST = 4
# Characters of what a message says about an operator.
_LONGEST = 600
MOST_WRITTEN_OUT = 4096


@dataclass(frozen=True)
class Imported:
    """A file as a model.

    Attributes:
        content, file: of the file, at fixed sizes, and without what no model computes.
        model: functional, of real values in float32. Its inputs and outputs are in the file's order; then come, for
            each variable of the file, one input and one output.
        rounded: the same with the rounding of the file's activations, by operations; None for a file without.
        values: of the model, tensor index → what stands for it.
        outputs: per output the user's name first, then that of its layer.
        states: what the file keeps from one inference to the next, see :class:`States`.
        left_out: the operators behind which the file goes on, and the model does not.
        taken: the sizes of inputs that the file leaves open, by name, where the file's own were taken.
    """

    content: bytes
    file: TFLiteModel
    model: tf_keras.Model
    rounded: tf_keras.Model | None
    values: dict[int, Value]
    rounded_values: dict[int, Value]
    outputs: tuple[tuple[str, ...], ...]
    states: States
    left_out: tuple[str, ...] = ()
    taken: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def import_tflite(path: Path, input_shape: InputShapes | None = None) -> Imported:
    """Read a .tflite as a functional tf_keras model; :func:`~edgeprune.models.from_tflite.check.check` verifies it.

    Args:
        input_shape: sizes for inputs whose size the file leaves open, as ``load_model`` takes them. None: those that
            the file states beside.

    Raises:
        ModelError: the file is damaged, or an operator of it has no rule or a form that Keras does not have; or its
            inputs have no size.
        UsageError: an input shape that does not fit the inputs.
    """
    content = read_bytes(path)
    file = parse(content, str(path))
    for fault in faults(file):
        raise ModelError(f"{path}: {fault}", expected="a file that LiteRT runs", fix="convert the model again.")
    content, left_out = editing.without_post_processing(content, file.subgraphs[0])
    content, taken = _at_sizes(content, parse(content, str(path)), input_shape)
    file = parse(content, str(path))
    built = _Builder(path, file, rounds=False)
    model = built.model()
    quantized = any(bounds(tensor) and not tensor.constant for tensor in file.subgraphs[0].tensors)
    twin = _Builder(path, file, rounds=True) if quantized else None
    return Imported(
        content,
        file,
        model,
        twin.model() if twin else None,
        built.values,
        twin.values if twin else {},
        built.output_names,
        built.states,
        left_out,
        taken,
    )


def _at_sizes(content: bytes, file: TFLiteModel, given: InputShapes | None) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """The file with fixed sizes of its inputs, and which of them are its own choice."""
    tensors = [file.subgraphs[0].tensors[index] for index in file.subgraphs[0].inputs]
    stated = tuple(tuple(None if size < 0 else size for size in tensor.signature[1:]) for tensor in tensors)
    inputs = Inputs(input_names(file), stated, tuple(tensor.dtype != "float32" for tensor in tensors))
    if not inputs.open and given is None:
        return content, {}
    fixed, taken = {}, {}
    for name, tensor, shape in zip(inputs.names, tensors, inputs.filled(given), strict=True):
        if None in shape:
            taken[name] = tensor.shape[1:]
        # A converter that knows no size writes 1.
        if any(size is None and own < 2 for size, own in zip(shape, tensor.shape[1:], strict=True)):
            raise still_open(inputs)
        fixed[tensor.index] = [
            *tensor.shape[:1],
            *(size or own for size, own in zip(shape, tensor.shape[1:], strict=True)),
        ]
    return editing.at_sizes(content, fixed), taken


def input_names(file: TFLiteModel) -> tuple[str, ...]:
    """The names of the model's inputs, in the file's order."""
    named = {port.tensor.index: port.names[0] for port in interface(file).inputs}
    return tuple(_distinct([_plain(named[index]) for index in file.subgraphs[0].inputs]))


@dataclass(frozen=True)
class _Scope:
    """The values of a graph's tensors while its operators run."""

    graph: Subgraph
    values: dict[int, Value]

    def read(self, index: int) -> Value | None:
        """None for an input that is left out."""
        if index < 0:
            return None
        if index not in self.values:
            tensor = self.graph.tensors[index]
            if tensor.variable:
                return Value.of_constant(np.zeros(tensor.shape, np.float32))
            if not tensor.constant and tensor.size:
                raise NoRule(f"reads the tensor {tensor.name!r}, which nothing writes", "a complete file")
            # An empty list, such as one of no axes, has no buffer.
            array = real_values(tensor) if tensor.constant else np.zeros(tensor.shape, np.int32)
            self.values[index] = Value.of_constant(array)
        return self.values[index]

    def value(self, index: int) -> Value:
        found = self.read(index)
        if found is None:
            raise NoRule("leaves an output out", "a complete file")
        return found


class _Builder:
    """Walks over the operators of the first graph.

    Args:
        rounds: put the rounding of quantized activations behind what makes them.
    """

    def __init__(self, path: Path, file: TFLiteModel, *, rounds: bool):
        self.path, self.file, self.graph = path, file, file.subgraphs[0]
        self.rounds = rounds
        self.values: dict[int, Value] = {}
        self.states = States(self._open_state, file.subgraphs)
        self.shared = Shared(self.states, file.subgraphs, self._run_graph)
        self._depth, self._runs, self._computed = 0, 0, 0
        named = {port.tensor.index: port.names for port in interface(file).outputs}
        self.user_outputs = [named[index] for index in self.graph.outputs]
        self.input_names = input_names(file)
        taken = UniqueNames(self.input_names)
        self.port_names = [taken.unique(_plain(names[0])) for names in self.user_outputs]
        self.state_names = {name: taken.unique(_plain(name)) for name in variables(self.graph)}
        self.names = UniqueNames([*self.input_names, *self.port_names, *self.state_names.values()])
        self.output_names: tuple[tuple[str, ...], ...] = ()
        self._given: set[str] = set()

    def model(self) -> tf_keras.Model:
        import tf_keras

        if len(self.graph.operators) > LAYER_CALLS:
            raise self._refused(f"It has {len(self.graph.operators):,} operators", f"at most {LAYER_CALLS:,}")
        inputs = [
            self._input(self.graph.tensors[index], name)
            for index, name in zip(self.graph.inputs, self.input_names, strict=True)
        ]
        main = _Scope(self.graph, self.values)
        for operator in self.graph.operators:
            self._run(operator, main)
        try:
            outputs: list[Value | None] = [main.value(index) for index in self.graph.outputs]
        except NoRule as refusal:
            raise self._refused(f"An output {refusal.why}", refusal.needed) from None
        names = [*self.port_names]
        kept = self.states.kept
        outputs += [self.states.now[name] for name in kept]
        names += [self.names.unique(f"{self.state_names[name]}_next") for name in kept]
        if not any(value is not None and value.constant is None for value in outputs):
            raise self._refused("Its outputs do not depend on its inputs", "a model")
        ends = [self._named(value, name) for value, name in zip(outputs, names, strict=True)]
        user = [*self.user_outputs, *[(name,) for name in names[len(self.user_outputs) :]]]
        self.output_names = tuple(tuple(dict.fromkeys((own[0], name))) for own, name in zip(user, names, strict=True))
        inputs += [value.tensor for value in self.states.read.values()]
        return tf_keras.Model(inputs, ends, name=_plain(self.path.stem or "model"))

    # -- inputs and outputs ------------------------------------------------------------------------------------------

    def _input(self, tensor: Tensor, name: str) -> object:
        opened = self._open(tensor, name)
        self.values[tensor.index] = self._rounded(tensor, opened)
        return opened.tensor

    def _open(self, tensor: Tensor, name: str) -> Value:
        import tf_keras

        dtype = "float32" if is_quantized(tensor) or tensor.dtype in ("float16", "bfloat16") else tensor.dtype
        if not tensor.is_numeric or dtype in ("int4", "int2", "uint4"):
            raise self._refused(f"The input {tensor.name!r} is of type {tensor.dtype}", "numbers")
        try:
            check_size(tensor.shape, False)
        except NoRule as refusal:
            raise self._refused(f"The input {tensor.name!r} {refusal.why}", refusal.needed) from None
        shape = tensor.shape[1:] if tensor.shape[:1] == (1,) else tensor.shape
        return Value(tensor.shape, tf_keras.Input(shape, dtype=dtype, name=name))

    def _open_state(self, name: str, tensor: Tensor) -> Value:
        return self._open(tensor, self.state_names[name])

    def _named(self, value: Value | None, name: str) -> object:
        """The tensor of an output, made by a layer of this name."""
        import tensorflow as tf
        from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

        if value is None or value.constant is not None or not is_symbolic(value.tensor):
            raise self._refused(f"The output {name!r} is a constant", "outputs that are computed")
        if value.blocks:
            raise self._refused(f"The output {name!r} is an image in blocks", "BATCH_TO_SPACE_ND before it")
        layer = value.tensor.node.layer  # type: ignore[union-attr]
        taken = _is_input(layer) or layer.name in self._given or len(flat(layer.output)) > 1
        self._given.add(name)
        if taken:
            return TFOpLambda(tf.identity, name=name)(value.tensor)
        layer._name = name
        return value.tensor

    # -- operators ---------------------------------------------------------------------------------------------------

    def _run_graph(self, number: int, inputs: Sequence[Value], wanted: Sequence[int] | None = None) -> list[Value]:
        """See :class:`~edgeprune.models.from_tflite.call.Shared`; operators that nothing needs are left out."""
        if not 0 < number < len(self.file.subgraphs) or self._depth >= _DEEPEST:
            raise NoRule(f"calls the graph {number}", "a graph of the file, and few within each other")
        graph = self.file.subgraphs[number]
        if len(inputs) != len(graph.inputs):
            raise NoRule(f"gives {len(inputs)} values to a graph of {len(graph.inputs)}", "a complete file")
        scope = _Scope(graph, dict(zip(graph.inputs, inputs, strict=True)))
        ends = list(graph.outputs if wanted is None else wanted)
        self._depth += 1
        try:
            for operator in graph.leading_to(ends):
                self._run(operator, scope)
        finally:
            self._depth -= 1
        return [scope.value(index) for index in ends]

    def _run(self, operator: Operator, scope: _Scope) -> None:
        self._runs += self._depth > 0
        if self._runs > MOST_WRITTEN_OUT:
            raise self._refused(f"Its loops make more than {MOST_WRITTEN_OUT:,} operators", "shorter loops")
        made = scope.graph.output(operator)
        label = f"operator {operator.index} {operator.name}" + (f", which makes {made.name!r}," if made else "")
        rule = RULES.get(operator.name)
        if rule is None:
            needed = f"the operators of docs/tflite-in.md; {needed_for(operator)}"
            raise self._refused(f"There is no rule for {label.rstrip(',')}", needed)
        name = _plain(made.name) if made else operator.name
        emit = Emitter(self.names, self.names.unique(name))
        try:
            call = Call(operator, scope.graph, [scope.read(i) for i in operator.inputs], emit, self.shared)
            results = rule(call)
            results = results if isinstance(results, list | tuple) else [results]
            if operator.name in KEEPING:  # for comparisons, operator by operator
                held = scope.graph.tensors[operator.inputs[KEEPING[operator.name]]]
                scope.values[held.index] = self.states.read[variable_name(held)]
            if len(results) < sum(index >= 0 for index in operator.outputs):
                raise NoRule(f"has {len(operator.outputs)} outputs", f"{len(results)}")
            for index, result in zip(operator.outputs, results, strict=False):
                if index >= 0:
                    value = result if isinstance(result, Value) else Value.of_tensor(result)
                    self._count(value)
                    value = self._implied(operator, scope.graph.tensors[index], value, emit)
                    scope.values[index] = self._rounded(scope.graph.tensors[index], value)
        except NoRule as refusal:
            raise self._refused(f"{label[0].upper()}{label[1:]} {refusal.why}", refusal.needed) from refusal
        except EdgepruneError:
            raise
        # A damaged file can hold what Keras and TensorFlow refuse in any way.
        except Exception as error:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise self._refused(f"{label[0].upper()}{label[1:]} cannot be built: {said}", "a sound file") from error

    def _count(self, value: Value) -> None:
        if value.constant is not None:
            return
        check_size(value.shape, False)
        self._computed += math.prod(value.shape)
        if self._computed > MOST_IN_ALL:
            raise NoRule("makes the model too large", f"at most {MOST_IN_ALL:,} values in all tensors")

    def _implied(self, operator: Operator, tensor: Tensor, value: Value, emit: Emitter) -> Value:
        """With the activation that a quantized file leaves to the range of the output, which begins at zero."""
        ends = bounds(tensor) if operator.name in _SUMS and value.constant is None else None
        if ends is None or ends[0] != 0 or operator.options.get("fused_activation_function", "NONE") != "NONE":
            return value
        scale = ends[1] / 255
        limit: dict[str, Any] = {"max_value": 6.0} if abs(ends[1] - 6) < scale else {}
        return dataclasses.replace(value, tensor=emit.layer("ReLU", value.tensor, **limit))

    def _rounded(self, tensor: Tensor, value: Value) -> Value:
        ends = bounds(tensor) if self.rounds and value.constant is None else None
        if ends is None or tensor.dtype not in _BITS or not ends[0] <= 0 <= ends[1] or ends[0] == ends[1]:
            return value
        emit = Emitter(self.names, self.names.unique(f"{_plain(tensor.name)}_rounded"))
        symbol = "quantization.fake_quant_with_min_max_vars"
        made = emit.op(symbol, value.tensor, *ends, num_bits=_BITS[tensor.dtype])
        return dataclasses.replace(value, tensor=made)

    def _refused(self, what: str, expected: str) -> ModelError:
        # A damaged file can have shapes of a thousand axes.
        what, expected = (text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …" for text in (what, expected))
        return ModelError(f"{self.path} cannot be imported. {what}.", expected=expected, fix=_REPORT)


def _is_input(layer: object) -> bool:
    return type(layer).__name__ == "InputLayer"


def _plain(name: str) -> str:
    """The name of a tensor as one of a layer: the first of those that were fused, without slashes."""
    first = name.split(";")[0].strip("/").removesuffix(":0") or "tensor"
    return scope_name(first.replace("/", "_"))


def _distinct(names: Sequence[str]) -> list[str]:
    unique = UniqueNames()
    return [unique.unique(name) for name in names]
