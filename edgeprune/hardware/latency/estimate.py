"""Estimate the latency of a .tflite on a target, without the device and without TensorFlow.

The time of an operator is the sum of its amounts of work (:mod:`edgeprune.hardware.latency.features`), each times the
seconds per unit in the target's ``[latency]``. Work that threads share is divided among them (Amdahl 1967,
doi:10.1145/1465482.1465560).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgeprune.errors import UsageError
from edgeprune.hardware.delegates import book_of
from edgeprune.hardware.latency import edgetpu_features
from edgeprune.hardware.latency.features import (
    FREE,
    LATER_START,
    MANY_SMALL,
    PARALLEL,
    UNMEASURED,
    CpuKernelSet,
    Work,
    caches_of,
    computed_in_pairs,
    is_short,
    lstm_amounts,
    small_operators,
    weights_miss,
    words_of_pairs,
    work,
    works,
)
from edgeprune.hardware.placement import place
from edgeprune.hardware.xnnpack.sparse_file import sparse_operators
from edgeprune.target import BoardRuntime, CpuLatency, Target
from edgeprune.tflite.graph import Operator, Subgraph

KernelSet = Literal["builtin", "xnnpack", "edgetpu"]
# How far the time of operators of a kind that was never measured may be off, beyond the range of the others.
DOUBT_FACTOR = 3.0
_NAMES: tuple[KernelSet, ...] = ("builtin", "xnnpack", "edgetpu")


@dataclass(frozen=True)
class Estimate:
    """A predicted latency on a target; about 80 % of true latencies lie in [low_ms, high_ms].

    Attributes:
        model_version: version of the target's coefficients, and the kernels that they are for; for a compiler's own
            estimate, the compiler and its version.
        kernels: 'builtin', 'xnnpack' or 'edgetpu'; for a compiler's own estimate, the name of the compiler. A compiler
            gives no range, so ``low_ms`` and ``high_ms`` equal ``median_ms`` then.
        origin: 'fitted' to measurements of this board, 'derived' from another board and hardware facts, or 'compiler'.
        range_note: why the range is wider than the model's errors would make it; None: it is not.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    threads: int
    model_version: str
    kernels: str
    origin: str
    range_note: str | None = None


@dataclass(frozen=True)
class Prediction:
    """An estimate, and the milliseconds of each operator, in order. Their sum leaves out work that belongs to none."""

    estimate: Estimate
    operator_ms: tuple[float, ...]


def available(target: Target) -> tuple[KernelSet, ...]:
    """The sets of kernels that the target has coefficients for, its default first."""
    model = target.latency
    if model is None:
        return ()
    known = [name for name in _NAMES if getattr(model, name) is not None]
    return tuple(sorted(known, key=lambda name: name != model.kernels))


def predict(
    graph: Subgraph,
    target: Target,
    kernels: KernelSet | None = None,
    threads: int | None = None,
    on_chip: Collection[int] | None = None,
) -> Prediction | None:
    """Predict the latency of one inference.

    Args:
        graph: the main subgraph.
        target: the board.
        kernels: None for those that the target's runtime chooses: of its ``[latency]``, or the built-in ones where it
            hands nothing of the graph to XNNPACK. 'xnnpack' if all is handed to XNNPACK.
        threads: None for the target's default; limited to the number of its cores.
        on_chip: for 'edgetpu', indices of the operators that run on the chip; None for every operator without floats.

    Returns:
        None where the target has no coefficients at all.

    Raises:
        UsageError: the target has no coefficients for these kernels, or threads is below 1.
    """
    if target.latency is None:
        return None
    chosen = kernels or default_kernels(graph, target)
    table = getattr(target.latency, chosen)
    if table is None:
        raise UsageError(
            f"The target {target.name} has no latency coefficients for {chosen} kernels.",
            expected=f"one of: {', '.join(available(target))}.",
        )
    used = _threads(target, threads)
    if chosen == "edgetpu":
        seconds = _on_edgetpu(graph, target, used, edgetpu_features.all_integer(graph) if on_chip is None else on_chip)
    else:
        seconds = _on_cpu(graph, target, chosen, used, None if kernels else target.runtime)
    total = 1e3 * sum(seconds.values())
    unsure = 1e3 * sum(seconds.get(index, 0.0) for doubt in _doubts(graph) for index in doubt.operators)
    low, high = (total - unsure + unsure / DOUBT_FACTOR, total - unsure + unsure * DOUBT_FACTOR)
    estimate = Estimate(
        median_ms=total,
        low_ms=low / table.range_factor,
        high_ms=high * table.range_factor,
        threads=used,
        model_version=f"{target.latency.version}-{chosen}",
        kernels=chosen,
        origin=table.origin,
        range_note=table.range_note,
    )
    return Prediction(estimate, tuple(1e3 * seconds.get(operator.index, 0.0) for operator in graph.operators))


def clock(
    graph: Subgraph,
    target: Target,
    kernels: KernelSet | None = None,
    threads: int | None = None,
) -> Callable[[Subgraph, Operator], float]:
    """A function for the milliseconds of single operators, as :func:`predict` counts them in a graph.

    Args:
        graph, target, kernels, threads: as for :func:`predict`; the target has coefficients.

    Returns:
        From a graph with one of the operators, under its own index and perhaps with other sizes, and that operator, to
        its time. What depends on the whole graph, such as how full caches are, is as in ``graph``.
    """
    assert target.latency is not None
    chosen = kernels or default_kernels(graph, target)
    used = _threads(target, threads)
    if chosen == "edgetpu":
        return _edgetpu_clock(graph, target, used)
    return _cpu_clock(graph, target, chosen, used, None if kernels else target.runtime)


def _cpu_clock(
    graph: Subgraph, target: Target, chosen: CpuKernelSet, threads: int, runtime: BoardRuntime | None = None
) -> Callable[[Subgraph, Operator], float]:
    assert target.latency is not None
    caches = caches_of(target)
    miss = weights_miss(graph, caches)
    later = set(small_operators(graph)[MANY_SMALL:])
    left: set[int] = set()
    if chosen == "xnnpack" and target.latency.builtin:
        left = _left(graph, runtime)

    def milliseconds(small: Subgraph, operator: Operator) -> float:
        kernels: CpuKernelSet = "builtin" if operator.index in left else chosen
        counted = work(small, operator, kernels, caches, miss)
        if operator.index in later:
            counted = replace(counted, amounts={**counted.amounts, "operators": LATER_START})
        assert target.latency is not None
        return 1e3 * _work_seconds(counted, getattr(target.latency, kernels), PARALLEL[kernels], threads)

    return milliseconds


def _edgetpu_clock(graph: Subgraph, target: Target, threads: int) -> Callable[[Subgraph, Operator], float]:
    assert target.latency is not None
    assert target.latency.edgetpu is not None
    seconds_per = target.latency.edgetpu.seconds_per
    on_chip = edgetpu_features.all_integer(graph)
    cache_bytes = target.accelerator.parameter_cache_bytes if target.accelerator else None
    streamed = edgetpu_features.streamed_shares(graph, on_chip, cache_bytes)
    on_host = _cpu_clock(graph, target, "builtin", threads) if target.latency.builtin else None

    def milliseconds(small: Subgraph, operator: Operator) -> float:
        if operator.index not in on_chip:
            return on_host(small, operator) if on_host else 0.0
        amounts = edgetpu_features.operator_amounts(small, operator, streamed.get(operator.index, 0.0))
        return 1e3 * sum(amount * getattr(seconds_per, term) for term, amount in amounts.items())

    return milliseconds


def of_compiler(performance: Mapping[str, Any], source: str, target: Target) -> Estimate | None:
    """The estimate of the target's compiler; None when the compiler gives no time.

    Args:
        performance: its figures, see :class:`edgeprune.hardware.compilers.Compiled`.
        source: its name and version.
        target: the board.
    """
    milliseconds = performance.get("inference_ms")
    if milliseconds is None:
        return None
    name = source.split()[0]
    return Estimate(milliseconds, milliseconds, milliseconds, target.threads, source, name, "compiler")


def warnings(graph: Subgraph, target: Target, estimate: Estimate) -> list[str]:
    """Warnings about an estimate: operators that were never measured, coefficients that were not fitted here; and what
    is slow for a reason that the file does not show."""
    paired = computed_in_pairs(graph) if estimate.kernels == "xnnpack" and caches_of(target).pairing else {}
    said = [
        *(words_of_pairs(channels, target.runtime.package) for channels in sorted(paired)),
    ]
    slower = {} if estimate.kernels == "edgetpu" else slower_in_int8(graph, target, estimate.threads)
    said += [
        f"{words_of_slower(f'Operator {index}, {graph.operators[index].name}', ratio)} {KEEP_FLOAT}"
        for index, ratio in slower.items()
    ]
    said += [
        f"{doubt.why} Its share of the latency estimate may be off by a factor of {DOUBT_FACTOR:g}; the range says so."
        for doubt in _doubts(graph)
    ]
    if estimate.origin == "fitted":
        return said
    return [
        *said,
        f"The latency estimate for {target.name} with {estimate.kernels} kernels is not based on measurements of this "
        "board: it is derived from another board and hardware facts, and its range is wide. `edgeprune targets fit` "
        "improves it with measurements.",
    ]


def slower_in_int8(graph: Subgraph, target: Target, threads: int | None = None) -> dict[int, float]:
    """Fused LSTMs of integers that take longer than they would in float32, as both are priced.

    Args:
        graph: the main subgraph.
        target: the board; one that has no coefficients for its processor prices nothing.
        threads: None for the target's.

    Returns:
        Index of the operator → how many times as long it takes.
    """
    table = target.latency.builtin if target.latency else None
    if table is None:
        return {}
    caches, threads = caches_of(target), _threads(target, threads)
    miss = weights_miss(graph, caches)
    slower = {}
    for operator in graph.operators:
        counted = work(graph, operator, "builtin", caches, miss)
        if counted.kind != "lstm" or counted.dtype != "int8":
            continue
        amounts = {**counted.amounts, **lstm_amounts(graph, operator, "float32")}
        amounts["memory_bytes"] *= 4
        as_float = replace(counted, dtype="float32", amounts=amounts)
        took, other = (_work_seconds(each, table, PARALLEL["builtin"], threads) for each in (counted, as_float))
        if took > other:
            slower[operator.index] = took / other
    return slower


KEEP_FLOAT = "Keep small recurrent layers in float."


def words_of_slower(operator: str, ratio: float) -> str:
    """What is wrong with an operator that :func:`slower_in_int8` finds."""
    return (
        f"{operator}: int8 is estimated to take {ratio:.2g} times as long as float32. Its gates cost more than its "
        "products save."
    )


@dataclass(frozen=True)
class _Doubt:
    """Operators whose time rests on no measurement of their kind; each is in one doubt at most."""

    why: str
    operators: tuple[int, ...]


def _doubts(graph: Subgraph) -> list[_Doubt]:
    doubts = []
    unmeasured = [op for op in graph.operators if op.name in UNMEASURED]
    if unmeasured:
        names = ", ".join(sorted({op.name for op in unmeasured}))
        why = f"No measured file has {names}: it is priced after counts of instructions."
        doubts.append(_Doubt(why, tuple(op.index for op in unmeasured)))
    short = [op for op in graph.operators if is_short(graph, op) and op.name not in UNMEASURED | FREE]
    if short:
        why = "No measured file has 16-bit activations: their operators are priced after counts of instructions."
        doubts.append(_Doubt(why, tuple(op.index for op in short)))
    small = set(small_operators(graph)) - {op.index for op in (*unmeasured, *short)}
    if len(small) > MANY_SMALL:
        why = f"No measured file starts as many small operators as this one ({len(small):,}), as unrolled layers do."
        doubts.append(_Doubt(why, tuple(small)))
    return doubts


def _threads(target: Target, threads: int | None) -> int:
    wanted = target.threads if threads is None else threads
    if wanted < 1:
        raise UsageError(f"{wanted} is not a number of threads.", expected="1 or more.")
    return min(wanted, target.cpu.cores) if target.cpu else wanted


def default_kernels(graph: Subgraph, target: Target) -> KernelSet:
    """The kernels that a file runs with, mostly, if nothing else is asked for; the target has ``[latency]``."""
    assert target.latency is not None
    chosen: KernelSet = target.latency.kernels
    if chosen != "xnnpack" or target.latency.builtin is None:
        return chosen
    working = {op.index for op in graph.operators if op.name not in FREE}
    return "builtin" if working and working <= _left(graph, target.runtime) else "xnnpack"


def _left(graph: Subgraph, runtime: BoardRuntime | None) -> set[int]:
    """Operators that are not handed to XNNPACK, which run with the built-in kernels."""
    return {op.index for op in place(book_of("xnnpack", runtime), graph)[0] if not op.on_accelerator}


def _on_cpu(
    graph: Subgraph, target: Target, kernels: CpuKernelSet, threads: int, runtime: BoardRuntime | None = None
) -> dict[int, float]:
    """Operator index → seconds. ``runtime`` None: one that hands XNNPACK all that it takes."""
    assert target.latency is not None
    table: CpuLatency = getattr(target.latency, kernels)
    sparse = sparse_operators(graph, target.runtime) if kernels == "xnnpack" else {}
    seconds = {
        each.index: _work_seconds(each, table, PARALLEL[kernels], threads)
        for each in works(graph, kernels, caches_of(target), sparse)
    }
    if kernels == "xnnpack" and target.latency.builtin:
        left = _left(graph, runtime)
        built_in = _on_cpu(graph, target, "builtin", threads) if left else {}
        seconds.update({index: built_in[index] for index in left if seconds[index]})
    return seconds


def _work_seconds(counted: Work, table: CpuLatency, parallel: frozenset[str], threads: int) -> float:
    seconds_per = getattr(table.seconds_per, counted.dtype)
    share = table.serial_fraction + (1 - table.serial_fraction) / threads
    return sum(
        amount * getattr(seconds_per, term) * (share if term in parallel else 1.0)
        for term, amount in counted.amounts.items()
    )


def _on_edgetpu(graph: Subgraph, target: Target, threads: int, on_chip: Collection[int]) -> dict[int, float]:
    """Operator index → seconds; -1 → those of the inference as a whole."""
    assert target.latency is not None
    assert target.latency.edgetpu is not None
    seconds_per = target.latency.edgetpu.seconds_per
    cache_bytes = target.accelerator.parameter_cache_bytes if target.accelerator else None
    on_host = _on_cpu(graph, target, "builtin", threads) if target.latency.builtin else {}
    there = {
        index: sum(amount * getattr(seconds_per, term) for term, amount in amounts.items())
        for index, amounts in edgetpu_features.amounts(graph, on_chip, cache_bytes).items()
    }
    stays: Mapping[int, float] = {index: s for index, s in on_host.items() if index not in on_chip}
    return {**stays, **there}
