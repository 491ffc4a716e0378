"""Where the time of a file goes on a board, simulated: cycles, cache misses and bytes, in total and by operator.

The emulated board says which blocks of instructions run, and what they ask of the caches; LLVM's model of the core says
how many cycles a block takes when data is at hand. A time is the sum of four parts:

- *compute*: cycles at the board's clock, on as many threads as share the operator's work;
- *cache*: lines that the first cache asks the next one for, at a constant for each; threads wait for them together;
- *memory*: lines that move between the last cache and memory, at the board's speed of copying;
- *operators*: a constant for each operator that does something, which stands for waking threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.devices import cycles
from edgeprune.devices.cores import Core, caches_of, core_of
from edgeprune.devices.emulator import Emulator
from edgeprune.devices.protocol import Device
from edgeprune.devices.trace import LINE_BYTES, Trace, trace
from edgeprune.files import JsonObject
from edgeprune.hardware.delegates import book_of
from edgeprune.hardware.latency import features
from edgeprune.hardware.placement import place
from edgeprune.target import Target, with_runtime
from edgeprune.tflite.flatbuffer import parse, read_bytes
from edgeprune.tflite.graph import Subgraph
from edgeprune.tflite.prefixes import with_all_results

# Lines of 64 bytes from and to memory in the time in which one is copied, that is, read and written twice; cycles for a
# line from the second cache to the first; cycles to start an operator. All are fitted to files that were published for
# a Raspberry Pi 4 (9.8 ns, 2.1 ns, 26 us): benchmarks/results/simulated_latency.md, which has the errors.
COPYING_SHARE = 1.31
LINE_CYCLES = 3.1
START_CYCLES = 39_000.0
# Kernels → median error on published files of a Raspberry Pi 4, each of an architecture that was left out of the fit.
MEDIAN_ERROR = {"builtin": 0.07, "xnnpack": 0.12}
PARTS = ("compute", "cache", "memory", "operators")
# What bounds a file, and what would make it faster.
_BOUNDS = {
    "compute": "compute: fewer multiply-accumulates, or int8, would make it faster",
    "cache": "the first cache: smaller weights, or smaller tensors between operators, would make it faster",
    "memory": "memory: a smaller file, or smaller tensors between operators, would make it faster",
    "operators": "the operators' overhead: fewer operators would make it faster, smaller ones would not",
}


@dataclass(frozen=True, eq=False)
class Work:
    """What operators, or parts of a file, ask of a board: arrays of one shape.

    Attributes:
        cycles: with all data in the first cache.
        lines: from the second cache to the first.
        transfers: lines between the last cache and memory.
        starts: how many operators are started.
        shared: whether threads share the cycles.
    """

    cycles: np.ndarray
    lines: np.ndarray
    transfers: np.ndarray
    starts: np.ndarray
    shared: np.ndarray

    def milliseconds(self, target: Target, threads: int) -> np.ndarray:
        """[4, ...] of compute, cache, memory and operators (``PARTS``) on a board that can be simulated."""
        cpu = target.cpu
        assert cpu is not None
        assert cpu.memory_bandwidth_bytes_per_s is not None
        lines_per_s = 2 * cpu.memory_bandwidth_bytes_per_s * COPYING_SHARE / LINE_BYTES
        seconds = [
            self.cycles / np.where(self.shared, threads, 1) / cpu.clock_hz,
            self.lines * LINE_CYCLES / cpu.clock_hz,
            self.transfers / lines_per_s,
            self.starts * START_CYCLES / cpu.clock_hz,
        ]
        return np.array(seconds) * 1e3


def explain(device: Device, file: Path, delegate: str, target: Target) -> JsonObject:
    """Simulate one inference of a file on a board.

    The totals are those of the file as it is. What each operator does is counted in a second run, in which the file
    returns the results of all operators: they keep their memory then, so that its traffic is somewhat higher.

    Args:
        device: the emulated board, connected.
        file: a .tflite.
        delegate: 'default' or 'builtin'.
        target: the board: its core, clock, caches, memory and threads.

    Returns:
        target, core, llvm {version, cpu}, compared, runtime, kernels, instructions, cycles, misses [of each level],
        memory_bytes; ``simulated``: for one thread and for the target's {threads, ms, compute_ms, cache_ms,
        memory_ms, operators_ms}; median_error (None where none was measured), bound_by, ``bound`` (a sentence);
        ``operators``: in order {type, name, instructions, cycles, misses, memory_bytes, shared, simulated_ms [as
        ``simulated``]}.

    Raises:
        UsageError: the board cannot be simulated.
        ModelError: the runtime refuses the file.
        MissingError: LLVM or the emulated board is missing.
        DeviceError: it did not end in time, or crashed.
    """
    assert isinstance(device, Emulator)
    core, caches = core_of(target), caches_of(target)
    cycles.require_llvm()
    content = read_bytes(file)
    graph = parse(content, str(file)).subgraphs[0]
    whole = trace(device, content, delegate, core, caches)
    apart = trace_by_operator(device, content, delegate, core, caches)
    whole_cycles, apart_cycles = cycles_of([whole, apart], core.llvm)
    starts, shared = _starts(graph, apart), _shared(graph, apart, target)
    parts = Work(apart_cycles[:-1], apart.misses[0][:-1], apart.transfers[:-1], starts, shared)
    total = _total(whole_cycles.sum(), whole, parts)
    threads = list(dict.fromkeys((1, target.threads)))
    simulated = [_named(count, total.milliseconds(target, count).sum(axis=1)) for count in threads]
    parts_ms = np.array([parts.milliseconds(target, count).sum(axis=0) for count in threads])
    bound_by = max(PARTS, key=lambda part: simulated[-1][f"{part}_ms"])
    return {
        "target": target.name,
        "core": core.name,
        "llvm": {"version": cycles.version(), "cpu": core.llvm},
        "compared": core.compared,
        "runtime": whole.runtime,
        "kernels": whole.kernels,
        "instructions": int(whole.instructions.sum()),
        "cycles": round(whole_cycles.sum()),
        "misses": whole.misses.sum(axis=1).tolist(),
        "memory_bytes": int(whole.transfers.sum()) * LINE_BYTES,
        "simulated": simulated,
        "median_error": MEDIAN_ERROR[whole.kernels] if core.compared else None,
        "bound_by": bound_by,
        "bound": _sentence(simulated[-1], bound_by),
        "operators": [
            {
                "type": operator.name,
                "name": graph.tensors[operator.outputs[0]].name if operator.outputs else "",
                "instructions": int(apart.instructions[place]),
                "cycles": round(apart_cycles[place]),
                "misses": apart.misses[:, place].tolist(),
                "memory_bytes": int(apart.transfers[place]) * LINE_BYTES,
                "shared": bool(parts.shared[place]),
                "simulated_ms": parts_ms[:, place].tolist(),
            }
            for place, operator in enumerate(graph.operators)
        ],
    }


def trace_by_operator(
    device: Emulator, content: bytes, delegate: str, core: Core, caches: Sequence[tuple[int, int]]
) -> Trace:
    """Trace the operators of a file apart, which returns the results of all for it; see :func:`trace`."""
    shown = with_all_results(content)
    graph = parse(shown).subgraphs[0]
    returned = set(graph.outputs)
    results = [[index for index in operator.outputs if index in returned] for operator in graph.operators]
    return trace(device, shown, delegate, core, caches, results)


def cycles_of(traces: Sequence[Trace], cpu: str) -> list[np.ndarray]:
    """[operators + 1] cycles of each trace.

    Args:
        traces: of any files.
        cpu: LLVM's name of the core.
    """
    blocks = list(dict.fromkeys(block for one in traces for block in one.blocks))
    known = dict(zip(blocks, cycles.cycles(blocks, cpu), strict=True))
    return [np.array([known[block] for block in one.blocks]) @ one.times for one in traces]


def _total(total_cycles: float, whole: Trace, parts: Work) -> Work:
    """The work of a whole file, [2]: what threads share and what they do not, in the proportion of its operators."""
    share = parts.cycles[parts.shared].sum() / max(parts.cycles.sum(), 1.0)
    return Work(
        total_cycles * np.array([share, 1 - share]),
        np.array([whole.misses[0].sum(), 0]),
        np.array([whole.transfers.sum(), 0]),
        np.array([parts.starts.sum(), 0]),
        np.array([True, False]),
    )


def _starts(graph: Subgraph, traced: Trace) -> np.ndarray:
    """[operators] whether it is started: those that only rename a tensor, or ran when the file was loaded, are not."""
    works = traced.instructions[:-1] > 0
    return works & np.array([operator.name not in features.FREE for operator in graph.operators], bool)


def _shared(graph: Subgraph, traced: Trace, target: Target) -> np.ndarray:
    """[operators] whether threads share the work of one: XNNPACK shares all, built-in kernels that of products."""
    built_in = features.works(graph, "builtin", features.caches_of(target))
    shared = np.array([bool(features.PARALLEL["builtin"] & set(work.amounts)) for work in built_in], bool)
    if traced.kernels == "xnnpack":
        placed, _ = place(book_of("xnnpack", with_runtime(target, traced.runtime).runtime), graph)
        shared |= np.array([one.on_accelerator for one in placed], bool)
    return shared


def _named(threads: int, parts_ms: np.ndarray) -> JsonObject:
    named = {f"{part}_ms": float(value) for part, value in zip(PARTS, parts_ms, strict=True)}
    return {"threads": threads, "ms": float(parts_ms.sum()), **named}


def _sentence(simulated: JsonObject, bound_by: str) -> str:
    share = simulated[f"{bound_by}_ms"] / simulated["ms"]
    return f"On {words_of_threads(simulated['threads'])}, {share:.0%} of the time is bound by {_BOUNDS[bound_by]}."


def words_of_threads(count: int) -> str:
    """'1 thread', '4 threads'."""
    return "1 thread" if count == 1 else f"{count} threads"


def compare(a: JsonObject, b: JsonObject) -> JsonObject:
    """What explains the ratio of the simulated times of two files.

    Args:
        a, b: as :func:`explain` returns them, for one board.

    Returns:
        ``ratios``: for one thread and for the board's {threads, ratio (b / a)}; on the board's threads, how many
        milliseconds b takes more than a: ``parts_ms`` by part, ``types_ms`` by type of operator, the largest difference
        first; ``because`` (a sentence).
    """
    both = list(zip(a["simulated"], b["simulated"], strict=True))
    ratios = [{"threads": one["threads"], "ratio": other["ms"] / one["ms"]} for one, other in both]
    parts = {part: both[-1][1][f"{part}_ms"] - both[-1][0][f"{part}_ms"] for part in PARTS}
    types: dict[str, float] = {}
    for sign, file in ((-1, a), (1, b)):
        for operator in file["operators"]:
            types[operator["type"]] = types.get(operator["type"], 0.0) + sign * operator["simulated_ms"][-1]
    types = dict(sorted(types.items(), key=lambda item: -abs(item[1])))
    because = f"The difference is {_differences(parts)}; by type of operator, mostly {_differences(types, 3)}."
    return {"ratios": ratios, "parts_ms": parts, "types_ms": types, "because": because}


def _differences(milliseconds: dict[str, float], shown: int | None = None) -> str:
    return ", ".join(f"{name} {value:+.3f} ms" for name, value in list(milliseconds.items())[:shown])
