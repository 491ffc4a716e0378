"""A .tflite cut or resized before it is read as a model: what no model computes, and sizes that are open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeprune.errors import ModelError
from edgeprune.tflite.graph import Subgraph
from edgeprune.tflite.objects import packed, schema, unpacked
from edgeprune.tflite.size import UNPACKING

# Operators behind a network that select among its results: their place is on the host.
POST_PROCESSING = ("TFLite_Detection_PostProcess", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")


def without_post_processing(content: bytes, graph: Subgraph) -> tuple[bytes, tuple[str, ...]]:
    """The file that ends before it selects among its results, and the names of the operators that are left out."""
    content, _, names = _before(content, graph, {o.index for o in graph.operators if o.name in POST_PROCESSING})
    return content, names


def runnable(content: bytes, graph: Subgraph) -> tuple[bytes, tuple[int, ...], tuple[str, ...]]:
    """The file without custom operators, which have a rule here but no runtime has, and what depends on them.

    Returns:
        The file, the tensors that it gives, and the names of the operators that were cut off.
    """
    return _before(content, graph, {operator.index for operator in graph.operators if operator.custom})


def _before(content: bytes, graph: Subgraph, first: set[int]) -> tuple[bytes, tuple[int, ...], tuple[str, ...]]:
    """The file without these operators of its first graph, and all that depends on them."""
    cut: set[int] = set()
    for operator in graph.operators:
        makers = (graph.producers[index] for index in operator.inputs if index in graph.producers)
        if operator.index in first or any(maker.index in cut for maker in makers):
            cut.add(operator.index)
    if not cut:
        return content, graph.outputs, ()
    read = {i for operator in graph.operators if operator.index in cut for i in operator.inputs}
    kept = {i for operator in graph.operators if operator.index not in cut for i in operator.outputs}
    ends = tuple(i for i in sorted(kept) if (i in read or i in graph.outputs) and not _is_constant(graph, i))
    names = tuple(graph.operators[index].name for index in sorted(cut))
    if not ends:
        raise ModelError(
            f"All of the file depends on the operator {names[0]}, and a model ends before it: nothing is left.",
            expected="a network before it",
            fix="please report the operator, best with the file.",
        )

    def change(model: Any) -> None:
        inner = model.subgraphs[0]
        inner.operators = [operator for index, operator in enumerate(inner.operators) if index not in cut]
        inner.outputs = list(ends)
        model.metadata = []
        model.signatureDefs = [one for one in model.signatureDefs or [] if one.subgraphIndex == 0]
        for signature in model.signatureDefs:
            signature.outputs = [_named(inner.tensors[index].name, index) for index in ends]
        # A runtime refuses a file for a code that it does not know, used or not.
        used = sorted({operator.opcodeIndex for one in model.subgraphs for operator in one.operators})
        numbers = {old: new for new, old in enumerate(used)}
        model.operatorCodes = [model.operatorCodes[old] for old in used]
        for one in model.subgraphs:
            for operator in one.operators:
                operator.opcodeIndex = numbers[operator.opcodeIndex]

    return _changed(content, change), ends, names


def _named(name: bytes, index: int) -> Any:
    """An entry of a signature."""
    entry = schema().TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _is_constant(graph: Subgraph, index: int) -> bool:
    """Whether a tensor is a constant, or one that is only unpacked."""
    tensor, maker = graph.tensors[index], graph.producers.get(index)
    if maker is None or maker.name not in UNPACKING:
        return tensor.constant
    return all(graph.tensors[source].constant for source in maker.inputs)


def at_sizes(content: bytes, shapes: Mapping[int, Sequence[int]]) -> bytes:
    """The file with these shapes of tensors of its first graph; runtimes work out the shapes behind them."""

    def change(model: Any) -> None:
        for index, shape in shapes.items():
            tensor = model.subgraphs[0].tensors[index]
            tensor.shape, tensor.shapeSignature = list(shape), None

    return _changed(content, change)


def _changed(content: bytes, change: Callable[[Any], None]) -> bytes:
    """The file after a change of its tables."""
    root = schema().Model.GetRootAsModel(content, 0)
    # The tables are copied: in a real file they do not overlap.
    if sum(root.Buffers(i).DataLength() for i in range(root.BuffersLength())) > len(content):
        raise ModelError("The buffers of the file overlap.", expected="a sound file", fix="convert the model again.")
    try:
        model = unpacked(content)
        change(model)
        return packed(model)
    except Exception as error:  # a damaged file can hold what the accessors fail at in any way
        raise ModelError(
            f"The tables of the file cannot be copied: {error}", expected="a sound file", fix="convert the model again."
        ) from error
