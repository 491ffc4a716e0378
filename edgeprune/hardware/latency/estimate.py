"""How long a .tflite will take on a target, before there is a device.

The time of an operator is the sum over countable amounts of work (:mod:`edgeprune.hardware.latency.features`) of
amount times seconds per unit, which the target's ``[latency]`` holds; what threads can share is divided among them
(Amdahl 1967, doi:10.1145/1465482.1465560). No TensorFlow, no device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeprune.errors import UsageError
from edgeprune.hardware.delegates import XNNPACK
from edgeprune.hardware.latency import edgetpu_features as features_edgetpu
from edgeprune.hardware.latency.features import PARALLEL, CpuKernelSet, Work, caches_of, works
from edgeprune.hardware.placement import place
from edgeprune.hardware.xnnpack.sparse_file import sparse_operators
from edgeprune.target import CpuLatency, Target
from edgeprune.tflite.graph import Subgraph

KernelSet = Literal["builtin", "xnnpack", "edgetpu"]
_NAMES: tuple[KernelSet, ...] = ("builtin", "xnnpack", "edgetpu")


@dataclass(frozen=True)
class Estimate:
    """A predicted latency on a target; about 80 % of true latencies lie in [low_ms, high_ms].

    Attributes:
        model_version: of the target's coefficients, with the kernels they are for.
        kernels: 'builtin', 'xnnpack' or 'edgetpu'; the name of a compiler whose own estimate this is. A compiler gives
            no range: low_ms and high_ms are its figure too.
        origin: 'fitted' to measurements of this board, 'derived' from another board and hardware facts, or 'compiler'.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    threads: int
    model_version: str
    kernels: str
    origin: str


@dataclass(frozen=True)
class Prediction:
    """An estimate, and the milliseconds of each operator in their order; their sum may lack what belongs to none."""

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
    """Predict one inference of a graph.

    Args:
        kernels: None for what the target's ``[latency]`` names.
        threads: None for the target's own; more than it has cores count as that many.
        on_chip: for 'edgetpu': indices of the operators that run there; None: every operator on integers.

    Returns:
        None where the target has no coefficients at all.

    Raises:
        UsageError: the target has no coefficients for these kernels, or threads is below 1.
    """
    if target.latency is None:
        return None
    chosen = kernels or target.latency.kernels
    table = getattr(target.latency, chosen)
    if table is None:
        raise UsageError(
            f"Nothing is known about {chosen} kernels on {target.name}.",
            expected=f"one of: {', '.join(available(target))}.",
        )
    used = _threads(target, threads)
    if chosen == "edgetpu":
        seconds = _on_edgetpu(graph, target, used, features_edgetpu.all_integer(graph) if on_chip is None else on_chip)
    else:
        seconds = _on_cpu(graph, target, chosen, used)
    total = 1e3 * sum(seconds.values())
    estimate = Estimate(
        median_ms=total,
        low_ms=total / table.range_factor,
        high_ms=total * table.range_factor,
        threads=used,
        model_version=f"{target.latency.version}-{chosen}",
        kernels=chosen,
        origin=table.origin,
    )
    return Prediction(estimate, tuple(1e3 * seconds.get(operator.index, 0.0) for operator in graph.operators))


def of_compiler(performance: Mapping[str, Any], source: str, target: Target) -> Estimate | None:
    """What the target's compiler estimates itself; None where it names no time.

    Args:
        performance: its figures, see :class:`edgeprune.hardware.compilers.Compiled`.
        source: its name and version.
    """
    milliseconds = performance.get("inference_ms")
    if milliseconds is None:
        return None
    name = source.split()[0]
    return Estimate(milliseconds, milliseconds, milliseconds, target.threads, source, name, "compiler")


def warnings(target: Target, estimate: Estimate) -> list[str]:
    """What a reader of an estimate must know: that nobody measured this board."""
    if estimate.origin == "fitted":
        return []
    return [
        f"No measurement of {target.name} with {estimate.kernels} kernels went into its latency estimate: it is "
        "derived from another board and hardware facts, and its range is wide. `edgeprune targets fit` makes it better."
    ]


def _threads(target: Target, threads: int | None) -> int:
    wanted = target.threads if threads is None else threads
    if wanted < 1:
        raise UsageError(f"{wanted} threads cannot run anything.", expected="a number of threads from 1.")
    return min(wanted, target.cpu.cores) if target.cpu else wanted


def _on_cpu(graph: Subgraph, target: Target, kernels: CpuKernelSet, threads: int) -> dict[int, float]:
    """Seconds by index of the operator; what XNNPACK leaves runs with the built-in kernels."""
    assert target.latency is not None
    table: CpuLatency = getattr(target.latency, kernels)
    sparse = sparse_operators(graph, target.runtime) if kernels == "xnnpack" else {}
    seconds = {
        work.index: _work_seconds(work, table, PARALLEL[kernels], threads)
        for work in works(graph, kernels, caches_of(target), sparse)
    }
    if kernels == "xnnpack" and target.latency.builtin:
        left = [op.index for op in place(XNNPACK, graph)[0] if not op.on_accelerator]
        built_in = _on_cpu(graph, target, "builtin", threads) if left else {}
        seconds.update({index: built_in[index] for index in left if seconds[index]})
    return seconds


def _work_seconds(work: Work, table: CpuLatency, parallel: frozenset[str], threads: int) -> float:
    seconds_per = getattr(table.seconds_per, work.dtype)
    share = table.serial_fraction + (1 - table.serial_fraction) / threads
    return sum(
        amount * getattr(seconds_per, term) * (share if term in parallel else 1.0)
        for term, amount in work.amounts.items()
    )


def _on_edgetpu(graph: Subgraph, target: Target, threads: int, on_chip: Collection[int]) -> dict[int, float]:
    """Seconds by index of the operator; -1 for what only the inference as a whole asks for."""
    assert target.latency is not None
    assert target.latency.edgetpu is not None
    seconds_per = target.latency.edgetpu.seconds_per
    cache_bytes = target.accelerator.parameter_cache_bytes if target.accelerator else None
    on_host = _on_cpu(graph, target, "builtin", threads) if target.latency.builtin else {}
    there = {
        index: sum(amount * getattr(seconds_per, term) for term, amount in amounts.items())
        for index, amounts in features_edgetpu.amounts(graph, on_chip, cache_bytes).items()
    }
    stays: Mapping[int, float] = {index: s for index, s in on_host.items() if index not in on_chip}
    return {**stays, **there}
