"""Cut a .tflite after each of its operators, or have it return all results, by changing vectors in place.

Weights, buffers and metadata stay where they are. The format is ``tensorflow/compiler/mlir/lite/schema/schema.fbs``;
how vectors and offsets are stored is in the FlatBuffers documentation, "FlatBuffer Internals".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import tflite

from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.graph import Subgraph

# Offsets of the fields ``outputs`` and ``operators`` in the vtable of SubGraph.
_OUTPUTS, _OPERATORS = 8, 10


def prefixes(content: bytes) -> Iterator[bytes]:
    """The main subgraph up to its first operator, up to its second, and so on, and last the whole file.

    The outputs of a prefix are all tensors that a later operator reads or that the graph returns, so that the runtime
    has no reason to skip an operator.

    Raises:
        ModelError: not a .tflite file, or damaged.
    """
    graph = parse(content).subgraphs[0]
    for length in range(1, len(graph.operators)):
        yield _cut(content, length, _frontier(graph, length))
    yield content


def prefix(content: bytes, length: int) -> bytes:
    """The main subgraph up to so many operators; see :func:`prefixes`."""
    return _cut(content, length, _frontier(parse(content).subgraphs[0], length))


def with_all_results(content: bytes) -> bytes:
    """The file with every result of an operator as an output of the main subgraph, behind its own outputs.

    Results that depend on constants only stay inside, because runtimes compute them when they load the file.

    Raises:
        ModelError: not a .tflite file, or damaged.
    """
    graph = parse(content).subgraphs[0]
    varying = {index for index, tensor in enumerate(graph.tensors) if index in graph.inputs or tensor.variable}
    for operator in graph.operators:
        if varying.intersection(operator.inputs):
            varying.update(operator.outputs)
    results = [index for operator in graph.operators for index in operator.outputs if index in varying]
    shown = [index for index in results if index >= 0 and graph.tensors[index].is_numeric]
    return _cut(content, len(graph.operators), list(dict.fromkeys([*graph.outputs, *shown])))


def _frontier(graph: Subgraph, length: int) -> list[int]:
    written = [tensor for operator in graph.operators[:length] for tensor in operator.outputs if tensor >= 0]
    read = {tensor for operator in graph.operators[length:] for tensor in operator.inputs}
    wanted = [tensor for tensor in written if tensor in read or tensor in graph.outputs]
    return wanted or written[-1:]


def _cut(content: bytes, length: int, outputs: list[int]) -> bytes:
    table = tflite.Model.GetRootAs(content, 0).Subgraphs(0)._tab
    changed = bytearray(content)
    # A vector begins with its length, so a smaller number there drops the last operators.
    struct.pack_into("<I", changed, table.Vector(table.Offset(_OPERATORS)) - 4, length)
    # The new outputs may need more room than the old ones. They go to the end, as offsets point forward only.
    changed.extend(bytes(-len(changed) % 4))
    field = table.Pos + table.Offset(_OUTPUTS)
    struct.pack_into("<I", changed, field, len(changed) - field)
    changed.extend(struct.pack(f"<I{len(outputs)}i", len(outputs), *outputs))
    return bytes(changed)
