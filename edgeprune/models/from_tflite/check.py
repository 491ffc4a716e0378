"""Verify an imported model against the interpreter, on random inputs; operator by operator if it differs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.files import JsonObject
from edgeprune.models.from_tflite.call import Value, before_reshape
from edgeprune.models.from_tflite.content import runnable
from edgeprune.models.from_tflite.quantization import bounds, input_bounds, is_quantized
from edgeprune.models.from_tflite.read import Imported
from edgeprune.models.graph import is_symbolic
from edgeprune.models.verify import TOLERANCE, largest_difference, random_inputs
from edgeprune.runtime.interpreter import INTERPRETER, Runtime, find_runtime
from edgeprune.tflite.graph import Operator, Subgraph, Tensor
from edgeprune.workers import WorkerDied

if TYPE_CHECKING:
    import tf_keras

_log = logging.getLogger(__name__)
# Operators whose kernels are integers and whose activations are not: the runtime rounds the activations, too.
HYBRID_TOLERANCE = 0.1
# In units of the last place of a quantized output: sums of integers are rounded once more here and there.
MOST_STEPS = 3.0
SAMPLES = 2
LIMIT_S = 120.0  # of a run, which takes seconds at most
# One sample: tensor index → value, of the inputs; and of what is asked for.
Values = dict[int, np.ndarray]


@dataclass(frozen=True)
class Checked:
    """How far the model is from the file.

    Attributes:
        difference: the largest, relative to each output's largest value.
        steps: the largest difference of a model with the file's rounding, in steps of the outputs' quantization; None
            for a file of floats.
        operator_steps: the same, of any one operator on the same inputs.
        unchecked: operators that no runtime has, and those behind them.
        states: variables of the file that are inputs and outputs of the model.
        input_ranges: of each input of the file the values that it can hold; None of floats, which hold any.
        left_out: operators that the model ends before.
        sizes: of inputs that the file leaves open and the user does not name: (name, shape without the batch).
    """

    difference: float
    steps: float | None = None
    operator_steps: float | None = None
    unchecked: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    input_ranges: tuple[tuple[float, float] | None, ...] = ()
    left_out: tuple[str, ...] = ()
    sizes: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know, as parts of sentences."""
        notes = []
        if self.steps is not None:
            notes.append(
                "quantized weights and activations become real values, as the file rounded them; without its rounding "
                f"between layers the outputs differ by up to {self.difference:.1%} of the largest, with it by "
                f"{self.steps:.0f} steps of their quantization; unless the model is changed, an int8 file gets its "
                "ranges"
            )
        if self.states:
            notes.append(
                f"what it keeps from one inference to the next ({', '.join(self.states)}) became inputs and outputs: "
                "whoever runs the new file hands it on"
            )
        if self.left_out:
            notes.append(
                f"what follows {self.left_out[0]} is left out with it: the model, and all new files, end with what "
                "that was given, such as boxes as offsets and scores; whoever runs the new file decodes and selects "
                "boxes ([detection] of the recipe)"
            )
        for name, shape in self.sizes:
            sizes = ",".join(map(str, shape))
            notes.append(
                f"the size of its input {name!r} is open; it is built for the file's own: --input-shape {sizes}"
            )
        if self.unchecked:
            notes.append(f"no runtime here has {self.unchecked[0]}: verified up to there")
        return tuple(notes)

    def to_dict(self) -> JsonObject:
        """As the report has it."""
        return {
            "difference": self.difference,
            "steps": self.steps,
            "unchecked": list(self.unchecked),
            "states": list(self.states),
            "left_out": list(self.left_out),
            "input_ranges": [list(ends) if ends else None for ends in self.input_ranges],
        }


def check(imported: Imported, path: Path, runtime: Runtime | None = None) -> Checked:
    """Compare model and file.

    Args:
        path: of the file, for messages.
        runtime: that runs the file; None for the first that is installed.

    Raises:
        ModelError: they differ, with the first operator that does; or the runtime refuses the file, or crashes on it.
    """
    try:
        checked = _check(imported, str(path), runtime or find_runtime())
    except WorkerDied as death:
        raise _not_run(path, f"{death.worker} {death.how}") from death
    except ModelError as error:
        raise error if error.expected else _not_run(path, error.what) from error
    except EdgepruneError:
        raise
    # A damaged file can hold options that TensorFlow only refuses when it computes.
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"{path} cannot be imported. Its model cannot be run: {said}",
            expected="a sound file",
            fix="convert the model again; if LiteRT runs it, please report it with the file.",
        ) from error
    graph = imported.file.subgraphs[0]
    return dataclasses.replace(
        checked,
        states=tuple(imported.states.read),
        input_ranges=input_bounds(graph),
        left_out=imported.left_out,
        sizes=tuple(imported.taken.items()),
    )


def _not_run(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} cannot be verified: {' '.join(why.split())[:400]}",
        expected="a file that the runtime here runs",
        fix="run `edgeprune profile` on the file: it shows which release of a runtime it needs.",
    )


def _check(imported: Imported, name: str, runtime: Runtime) -> Checked:
    graph = imported.file.subgraphs[0]
    content, ends, unchecked = runnable(imported.content, graph)
    samples = _samples(imported)
    keeps = bool(imported.states.read)
    expected = INTERPRETER.call(
        run, content, runtime, [s.of_file for s in samples], ends, keeps, "default", limit_s=LIMIT_S
    )
    model = imported.model if ends == graph.outputs else _part(imported.model, imported.values, ends)
    difference = 0.0
    states = {name: imported.states.first.get(name) for name in imported.states.read}
    for sample, values in zip(samples, expected, strict=True):
        made, states = _run_model(imported, model, sample.of_model, states, len(ends))
        real = [_real(values[index], graph.tensors[index]).ravel() for index in ends]
        difference = max(difference, largest_difference(real, [value.ravel() for value in made]))
    if imported.rounded is not None:
        return _check_rounded(imported, name, content, runtime, samples, expected, ends, difference)
    hybrid = any(_is_hybrid(one, operator) for one in imported.file.subgraphs for operator in one.operators)
    allowed = HYBRID_TOLERANCE if hybrid else TOLERANCE
    if difference <= allowed:
        return Checked(difference, unchecked=unchecked)
    where = _first_difference(imported, content, runtime, samples[0], allowed)
    if where is None:
        _log.warning(
            "%s amplifies rounding errors: as a Keras model it differs by %.1e of the largest output, and no operator "
            "does by itself.", name, difference,
        )  # fmt: skip
        return Checked(difference, unchecked=unchecked)
    raise ModelError(
        f"{name} computes something else as a Keras model: its outputs differ by {difference:.1e} of the largest. "
        f"{where}",
        expected=f"at most {allowed:.0e}",
        fix="please report the operator, best with the file.",
    )


@dataclass(frozen=True)
class _Sample:
    of_file: Values
    of_model: list[np.ndarray]


def _samples(imported: Imported) -> list[_Sample]:
    """Random inputs as the file takes them, and the same as the model does, with a batch of one."""
    graph = imported.file.subgraphs[0]
    tensors = [graph.tensors[index] for index in graph.inputs]
    drawn = random_inputs(imported.model, samples=SAMPLES)[: len(tensors)]
    generator = np.random.default_rng(1)
    samples = []
    for number in range(SAMPLES):
        of_file, of_model = {}, []
        for tensor, batch in zip(tensors, drawn, strict=True):
            values = batch[number : number + 1]
            ends = bounds(tensor)
            if ends:
                values = generator.uniform(*ends, values.shape)
            stored = _stored(values.reshape(tensor.shape), tensor)
            of_file[tensor.index] = stored
            of_model.append(_real(stored, tensor).reshape(values.shape).astype(batch.dtype))
        samples.append(_Sample(of_file, of_model))
    return samples


def _stored(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    if tensor.quantization is None or not is_quantized(tensor):
        return values.astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    zero = (*tensor.quantization.zero_point, 0)[0]
    return np.clip(np.round(values / tensor.quantization.scale[0]) + zero, limits.min, limits.max).astype(tensor.dtype)


def _real(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    if tensor.quantization is None or not is_quantized(tensor) or values.dtype.kind not in "iu":
        return values
    zero = (*tensor.quantization.zero_point, 0)[0]
    return ((values.astype(np.float64) - zero) * tensor.quantization.scale[0]).astype(np.float32)


def run(
    content: bytes, runtime: Runtime, samples: Sequence[Values], wanted: Sequence[int], keeps: bool, kernels: str
) -> list[Values]:
    """Run samples one after the other, in the interpreter's process.

    Args:
        samples: values as they are stored, by the index of their tensor.
        wanted: the tensors to give; what has no memory of its own is left out.
        keeps: let each sample begin where the last one ended.
    """
    inner = kernels == "builtin"
    interpreter = runtime.interpreter(content, kernels=kernels, preserve_all_tensors=inner)  # type: ignore[arg-type]
    results: list[Values] = []
    with runtime.refusals():
        for sample in samples:
            for index, value in sample.items():
                interpreter.set_tensor(index, value)
            if not keeps:  # a fused LSTM would begin where the last sample ended
                interpreter.reset_all_variables()
            interpreter.invoke()
            found = {index: _value(interpreter, index) for index in wanted}
            results.append({index: array for index, array in found.items() if array is not None})
    return results


def _value(interpreter: object, index: int) -> np.ndarray | None:
    """A copy; None for what has no memory of its own."""
    try:
        return np.array(interpreter.get_tensor(index))  # type: ignore[attr-defined]
    except ValueError:
        return None


def _run_model(
    imported: Imported,
    model: tf_keras.Model,
    inputs: Sequence[np.ndarray],
    states: Mapping[str, np.ndarray | None],
    outputs: int,
) -> tuple[list[np.ndarray], dict[str, np.ndarray | None]]:
    """The outputs, and the states for the next sample."""
    import tensorflow as tf

    given = [tf.constant(value) for value in inputs]
    for name, value in imported.states.read.items():
        tensor = _tensor(value)
        first = states[name]
        shape = [1, *tensor.shape[1:]]
        array: np.ndarray = np.zeros(shape) if first is None else first
        given.append(tf.constant(array.reshape(shape), tensor.dtype))
    made = [np.asarray(value) for value in tf.nest.flatten(model(given, training=False))]
    kept = imported.states.kept
    return made[:outputs], {**states, **dict(zip(kept, made[outputs:], strict=True))}


def _part(model: tf_keras.Model, values: Mapping[int, Value], ends: Sequence[int]) -> tf_keras.Model:
    """The model up to these tensors of the file."""
    import tf_keras

    return tf_keras.Model(model.inputs, [_tensor(values[index]) for index in ends])


def _tensor(value: Value) -> Any:
    assert value.tensor is not None
    return value.tensor


# -- operator by operator --------------------------------------------------------------------------------------------


def _compared(
    imported: Imported, values: Mapping[int, Value], known: Values, wanted: Sequence[Operator]
) -> Iterator[tuple[Operator, np.ndarray, np.ndarray, Tensor]]:
    """Each operator on the interpreter's own inputs: (operator, what the file makes, what the model makes, tensor)."""
    import tensorflow as tf
    import tf_keras

    graph = imported.file.subgraphs[0]
    known = {i: _before(array, graph.tensors[i], values.get(i)) for i, array in known.items()}
    for operator in wanted:
        given = {i: values[i] for i in operator.inputs if i >= 0 and i in values and is_symbolic(values[i].tensor)}
        made = [i for i in operator.outputs if i in known and i in values and is_symbolic(values[i].tensor)]
        if not made or not given or any(index not in known for index in given):
            continue
        # Reshapes one after the other are merged, so that an operator may begin before what it is given.
        sources = {index: before_reshape(_tensor(value)) or _tensor(value) for index, value in given.items()}
        inputs = {id(source): (source, known[index], graph.tensors[index]) for index, source in sources.items()}
        if any(id(values[index].tensor) in inputs for index in made):  # nothing but another name
            continue
        part = tf_keras.Model([source for source, *_ in inputs.values()], [values[i].tensor for i in made])
        arrays = [
            tf.constant(_real(array, tensor).reshape([1, *source.shape[1:]]), source.dtype)
            for source, array, tensor in inputs.values()
        ]
        results = tf.nest.flatten(part(arrays, training=False))
        for index, result in zip(made, results, strict=True):
            tensor = graph.tensors[index]
            yield operator, _real(known[index], tensor).ravel(), np.asarray(result).ravel(), tensor


def _before(array: np.ndarray, tensor: Tensor, value: Value | None) -> np.ndarray:
    """What the model has for a tensor of the file; of a variable, which is another one afterwards, its zeros."""
    if tensor.variable:
        return np.zeros_like(array)
    return value.blocks.image(array) if value and value.blocks else array


def _all_values(imported: Imported, content: bytes, runtime: Runtime, sample: _Sample) -> Values:
    graph = imported.file.subgraphs[0]
    wanted = [tensor.index for tensor in graph.tensors if not tensor.constant and tensor.is_numeric]
    return INTERPRETER.call(run, content, runtime, [sample.of_file], wanted, False, "builtin", limit_s=LIMIT_S)[0]


def _first_difference(
    imported: Imported, content: bytes, runtime: Runtime, sample: _Sample, allowed: float
) -> str | None:
    """The first operator that differs on the same inputs, if any does."""
    known = _all_values(imported, content, runtime, sample)
    for operator, file, model, tensor in _compared(
        imported, imported.values, known, imported.file.subgraphs[0].operators
    ):
        difference = largest_difference([file], [model])
        if not difference <= allowed:
            return (
                f"The first operator that differs is number {operator.index}, {operator.name}, which makes "
                f"{tensor.name!r}: by {difference:.1e} on the same inputs."
            )
    return None


def _check_rounded(
    imported: Imported,
    name: str,
    content: bytes,
    runtime: Runtime,
    samples: Sequence[_Sample],
    expected: Sequence[Values],
    ends: Sequence[int],
    difference: float,
) -> Checked:
    """Of a quantized file: each operator by itself, and the model with the file's rounding, in steps."""
    graph = imported.file.subgraphs[0]
    assert imported.rounded is not None
    worst = 0.0
    known = _all_values(imported, content, runtime, samples[0])
    for operator, file, model, tensor in _compared(imported, imported.rounded_values, known, graph.operators):
        steps = _steps(file, model, tensor)
        worst = max(worst, steps)
        if not steps <= MOST_STEPS:
            raise ModelError(
                f"{name} computes something else as a Keras model. The first operator that differs is number "
                f"{operator.index}, {operator.name}, which makes {tensor.name!r}: by {steps:.1f} steps of its "
                "quantization on the same inputs.",
                expected=f"at most {MOST_STEPS:g}",
                fix="please report the operator, best with the file.",
            )
    total = 0.0
    states = {state: imported.states.first.get(state) for state in imported.states.read}
    for sample, values in zip(samples, expected, strict=True):
        made, states = _run_model(imported, imported.rounded, sample.of_model, states, len(ends))
        for index, value in zip(ends, made, strict=True):
            tensor = graph.tensors[index]
            total = max(total, _steps(_real(values[index], tensor).ravel(), value.ravel(), tensor))
    return Checked(difference, total, worst)


def _steps(file: np.ndarray, model: np.ndarray, tensor: Tensor) -> float:
    """The largest difference in steps of the quantization; of floats in 255ths of their range."""
    if tensor.quantization is not None and is_quantized(tensor):
        step = float(tensor.quantization.scale[0])
        step *= 1 if tensor.dtype != "int16" else 256
    else:
        step = max(float(np.ptp(file)), 1e-6) / 255 if file.dtype.kind == "f" else 1.0
    if file.shape != model.shape:
        return float("inf")
    return float(np.abs(file.astype(np.float64) - model.astype(np.float64)).max()) / step if file.size else 0.0


def _is_hybrid(graph: Subgraph, operator: Operator) -> bool:
    """Whether integers meet floats in an operator that multiplies."""
    tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
    floats = any(not tensor.constant and tensor.dtype == "float32" for tensor in tensors)
    return floats and any(tensor.constant and is_quantized(tensor) for tensor in tensors)
