"""What will not run, or not run fast, on a target, and what to change: a table of checkers over one graph.

A checker is an entry of :data:`CHECKERS`: a name, the targets that it applies to, and a function from a
:class:`Subject` and a target to findings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.checking.finding import SEVERITIES, Finding, Severity
from edgeprune.checking.micro import on_microcontroller
from edgeprune.checking.running import running
from edgeprune.checking.sparse import has_arm_cpu, sparse_inference
from edgeprune.hardware.placement import NOT_IN_BOOK, STRANDED, PlacedOperator, Placement, fitting
from edgeprune.target import ChannelSteps, Target
from edgeprune.tflite.faults import faults
from edgeprune.tflite.graph import Operator, Subgraph, TFLiteModel
from edgeprune.tflite.interface import other_signatures
from edgeprune.tflite.versions import ProblemKind, RuntimeProblem, runtime_problems

if TYPE_CHECKING:
    import tf_keras

# The format of a file that was not converted here.
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Subject:
    """What is checked: a .tflite file, and the Keras model that it came from, if it did.

    Attributes:
        path: the .tflite file.
        file: the same, read.
        keras: the model; None for a file.
        format: number format of the file, for example "int8"; :data:`AS_IT_IS` for a file that was not converted here.
    """

    path: Path
    file: TFLiteModel
    keras: tf_keras.Model | None = None
    format: str = AS_IT_IS
    _layers: dict[str, int] = field(default_factory=dict)

    @property
    def graph(self) -> Subgraph:
        """The main subgraph."""
        return self.file.subgraphs[0]

    def where(self, operator: Operator) -> str:
        """The Keras layer that an operator came from, as far as its output's name tells; else 'index NAME'."""
        output = self.graph.output(operator)
        if self.keras is not None and output is not None:
            if not self._layers:
                self._layers.update({layer.name: place for place, layer in enumerate(self.keras.layers)})
            order = self._layers
            named = [part for part in re.split(r"[/;]", output.name) if part in order]
            if named:
                return max(named, key=lambda name: order[name])
            if output.index in self.graph.outputs and len(self.keras.outputs) == 1:
                return str(self.keras.output_names[0])
        return f"{operator.index} {operator.name}"


Checker = tuple[str, Callable[[Target], bool], Callable[[Subject, Target], list[Finding]]]


def check(subjects: Iterable[Subject], target: Target) -> list[Finding]:
    """All findings of all checkers that apply, worst first; what holds in several formats stands once.

    Raises:
        MissingError: a compiler that the target needs is not installed.
    """
    findings: dict[tuple[object, ...], Finding] = {}
    for subject in subjects:
        # The other checkers take an order of operators for granted that such a file does not have.
        unsound = bool(faults(subject.file))
        for name, applies, function in CHECKERS[:1] if unsound else CHECKERS:
            for item in function(subject, target) if applies(target) else ():
                key = (item.severity, item.what, item.fix, item.where, name)
                earlier = findings[key].formats if key in findings else ()
                findings[key] = Finding(*key, (*earlier, subject.format))
    return sorted(findings.values(), key=lambda item: SEVERITIES.index(item.severity))


# -- checkers ---------------------------------------------------------------------------------------------------------


# What to do about custom operators; the sentences about the other problems say it themselves.
_CUSTOM_FIXES: dict[ProblemKind, str] = {
    "select": "replace the layer by one that TensorFlow Lite has an operator for.",
    "custom": "replace the layer by ones that TensorFlow Lite has operators for, or use a runtime with this operator "
    "built in or registered.",
    "compiled": "take the file that it was compiled from, or a target with that accelerator.",
    "micro": "replace the layer by ones that it has operators for (edgeprune/tflite/micro_operators.csv lists them).",
}


def _contents(subject: Subject, target: Target) -> list[Finding]:
    """What contradicts itself in the file, which is then not judged further; and what is not looked at."""
    fix = "convert the model again, or copy the file again."
    empty = [] if subject.graph.operators else [Finding("warning", "The file has no operators: it computes nothing.")]
    return [
        *empty,
        *(Finding("error", fault, fix) for fault in faults(subject.file)),
        *(Finding("warning", said) for said in other_signatures(subject.file)),
    ]


def _runtime(subject: Subject, target: Target) -> list[Finding]:
    """Custom operators, and operators newer than the runtime on the board."""
    problems = runtime_problems(subject.file, target)
    return [
        Finding("error", problem.what, _CUSTOM_FIXES.get(problem.kind), _places(subject, problem))
        for problem in problems
    ]


def _places(subject: Subject, problem: RuntimeProblem) -> tuple[str, ...]:
    """Where the operators are that microcontrollers do not have; the others are in tables of their own."""
    named = [op for op in subject.graph.operators if op.name == problem.operator and problem.kind == "micro"]
    return tuple(dict.fromkeys(map(subject.where, named)))


def _sizes(subject: Subject, target: Target) -> list[Finding]:
    """Inputs whose sizes are known at run time only."""
    findings = []
    for index in subject.graph.inputs:
        tensor = subject.graph.tensors[index]
        if any(size < 0 for size in tensor.signature[1:]):
            severity: Severity = "error" if target.compiler or target.micro else "warning"
            what = f"The input {tensor.name!r} has sizes that are known at run time only: {list(tensor.signature)}."
            findings.append(Finding(severity, what, "give the model a fixed input size (Input(shape=...))."))
        elif tensor.signature[:1] == (-1,) and target.quantization.static_batch and not target.micro:
            what = f"The batch of the input {tensor.name!r} is not fixed; compilers take it as 1 or refuse."
            findings.append(Finding("warning", what, "convert with a batch of 1 (edgeprune build does)."))
    return findings


def _accelerator(subject: Subject, target: Target) -> list[Finding]:
    """What the Edge TPU leaves on the CPU, as predicted."""
    from edgeprune.hardware.target_placement import PREDICTORS

    assert target.compiler is not None
    place = PREDICTORS[target.compiler.name](subject.graph, target)
    findings = list(_left(subject, place, "warning"))
    if place.accelerator_ops == 0 and subject.graph.operators:
        findings.insert(0, Finding("error", f"No operator runs on the {place.processor}.", _whole_fix(subject)))
    stranded = [op for op in place.operators if op.rule == STRANDED]
    if stranded:
        what = (
            f"{len(stranded)} operators that the {place.processor} supports run on the CPU, because they come after "
            "one that it does not."
        )
        fix = "change the operators named in the other findings, or move them to the end of the model."
        findings.append(Finding("warning", what, fix, _names(subject, stranded)))
    return [*findings, *_streamed(subject, place)]


def _streamed(subject: Subject, place: Placement) -> Iterator[Finding]:
    """Parameters that each inference loads: those that do not fit, and those that are never kept."""
    from edgeprune.hardware.edgetpu.parameters import operand_bytes

    operands = {op.index: operand_bytes(subject.graph, op) for op in _on(subject, place)}
    never = sum(operands.values())
    if beyond := (place.streamed_param_bytes or 0) - never:
        what = f"{beyond:,} bytes of parameters do not stay on the chip: each inference loads them."
        yield Finding("warning", what, "prune filters, so that the parameters fit.")
    if never:
        what = (
            f"{never:,} bytes of constants of elementwise operators are loaded in each inference: the "
            f"{place.processor} never keeps them on the chip, whatever else fits."
        )
        fix = "fold scales and offsets into the layer before them, as the converter does for batch normalization."
        yield Finding("note", what, fix, _names(subject, [op for op in place.operators if operands.get(op.index)]))


def _on(subject: Subject, place: Placement) -> list[Operator]:
    return [subject.graph.operators[op.index] for op in place.operators if op.on_accelerator]


def _left(subject: Subject, place: Placement, severity: Severity) -> Iterator[Finding]:
    """One finding for each rule that operators break, with all that break it and have the same remedy."""
    groups: dict[tuple[object, ...], list[PlacedOperator]] = {}
    for op in place.operators:
        if op.rule in (None, STRANDED):
            continue
        kind = op.name if op.rule == NOT_IN_BOOK else None
        groups.setdefault((op.rule, kind, op.fix, op.on_accelerator), []).append(op)
    for ops in groups.values():
        first = ops[0]
        names = ", ".join(dict.fromkeys(op.name for op in ops))
        verb = "it cannot be told whether it is" if first.on_accelerator else "not"
        what = f"{names}: {verb} taken by {place.processor} ({first.status}). {first.reason}"
        yield Finding("note" if first.on_accelerator else severity, what, first.fix, _names(subject, ops))


def _names(subject: Subject, ops: Sequence[PlacedOperator]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(subject.where(subject.graph.operators[op.index]) for op in ops))


def _whole_fix(subject: Subject) -> str:
    floats = any(subject.graph.tensors[index].dtype == "float32" for index in subject.graph.inputs)
    if floats:
        return "convert with full-integer quantization (mode int8)."
    return "change the operators that the other findings name; it takes convolutions and dense layers in int8 or uint8."


def _compiler(subject: Subject, target: Target) -> list[Finding]:
    """What the target's compiler leaves on the CPU, asked."""
    from edgeprune.hardware.target_placement import placement_of

    place = placement_of(subject.path, subject.graph, target, None).placement
    if place is None:
        return []
    findings = []
    for row in {(row["name"], row["status"]) for row in place["not_mapped"]}:
        where = tuple(dict.fromkeys(subject.where(op) for op in subject.graph.operators if op.name == row[0]))
        what = f"{row[0]}: not taken by {place['processor']} ({place['source']}). {row[1].rstrip('.')}."
        findings.append(Finding("warning", what, "replace the layer, or convert it to int8.", where))
    if place["accelerator_ops"] == 0 and subject.graph.operators:
        findings.insert(0, Finding("error", f"No operator runs on the {place['processor']}.", _whole_fix(subject)))
    return sorted(findings, key=lambda item: item.what)


def _channels(subject: Subject, target: Target) -> list[Finding]:
    """Hidden layers whose channels do not fill the target's vectors."""
    graph = subject.graph
    odd: dict[tuple[int, ChannelSteps], list[str]] = {}
    ending = _ending(graph)
    for operator in graph.operators:
        weights = graph.input(operator, 1)
        if operator.name not in ("CONV_2D", "FULLY_CONNECTED") or weights is None or operator.index in ending:
            continue
        steps = target.channel_steps("int8" if weights.dtype in ("int8", "uint8") else weights.dtype)
        with fitting(operator):
            channels = weights.shape[0]
        if channels % steps.at(channels):
            odd.setdefault((channels, steps), []).append(subject.where(operator))
    return [
        Finding(
            "note",
            f"{channels} output channels are not a multiple of {multiple}: the last group of {multiple} is computed "
            f"for {channels % multiple}.",
            f"use {' or '.join(map(str, _neighbours(channels, multiple)))} channels.",
            tuple(dict.fromkeys(where)),
        )
        for (channels, steps), where in sorted(odd.items(), key=lambda item: item[0][0])
        for multiple in [steps.at(channels)]
    ]


def _pairs(subject: Subject, target: Target) -> list[Finding]:
    """Float 1x1 convolutions that XNNPACK computes two channels at a time."""
    from edgeprune.hardware.latency.features import computed_in_pairs, words_of_pairs

    return [
        Finding(
            "warning",
            words_of_pairs(channels, target.runtime.package),
            f"use {' or '.join(map(str, _neighbours(channels, 8)))} channels.",
            tuple(dict.fromkeys(map(subject.where, operators))),
        )
        for channels, operators in sorted(computed_in_pairs(subject.graph).items())
    ]


def _has_pairs(target: Target) -> bool:
    from edgeprune.hardware.latency.features import pairs_channels

    return has_arm_cpu(target) and "xnnpack" in target.delegates and pairs_channels(target.runtime)


def _recurrent(subject: Subject, target: Target) -> list[Finding]:
    """Fused recurrent layers that take longer in int8 than in float32."""
    from edgeprune.hardware.latency.estimate import slower_in_int8, words_of_slower

    operators = {operator.index: operator for operator in subject.graph.operators}
    return [
        Finding(
            "warning",
            words_of_slower(operators[index].name, ratio),
            'keep small recurrent layers in float: modes = ["float32"] or ["mixed"] in [quantize].',
            (subject.where(operators[index]),),
        )
        for index, ratio in slower_in_int8(subject.graph, target).items()
    ]


def _neighbours(channels: int, multiple: int) -> list[int]:
    below = channels // multiple * multiple
    return [count for count in (below, below + multiple) if count]


def _ending(graph: Subgraph) -> set[int]:
    """Operators whose output, up to what changes no channels, is an output of the model: the classes decide them."""
    plain = {"SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE", "RESHAPE", "ARG_MAX", "TANH"}
    outputs, ending = set(graph.outputs), set()
    for operator in reversed(graph.operators):
        if outputs & set(operator.outputs):
            ending.add(operator.index)
            outputs |= set(operator.inputs) if operator.name in plain else set()
    return ending


def _softmax(subject: Subject, target: Target) -> list[Finding]:
    """Softmax over more elements than the documentation of the Edge TPU allows, though the compiler takes some more."""
    rows = [op for op in subject.graph.operators if op.name == "SOFTMAX"]
    long = [op for op in rows if 16_000 < (getattr(subject.graph.output(op), "shape", (0,)) or (0,))[-1] <= 16_384]
    if not long:
        return []
    what = "Softmax over more than 16,000 elements is beyond the Edge TPU's documentation."
    fix = "take the softmax on the host, or over fewer classes."
    return [Finding("note", what, fix, tuple(subject.where(op) for op in long))]


def _delegates(subject: Subject, target: Target) -> list[Finding]:
    """What the runtime's delegates leave to its plain kernels."""
    from edgeprune.hardware.delegates import delegate_placement

    places = [delegate_placement(subject.graph, name, target.runtime) for name in target.delegates]
    return [finding for place in places for finding in _left(subject, place, "note")]


def _predicted(target: Target) -> bool:
    from edgeprune.hardware.target_placement import PREDICTORS

    return target.compiler is not None and target.compiler.name in PREDICTORS


CHECKERS: list[Checker] = [
    ("contents", lambda target: True, _contents),
    ("runtime", lambda target: not (target.compiler and target.compiler.required), _runtime),
    ("running", lambda target: not (target.micro or (target.compiler and target.compiler.required)), running),
    ("microcontroller", lambda target: target.micro is not None, on_microcontroller),
    ("sizes", lambda target: True, _sizes),
    ("accelerator", _predicted, _accelerator),
    ("compiler", lambda target: target.compiler is not None and not _predicted(target), _compiler),
    ("softmax", _predicted, _softmax),
    ("delegates", lambda target: bool(target.delegates), _delegates),
    ("sparse inference", has_arm_cpu, sparse_inference),
    ("channels", lambda target: bool(target.channel_multiple), _channels),
    ("pairs of channels", _has_pairs, _pairs),
    ("recurrent layers", has_arm_cpu, _recurrent),
]
