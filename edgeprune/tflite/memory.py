"""The tensor arena that the TensorFlow Lite interpreter plans, computed from the file alone.

The planner is greedy by size: tensors in decreasing order of size, each into the smallest gap left by those that are
alive at the same time (Pisarchyk & Lee 2020, "Efficient Memory Management for Deep Neural Net Inference",
arXiv:2001.03288; ``arena_planner.cc`` and ``simple_memory_arena.cc`` in TensorFlow Lite). The figures hold for the
runtime's own kernels, one thread and no delegate; XNNPACK allocates its workspace itself.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from edgeprune.tflite.graph import Operator, Subgraph, Tensor, TFLiteModel
from edgeprune.tflite.scratch import dynamic_outputs, scratch

ALIGNMENT_BYTES = 64  # kDefaultTensorAlignment
_SMALL_BYTES = 4  # a tensor of at most one scalar never shares memory, as it may be broadcast (arena_planner.cc)

# Operator → positions of the inputs whose memory its output may take over (TfLiteRegistration::inplace_operator).
IN_PLACE = {
    "ADD": (0, 1),
    "SUB": (0, 1),
    "MUL": (0, 1),
    "DIV": (0, 1),
    "SOFTMAX": (0,),
    "DYNAMIC_UPDATE_SLICE": (0,),
    "BITCAST": (0,),
    "EXPAND_DIMS": (0,),
    "RESHAPE": (0,),
    "SQUEEZE": (0,),
}
# Of these, the ones that do not change any byte, so that they may share memory even with an input that is read later.
_UNMODIFIED = {"BITCAST", "EXPAND_DIMS", "RESHAPE", "SQUEEZE"}


@dataclass(frozen=True)
class Allocation:
    """A block of the arena, in use from operator ``first`` through ``last``; ``tensor`` is -1 for scratch memory."""

    tensor: int
    nbytes: int
    offset: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryPlan:
    """What the interpreter allocates for one subgraph.

    Attributes:
        arena_bytes: size of the activation arena.
        persistent_bytes: size of the second arena, for variables and for weights that are unpacked once (float16 or
            sparse).
        peak_bytes: the most that is in use at once, a lower bound of the arena.
        peak_operator: index of the operator at which that is; None for an empty arena.
        dynamic: whether some tensors get their size, and memory from the heap, only at run time.
        allocations: the blocks of the activation arena, by offset.
    """

    arena_bytes: int
    persistent_bytes: int
    peak_bytes: int
    peak_operator: int | None
    dynamic: bool
    allocations: tuple[Allocation, ...]

    def alive_bytes(self, operators: int) -> tuple[int, ...]:
        """Bytes of the arena in use while each operator runs; ``operators`` is the number of operators."""
        return tuple(_alive(list(self.allocations), operators))


def arena_bytes(model: TFLiteModel) -> int:
    """Bytes of the activation arena of the model's main subgraph; see :class:`MemoryPlan`."""
    return plan(model.subgraphs[0]).arena_bytes


def plan(graph: Subgraph) -> MemoryPlan:
    """Plan the memory of a subgraph as the interpreter does."""
    last_node = max(len(graph.operators) - 1, 0)
    dynamic = {index for operator in graph.operators for index in dynamic_outputs(graph, operator)}
    kinds = {tensor.index: _kind(graph, tensor, dynamic) for tensor in graph.tensors}
    lifetimes = _lifetimes(graph, _shared(graph, kinds))
    activations = [
        (graph.tensors[i].nbytes, first, last_node if last is None else last, i, last is None)
        for i, (first, last) in lifetimes.items()
        if kinds[i] == "arena"
    ]
    persistent = [graph.tensors[i].nbytes for i, kind in kinds.items() if kind == "persistent"]
    for operator in graph.operators:
        buffers = scratch(graph, operator)
        activations += [(nbytes, operator.index, operator.index, -1, False) for nbytes in buffers.arena]
        persistent += buffers.persistent
    allocations = _allocate(activations)
    peak_bytes, peak_operator = _peak(allocations, len(graph.operators))
    return MemoryPlan(
        arena_bytes=max((a.offset + a.nbytes for a in allocations), default=0),
        persistent_bytes=_aligned_sum(persistent),
        peak_bytes=peak_bytes,
        peak_operator=peak_operator,
        dynamic=bool(dynamic),
        allocations=tuple(allocations),
    )


def _kind(graph: Subgraph, tensor: Tensor, dynamic: set[int]) -> str:
    """Where the memory of a tensor is: 'file', 'heap', 'persistent' (second arena) or 'arena'."""
    if tensor.constant:
        return "file"
    if tensor.index in dynamic or (tensor.nbytes == 0 and 0 not in tensor.shape):
        return "heap"
    if tensor.variable or _unpacked_once(graph, graph.producers.get(tensor.index)):
        return "persistent"
    return "arena"


def _unpacked_once(graph: Subgraph, producer: Operator | None) -> bool:
    if producer is None or producer.name not in ("DEQUANTIZE", "DENSIFY"):
        return False
    source = graph.input(producer, 0)
    return source is not None and source.constant


def _shared(graph: Subgraph, kinds: dict[int, str]) -> dict[int, int]:
    """Tensor → the tensor whose memory it takes over (ArenaPlanner::IdentifyInPlaceTensors)."""
    references = dict.fromkeys(range(len(graph.tensors)), 0)
    for index in _existing(graph.inputs, graph.outputs, *(operator.inputs for operator in graph.operators)):
        references[index] += 1
    for tensor in graph.tensors:
        references[tensor.index] += tensor.variable
    owner: dict[int, int] = {}
    fixed = set(graph.inputs)
    for operator in graph.operators:
        output = graph.output(operator)
        if output is None or output.index in graph.outputs or kinds[output.index] != "arena":
            continue
        changes = operator.name not in _UNMODIFIED
        for position in IN_PLACE.get(operator.name, ()):
            source = graph.input(operator, position)
            if source is None or source.index in fixed or kinds[source.index] != "arena":
                continue
            if source.nbytes != output.nbytes:
                continue
            if changes and (source.nbytes <= _SMALL_BYTES or references[source.index] > 1):
                continue
            root = owner.get(source.index, source.index)
            # An operator may write over the root only if no other operator reads it. As in ArenaPlanner, only the first
            # input that could be shared is considered.
            if not changes or references[root] <= 1:
                owner[output.index] = root
            break
    return owner


def _lifetimes(graph: Subgraph, owner: dict[int, int]) -> dict[int, tuple[int, int | None]]:
    """First and last operator of each tensor that has memory of its own; the last is None if it is never freed."""
    first: dict[int, int] = dict.fromkeys(_existing(graph.inputs), 0)
    for operator in graph.operators:
        for index in _existing(operator.outputs):
            first.setdefault(index, operator.index)
    last: dict[int, int] = {}
    for operator in graph.operators:
        for index in _existing(operator.inputs):
            last[owner.get(index, index)] = operator.index
    kept = set(_existing(graph.inputs, graph.outputs))
    return {
        index: (start, None if index in kept else last.get(index))
        for index, start in first.items()
        if index not in owner
    }


def _allocate(blocks: list[tuple[int, int, int, int, bool]]) -> list[Allocation]:
    """Assign offsets, greedy by size; blocks that are in use during the whole run come first, by index of the tensor.

    Args:
        blocks: bytes, first operator, last operator, tensor, whether it is never freed.
    """
    whole_run = sorted((b for b in blocks if b[4] and b[1] == 0), key=lambda b: b[3])
    # In TensorFlow Lite, blocks of equal size and operator come in the order of a hash set: in practice the last one
    # added comes first, so scratch memory before outputs.
    latest_first = [block for block in reversed(blocks) if not (block[4] and block[1] == 0)]
    rest = sorted(latest_first, key=lambda block: (-block[0], block[1]))
    placed: list[Allocation] = []
    # Blocks in use at each operator, and blocks whose use begins there. The blocks that overlap another in time are
    # those in use at its first operator and those that begin later, so not all blocks have to be compared.
    alive: defaultdict[int, list[Allocation]] = defaultdict(list)
    beginning: defaultdict[int, list[Allocation]] = defaultdict(list)
    for nbytes, first, last, tensor, _ in whole_run + rest:
        if not nbytes:
            continue
        together = [*alive[first], *(other for index in range(first + 1, last + 1) for other in beginning[index])]
        block = Allocation(tensor, nbytes, _offset(together, nbytes), first, last)
        placed.append(block)
        beginning[first].append(block)
        for index in range(first, last + 1):
            alive[index].append(block)
    return sorted(placed, key=lambda block: block.offset)


def _offset(together: Iterable[Allocation], nbytes: int) -> int:
    """The start of the smallest gap that holds a block, else the end of all others (SimpleMemoryArena::Allocate).

    Args:
        together: the blocks in use at the same time.
        nbytes: size of the new block.
    """
    best: int | None = None
    best_fit: int | None = None
    end = 0
    for other in sorted(together, key=lambda block: block.offset):
        start = _align(end)
        if start + nbytes <= other.offset and (best_fit is None or other.offset - start < best_fit):
            best, best_fit = start, other.offset - end
        end = max(end, other.offset + other.nbytes)
    return _align(end) if best is None else best


def _alive(allocations: list[Allocation], operators: int) -> list[int]:
    change = [0] * (operators + 2)
    for block in allocations:
        change[block.first] += block.nbytes
        change[block.last + 1] -= block.nbytes
    return list(itertools.accumulate(change[:operators]))


def _peak(allocations: list[Allocation], operators: int) -> tuple[int, int | None]:
    alive = _alive(allocations, operators)
    peak_bytes = max(alive, default=0)
    return peak_bytes, alive.index(peak_bytes) if peak_bytes else None


def _existing(*index_lists: Iterable[int]) -> list[int]:
    """All indices in the lists, without the -1 of optional inputs that are left out."""
    return [index for indices in index_lists for index in indices if index >= 0]


def _align(offset: int) -> int:
    return -(-offset // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _aligned_sum(sizes: list[int]) -> int:
    end = 0
    for nbytes in sizes:
        end = _align(end) + nbytes if nbytes else end
    return end
