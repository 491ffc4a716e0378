"""Count the work of a graph on an Edge TPU, in the amounts of :class:`edgeprune.target.EdgeTpuSeconds`.

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

# Half the memory for activations. An operator with more is split, and its parameters are sent once per part.
TILE_BYTES = 3 << 19


def all_integer(graph: Subgraph) -> frozenset[int]:
    """Indices of the operators without float tensors: those assumed to run on the chip when there is no placement."""
    mapped = [op for op in graph.operators if not any(t.dtype.startswith("float") for t in _tensors(graph, op))]
    return frozenset(op.index for op in mapped)


def amounts(graph: Subgraph, on_chip: Collection[int], cache_bytes: int | None = None) -> dict[int, dict[str, float]]:
    """Index of each operator on the chip → its amounts of work; -1 → those of the inference as a whole.

    Args:
        graph: the main subgraph.
        on_chip: indices of the operators that run there.
        cache_bytes: the chip's memory for parameters.
    """
    mapped = [op for op in graph.operators if op.index in on_chip and op.name not in FREE]
    streamed = parameters(graph, on_chip, cache_bytes).streamed
    by_index = {operator.index: _amounts(graph, operator, streamed[operator.index]) for operator in mapped}
    by_index[-1] = {"inferences": 1.0, **_boundary_bytes(graph, mapped)} if mapped else {}
    return by_index


def streamed_shares(graph: Subgraph, on_chip: Collection[int], cache_bytes: int | None = None) -> dict[int, float]:
    """Of each operator on the chip, the bytes of parameters that come over the link, per byte of its constants."""
    streamed = parameters(graph, on_chip, cache_bytes).streamed
    return {
        operator.index: streamed[operator.index] / max(_constant_bytes(graph, operator), 1)
        for operator in graph.operators
        if operator.index in streamed
    }


def operator_amounts(graph: Subgraph, operator: Operator, streamed_share: float) -> dict[str, float]:
    """The amounts of work of one operator on the chip; ``streamed_share``: see :func:`streamed_shares`."""
    if operator.name in FREE:
        return {}
    return _amounts(graph, operator, round(streamed_share * _constant_bytes(graph, operator)))


def _constant_bytes(graph: Subgraph, operator: Operator) -> int:
    return sum(tensor.nbytes for tensor in _tensors(graph, operator) if tensor.constant)


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
    elif kind in ("conv", "dense", "batch_matmul", "recurrent"):
        work["array_cycles"] = rows * math.ceil(math.prod(kernel.shape[1:]) / ARRAY) * math.ceil(channels / ARRAY)
    return work


def _tensors(graph: Subgraph, operator: Operator) -> list[Tensor]:
    return [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]


def _boundary_bytes(graph: Subgraph, mapped: list[Operator]) -> dict[str, float]:
    """Bytes over the link: tensors that the chip reads from the host, and tensors that it writes for the host."""
    inside = {index for operator in mapped for index in operator.outputs}
    read = {i for operator in mapped for i in operator.inputs if i >= 0 and not graph.tensors[i].constant} - inside
    elsewhere = {op.index for op in graph.operators} - {op.index for op in mapped}
    wanted = set(graph.outputs) | {i for op in graph.operators if op.index in elsewhere for i in op.inputs}
    return {
        "sent_bytes": float(sum(graph.tensors[i].nbytes for i in read)),
        "returned_bytes": float(sum(graph.tensors[i].nbytes for i in inside & wanted)),
    }
