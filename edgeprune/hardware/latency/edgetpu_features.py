"""What a graph asks of an Edge TPU, in the countable amounts of :class:`edgeprune.target.EdgeTpuSeconds`.

The chip multiplies in an array of 64 x 64 cells; parameters that fit stay in its memory, the others come over the link
for every inference. Sources: google-coral/libedgetpu driver/config/beagle/beagle_chip_structures.h (16 tiles of 64
cells of 4 lanes, 3 MiB for activations); that whole layers are cached or streamed, and that a convolution whose
activations do not fit asks for its parameters again, shows in the sweeps of Jorgitou98/EdgeTPU-QuantRL-Evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from edgeprune.hardware.edgetpu.parameters import ARRAY, parameters
from edgeprune.hardware.latency.features import FREE, KINDS
from edgeprune.tflite.graph import Operator, Subgraph, Tensor

TILE_BYTES = 3 << 19  # half the memory for activations: more than that, and parameters come once per part


def all_integer(graph: Subgraph) -> frozenset[int]:
    """The operators (indices) whose tensors are all integers: what may run on the chip, where nobody says what does."""
    mapped = [op for op in graph.operators if not any(t.dtype.startswith("float") for t in _tensors(graph, op))]
    return frozenset(op.index for op in mapped)


def amounts(graph: Subgraph, on_chip: Collection[int], cache_bytes: int | None = None) -> dict[int, dict[str, float]]:
    """Amounts by index of each operator on the chip; -1 for what the inference as a whole asks for.

    Args:
        on_chip: indices of the operators that run there.
        cache_bytes: the chip's memory for parameters.
    """
    mapped = [op for op in graph.operators if op.index in on_chip and op.name not in FREE]
    streamed = parameters(graph, on_chip, cache_bytes).streamed
    found = {operator.index: _amounts(graph, operator, streamed[operator.index]) for operator in mapped}
    found[-1] = {"inferences": 1.0, **_boundary_bytes(graph, mapped)} if mapped else {}
    return found


def _amounts(graph: Subgraph, operator: Operator, streamed_bytes: int) -> dict[str, float]:
    data, output, kernel = graph.input(operator, 0), graph.output(operator), graph.input(operator, 1)
    activations = [t for t in _tensors(graph, operator) if not t.constant]
    nbytes = sum(t.nbytes for t in activations)
    work: dict[str, float] = {
        "operators": 1.0,
        "activation_elements": float(sum(t.size for t in activations)),
        "sent_bytes": streamed_bytes * max(1.0, nbytes / TILE_BYTES),
    }
    if data is None or output is None or kernel is None or not output.shape or not kernel.shape:
        return work
    channels, kind = output.shape[-1], KINDS.get(operator.name)
    rows = output.size / max(channels, 1)
    if kind == "depthwise":
        work["depthwise_cycles"] = rows * math.prod(kernel.shape[1:3]) * math.ceil(channels / ARRAY)
    elif kind in ("conv", "dense"):
        work["array_cycles"] = rows * math.ceil(math.prod(kernel.shape[1:]) / ARRAY) * math.ceil(channels / ARRAY)
    return work


def _tensors(graph: Subgraph, operator: Operator) -> list[Tensor]:
    return [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]


def _boundary_bytes(graph: Subgraph, mapped: list[Operator]) -> dict[str, float]:
    """What crosses the link: read by the mapped part from outside of it, and written by it for others."""
    inside = {index for operator in mapped for index in operator.outputs}
    read = {i for operator in mapped for i in operator.inputs if i >= 0 and not graph.tensors[i].constant} - inside
    elsewhere = {op.index for op in graph.operators} - {op.index for op in mapped}
    wanted = set(graph.outputs) | {i for op in graph.operators if op.index in elsewhere for i in op.inputs}
    return {
        "sent_bytes": float(sum(graph.tensors[i].nbytes for i in read)),
        "returned_bytes": float(sum(graph.tensors[i].nbytes for i in inside & wanted)),
    }
