"""What is wrong with a file that can be read all the same: one runtime refuses it, or runs it with what lies in memory.

LiteRT checks that constants are as large as their shapes (``SetTensorParametersReadOnly`` in subgraph.cc), TensorFlow
Lite Micro does not; neither checks that a tensor is written before it is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeprune.tflite.graph import Subgraph, TFLiteModel

# Custom operators that may read a tensor which no operator writes: Vela passes the Ethos-U its working memory that way.
_BRINGS_SCRATCH = {"ethos-u"}


def faults(model: TFLiteModel) -> tuple[str, ...]:
    """One sentence per kind of fault and subgraph; none for a sound file."""
    return tuple(sentence for graph in model.subgraphs for sentence in (*_short(graph), *_order(graph)))


def _short(graph: Subgraph) -> Iterator[str]:
    short = [tensor for tensor in graph.tensors if tensor.is_short]
    if short:
        first = short[0]
        others = f", and {len(short) - 1} more are short, too" if len(short) > 1 else ""
        yield (
            f"The tensor {first.index} {first.name!r} stores {len(first.stored):,} bytes, and its shape needs "
            f"{first.nbytes:,}{others}: LiteRT refuses the file. Compressed files are for TensorFlow Lite Micro only."
        )


def _order(graph: Subgraph) -> Iterator[str]:
    """The first operator that reads a tensor before it is written, and the first that writes over one."""
    written = set(graph.inputs)
    early = over = None
    for operator in graph.operators:
        for index in operator.inputs if operator.name not in _BRINGS_SCRATCH or not operator.custom else ():
            tensor = graph.tensors[index]
            known = index < 0 or index in written or tensor.constant or tensor.variable
            if not known and tensor.nbytes:  # an empty constant, such as a list of no axes, has no buffer
                early = early or (operator, tensor)
        for index in operator.outputs:
            if index >= 0 and (index in written or graph.tensors[index].constant):
                over = over or (operator, graph.tensors[index])
        written.update(index for index in operator.outputs if index >= 0)
    for found, does in ((early, "reads the tensor {} before it is written"), (over, "writes over the tensor {}")):
        if found:
            operator, tensor = found
            what = does.format(f"{tensor.index} {tensor.name!r}")
            yield f"Operator {operator.index} {operator.name} {what}: its result depends on what lies in memory."
