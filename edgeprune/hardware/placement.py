"""Which operators of a graph a second processor takes: rules as data, and the partition that the runtime makes of them.

A :class:`PlacementRule` is a function of a graph and one of its operators. It answers True where the operator breaks
the rule and stays on the CPU, False where it does not, and None where the file does not tell (limits that depend on
sizes and that nobody published). Its docstring is the reason given to the user and the documentation. A
:class:`RuleBook` keys rules by operator: an operator without an entry is not supported.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.errors import ModelError
from edgeprune.tflite.graph import Operator, Subgraph, Tensor

# What indexing and arithmetic raise on an operator whose tensors are not those of its kind.
_MISFIT = (IndexError, KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError)
Answer = bool | None
# What decides beside a book's own rules: the operator is not in the book, or comes after the part that is kept.
NOT_IN_BOOK = "not_in_book"
STRANDED = "stranded"
REASONS = {
    NOT_IN_BOOK: "{operator} is not among the operators of {book}.",
    STRANDED: "An operator before it stays on the CPU, and only the first part that fits is compiled.",
}
Check = Callable[[Subgraph, Operator], Answer]


@dataclass(frozen=True)
class PlacementRule:
    """A limit. ``status``: what the processor's own tool prints for an operator that breaks it; ``fix``: what to do."""

    check: Check
    status: str
    fix: str | None = None

    @property
    def name(self) -> str:
        return self.check.__name__

    @property
    def reason(self) -> str:
        """The docstring's first paragraph on one line; its last paragraph names the source."""
        return " ".join((self.check.__doc__ or "").strip().split("\n\n")[0].split())


def rule(status: str, fix: str | None = None) -> Callable[[Check], PlacementRule]:
    """Declare a function a rule."""
    return lambda check: PlacementRule(check, status, fix)


@dataclass(frozen=True)
class RuleBook:
    """The limits of one processor.

    Attributes:
        operators: operator → its own limits. What is not here is not supported.
        general: limits of every operator, asked first.
        mapped, unsupported, second_subgraph: what its tool prints in these cases.
        only_first: the tool keeps one part of the graph, the first one that it supports.
        passthrough: custom operators that its own tool wrote into the file.
    """

    name: str
    operators: Mapping[str, tuple[PlacementRule, ...]]
    general: tuple[PlacementRule, ...]
    mapped: str
    unsupported: str
    second_subgraph: str = ""
    only_first: bool = False
    passthrough: frozenset[str] = frozenset()
    substitutes: Mapping[str, str] | None = None  # unsupported operator → what to use instead


@dataclass(frozen=True)
class Verdict:
    """What a rule book says about one operator; ``supported`` is None where it cannot tell.

    ``rule`` is the name of the rule that decided, or :data:`NOT_IN_BOOK`; None where nothing speaks against it. What
    depends on a verdict looks at that, and never at the words for people.
    """

    supported: Answer
    status: str
    reason: str | None = None
    fix: str | None = None
    rule: str | None = None


@dataclass(frozen=True)
class PlacedOperator:
    """An operator and where it runs; ``certain`` is false where the rules cannot tell.

    ``rule``: as in :class:`Verdict`, or :data:`STRANDED`.
    """

    index: int
    name: str
    on_accelerator: bool
    certain: bool
    status: str
    reason: str | None = None
    fix: str | None = None
    rule: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types, for people: without the name of the rule."""
        return {key: value for key, value in asdict(self).items() if key != "rule"}


@dataclass(frozen=True)
class Placement:
    """Where the operators of a graph run.

    ``accelerator_ops`` counts those that may or may not fit among the ones that do (``uncertain_ops`` says how many);
    ``fully_mapped`` needs all of them certain. Bytes are None where the processor keeps no parameters of its own.
    ``source`` is "predicted", or the tool and version that said it.
    """

    processor: str
    source: str
    accelerator_ops: int
    cpu_ops: int
    uncertain_ops: int
    fully_mapped: bool
    partitions: int
    cached_param_bytes: int | None
    streamed_param_bytes: int | None
    operators: tuple[PlacedOperator, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON types; of the operators, those on the CPU and those in doubt."""
        document = {key: value for key, value in asdict(self).items() if key != "operators"}
        document["notes"] = list(self.notes)
        shown = [op for op in self.operators if not (op.on_accelerator and op.certain)]
        return {**document, "not_mapped": [op.to_dict() for op in shown]}


def judge(book: RuleBook, graph: Subgraph, operator: Operator) -> Verdict:
    """The first objection, else the first doubt, else supported."""
    if operator.custom and operator.name in book.passthrough:
        return Verdict(True, book.mapped)
    name = "CUSTOM" if operator.custom else operator.name
    doubt = None
    substitute = (book.substitutes or {}).get(name)
    for item in (*book.general, *book.operators.get(name, ())):
        answer = item.check(graph, operator)
        if answer:
            return Verdict(False, item.status, item.reason, substitute or item.fix, item.name)
        if answer is None:
            doubt = doubt or Verdict(None, book.mapped, item.reason, item.fix, item.name)
    if name not in book.operators:
        reason = REASONS[NOT_IN_BOOK].format(operator=operator.name, book=book.name)
        return Verdict(False, book.unsupported, reason, substitute, NOT_IN_BOOK)
    return doubt or Verdict(True, book.mapped)


@contextlib.contextmanager
def fitting(operator: Operator) -> Iterator[None]:
    """Turn what a contradiction between an operator and its tensors raises into an error of the file."""
    try:
        yield
    except _MISFIT as error:
        raise ModelError(
            f"The model is damaged: the tensors of operator {operator.index} {operator.name} do not fit it ({error}).",
            fix="convert or copy the model again.",
        ) from None


def partition(graph: Subgraph, supported: Sequence[bool]) -> list[int]:
    """The number of the part that each operator runs in, as the runtime cuts a graph for a delegate.

    All operators of a part are supported, or none is, so the kinds of parts alternate, beginning with that of the
    first operator. An operator joins the first part of its kind in which, or before which, its inputs are computed.
    (``PartitionGraphIntoIndependentNodeSubsets`` in tensorflow/lite/graph_info.cc.)
    """
    part_of: dict[int, int] = {}
    parts: list[int] = []
    for operator, kind in zip(graph.operators, supported, strict=True):
        earliest = max((part_of[index] for index in operator.inputs if index in part_of), default=0)
        first_kind = supported[0] if earliest % 2 == 0 else not supported[0]
        parts.append(earliest if first_kind == kind else earliest + 1)
        part_of.update(dict.fromkeys(operator.outputs, parts[-1]))
    return parts


def place(book: RuleBook, graph: Subgraph) -> tuple[list[PlacedOperator], int]:
    """Each operator's place, and the number of parts that the accelerator gets.

    Raises:
        ModelError: an operator has tensors that it cannot have.
    """
    verdicts = []
    for operator in graph.operators:
        with fitting(operator):
            verdicts.append(judge(book, graph, operator))
    supported = [verdict.supported is not False for verdict in verdicts]
    parts = partition(graph, supported)
    taken = sorted({part for part, fits in zip(parts, supported, strict=True) if fits})
    kept = set(taken[:1] if book.only_first else taken)
    placed = []
    for operator, verdict, part in zip(graph.operators, verdicts, parts, strict=True):
        placed.append(_placed(book, operator, verdict, part in kept))
    return placed, len(kept)


def _placed(book: RuleBook, operator: Operator, verdict: Verdict, kept: bool) -> PlacedOperator:
    on_accelerator = verdict.supported is not False and kept
    if verdict.supported is not False and not kept:
        verdict = Verdict(False, book.second_subgraph, REASONS[STRANDED], rule=STRANDED)
    return PlacedOperator(
        operator.index,
        operator.name,
        on_accelerator,
        certain=verdict.supported is not None,
        status=verdict.status,
        reason=verdict.reason,
        fix=verdict.fix,
        rule=verdict.rule,
    )


def summarize(
    book: RuleBook,
    placed: Sequence[PlacedOperator],
    partitions: int,
    cached: int | None = None,
    streamed: int | None = None,
    notes: Sequence[str] = (),
) -> Placement:
    """The placement of a graph, from the verdict on each of its operators."""
    on = sum(op.on_accelerator for op in placed)
    unsure = sum(not op.certain for op in placed)
    full = on == len(placed) > 0 and unsure == 0
    return Placement(
        processor=book.name,
        source="predicted",
        accelerator_ops=on,
        cpu_ops=len(placed) - on,
        uncertain_ops=unsure,
        fully_mapped=full,
        partitions=partitions,
        cached_param_bytes=cached,
        streamed_param_bytes=streamed,
        operators=tuple(placed),
        notes=tuple(notes),
    )


def status_table(placed: Sequence[PlacedOperator]) -> list[tuple[str, int, str]]:
    """(operator, count, status) in order of appearance, the table that the Edge TPU's compiler prints."""
    return [(name, count, status) for (name, status), count in Counter((p.name, p.status) for p in placed).items()]


# -- what rules ask ---------------------------------------------------------------------------------------------------


def activations(graph: Subgraph, operator: Operator) -> Iterator[Tensor]:
    """The tensors that an operator reads and writes at run time."""
    for index in (*operator.inputs, *operator.outputs):
        if index >= 0 and not graph.tensors[index].constant:
            yield graph.tensors[index]


def constant(graph: Subgraph, operator: Operator, position: int) -> list[int] | None:
    """A constant input as a flat list of integers; None when it is missing, computed or cannot be read."""
    tensor = graph.input(operator, position)
    if tensor is None or not tensor.is_numeric or tensor.is_short or not (tensor.constant or tensor.nbytes == 0):
        return None
    return [int(value) for value in tensor.values().reshape(-1)] if tensor.constant else []
