"""What a .tflite tells about itself, without TensorFlow: size, sparsity, MACs, memory, operators, needed
runtime, and how long it should take on a target.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeprune.hardware.latency.estimate import Estimate, KernelSet, Prediction
    from edgeprune.hardware.target_placement import TargetPlacement
    from edgeprune.hardware.xnnpack.sparse_file import SparsePath
    from edgeprune.runtime.micro import Footprint
    from edgeprune.target import Target
    from edgeprune.tflite.graph import Subgraph, TFLiteModel
    from edgeprune.tflite.memory import MemoryPlan
    from edgeprune.tflite.operators import OperatorRow
    from edgeprune.tflite.size import StoredKernel

__all__ = ["KernelRow", "Latency", "Memory", "Profile", "profile"]


@dataclass(frozen=True)
class KernelRow:
    """The weights of one operator as stored; ``sparsity`` is the fraction of zeros in [0, 1].

    ``stored_bytes`` are those in the file, indices included; ``expected_kernels`` says what XNNPACK will run on an ARM
    processor, and is None in a file without sparse encoding. ``distinct`` is the number of different stored numbers,
    ``channel_distinct`` the largest such number in one output channel, where channels have scales of their own.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    sparsity: float
    stored_bytes: int
    encoding: Literal["dense", "sparse"]
    expected_kernels: Literal["dense", "sparse"] | None
    distinct: int
    channel_distinct: int


@dataclass(frozen=True)
class Memory:
    """Bytes that the interpreter plans with its own kernels; see :class:`edgeprune.tflite.memory.MemoryPlan`."""

    arena_bytes: int
    persistent_bytes: int
    peak_bytes: int
    peak_operator: str | None  # 'index name', where most memory is alive at once
    dynamic: bool
    timeline_bytes: tuple[int, ...]  # alive while each operator runs


@dataclass(frozen=True)
class Latency:
    """Estimated latency on the target; None without a target, or where nothing is known about it.

    ``others``: with the other kernels that the target has coefficients for. ``unknown``: why there is no estimate.
    """

    estimated: Estimate | None
    others: tuple[Estimate, ...] = ()
    unknown: str | None = None


@dataclass(frozen=True)
class Profile:
    """The facts of one .tflite file.

    ``placement`` is None for a target without an accelerator; see :class:`edgeprune.hardware.placement.Placement` for
    its keys. ``delegates`` has the same keys for each delegate of the runtime that the target has. ``performance`` is
    what the target's compiler estimates. ``gzip_bytes`` are of a quick level, up to a tenth above the best, and
    ``zstd_bytes`` None, unless the best was asked for: it takes seconds. ``min_runtime`` counts in TensorFlow (and
    tflite-runtime) releases, ``min_litert`` in those of ai-edge-litert; None when the table of releases does not know
    an operator in the file.
    """

    file: str
    target: str | None
    sha256: str
    bytes: int
    gzip_bytes: int
    zstd_bytes: int | None
    params: int
    nonzero_params: int
    weight_sparsity: float | None
    macs: int
    weight_bytes: int  # of the kernels, as stored
    subgraphs: int
    graph: str  # name of the main subgraph
    metadata: tuple[str, ...]  # names
    latency: Latency
    memory: Memory
    micro: Footprint | None  # on a microcontroller, estimated; None for other targets
    sparse_path: SparsePath | None  # None: nothing in the file is stored sparse
    placement: Mapping[str, object] | None
    delegates: tuple[Mapping[str, object], ...]
    performance: Mapping[str, object] | None
    min_runtime: str | None
    min_litert: str | None
    operators: tuple[OperatorRow, ...]
    kernels: tuple[KernelRow, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The profile as JSON types."""
        return _json(asdict(self))


def profile(
    path: str | Path,
    target: str | Path | Target | None = None,
    compiled: Mapping[str, object] | None = None,
    *,
    kernels: KernelSet | None = None,
    threads: int | None = None,
    best_compression: bool = False,
) -> Profile:
    """Find out what a .tflite file tells about itself, without TensorFlow and without running it.

    Args:
        path: the file.
        compiled: what the target's compiler said about this file, as
            :meth:`edgeprune.hardware.compilers.Compiled.to_dict`; None: predicted, or asked if nothing predicts it.
        target: the board: a :class:`~edgeprune.target.Target`, its name or its TOML file.
        kernels: that the latency is estimated for: 'builtin', 'xnnpack' or 'edgetpu'; None for the target's default.
        threads: None for the target's default.
        best_compression: take the time for gzip at level 9 and zstd at level 19.

    Returns:
        Bytes, parameters, zeros, multiply-accumulates for one sample, memory in bytes, operators with what each of them
        holds and does, and with a target, milliseconds as estimated for it and what its accelerator and delegates take.

    Raises:
        ModelError: the file is missing, damaged or not a .tflite.
        TargetError: no such target.
        MissingError: the target's compiler is needed and not installed.
        UsageError: kernels that nothing is known about on the target, or no threads.
    """
    import hashlib

    from edgeprune.hardware.latency import estimate as latency
    from edgeprune.hardware.target_placement import delegates_of, placement_of
    from edgeprune.hardware.xnnpack.sparse_file import sparse_path
    from edgeprune.runtime.micro import estimated_footprint
    from edgeprune.target import load_target
    from edgeprune.tflite import macs, memory, size, versions
    from edgeprune.tflite.faults import faults
    from edgeprune.tflite.flatbuffer import parse, read_bytes
    from edgeprune.tflite.operators import operator_rows

    chosen = load_target(target) if isinstance(target, str | Path) else target
    content = read_bytes(path)
    model = parse(content, name=str(path))
    graph = model.subgraphs[0]
    plan = memory.plan(graph)
    path_taken = sparse_path(model, chosen.runtime if chosen else None)
    placed = placement_of(path, graph, chosen, compiled)
    known = chosen and not (versions.compiled_operators(graph) or _loops(graph))  # what is in these cannot be seen
    predicted = latency.predict(graph, chosen, kernels, threads, placed.mapped) if chosen and known else None
    table = size.kernels(model)
    minimum, litert = versions.min_runtime(model), versions.min_runtime(model, "ai-edge-litert")
    return Profile(
        file=str(path),
        target=chosen.name if chosen else None,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        gzip_bytes=size.gzip_bytes(content, 9 if best_compression else size.QUICK_GZIP),
        zstd_bytes=size.zstd_bytes(content) if best_compression else None,
        params=size.params(model),
        nonzero_params=size.nonzero_params(model),
        weight_sparsity=size.weight_sparsity(table),
        macs=macs.macs(model),
        weight_bytes=sum(kernel.stored_bytes for kernel in table),
        subgraphs=len(model.subgraphs),
        graph=graph.name,
        metadata=tuple(model.metadata),
        latency=_latency(graph, chosen, predicted, threads, placed),
        memory=_memory(graph, plan),
        micro=estimated_footprint(len(content), graph) if chosen and chosen.micro else None,
        sparse_path=path_taken,
        placement=placed.placement,
        delegates=delegates_of(graph, chosen),
        performance=placed.performance,
        min_runtime=versions.format_version(minimum) if minimum else None,
        min_litert=versions.format_version(litert) if litert else None,
        operators=operator_rows(graph, predicted.operator_ms if predicted else None, placed.mapped),
        kernels=tuple(_kernel_row(kernel, path_taken) for kernel in table),
        warnings=(
            *faults(model),
            *(problem.what for problem in (versions.runtime_problems(model, chosen) if chosen else ())),
            *(path_taken.warnings if path_taken else ()),
            *(latency.warnings(graph, chosen, predicted.estimate) if chosen and predicted else ()),
            *_gaps(model, plan),
            *placed.warnings,
        ),
    )


def _kernel_row(kernel: StoredKernel, path: SparsePath | None) -> KernelRow:
    return KernelRow(
        kernel.tensor_name,
        kernel.operator,
        kernel.shape,
        kernel.size,
        kernel.zeros,
        kernel.sparsity,
        kernel.stored_bytes,
        encoding="sparse" if kernel.stored_sparse else "dense",
        expected_kernels=None if path is None else "sparse" if kernel.tensor_name in path.kernels else "dense",
        distinct=kernel.distinct,
        channel_distinct=kernel.channel_distinct,
    )


def _latency(
    graph: Subgraph, target: Target | None, predicted: Prediction | None, threads: int | None, placed: TargetPlacement
) -> Latency:
    from edgeprune.hardware.latency.estimate import available, of_compiler, predict
    from edgeprune.hardware.latency.features import FREE
    from edgeprune.tflite.versions import compiled_operators

    if target is None:
        return Latency(None)
    if not graph.operators:
        return Latency(None, unknown="the file has no operators")
    if all(operator.name in FREE for operator in graph.operators):
        return Latency(None, unknown="the file computes nothing: it only renames its inputs")
    if predicted is None and placed.performance and placed.placement:
        if left := placed.placement["cpu_ops"]:
            what = f"the compiler times the accelerator only, and {left} operators stay on the processor"
            return Latency(None, unknown=what)
        return Latency(of_compiler(placed.performance, placed.placement["source"], target))
    if names := compiled_operators(graph):
        what = f"what a compiler put into {', '.join(names)} cannot be seen; profile the file that it was made from"
        return Latency(None, unknown=what)
    if _loops(graph):
        return Latency(None, unknown="the file has a loop (WHILE), and how often it runs is not in the file")
    if predicted is None:
        return Latency(None, unknown=f"nothing is known about the speed of {target.name}")
    others = [predict(graph, target, name, threads) for name in available(target) if name != predicted.estimate.kernels]
    return Latency(predicted.estimate, tuple(other.estimate for other in others if other))


def _memory(graph: Subgraph, plan: MemoryPlan) -> Memory:
    peak = None if plan.peak_operator is None else graph.operators[plan.peak_operator]
    return Memory(
        plan.arena_bytes,
        plan.persistent_bytes,
        plan.peak_bytes,
        f"{peak.index} {peak.name}" if peak else None,
        plan.dynamic,
        plan.alive_bytes(len(graph.operators)),
    )


def _loops(graph: Subgraph) -> bool:
    return any(operator.name == "WHILE" for operator in graph.operators)


def _gaps(model: TFLiteModel, plan: MemoryPlan) -> list[str]:
    """What the figures leave out for this file."""
    from edgeprune.tflite.interface import other_signatures

    gaps = [*other_signatures(model)]
    if plan.dynamic:
        gaps.append("Some tensors get their size only at run time: the memory figures do not contain them.")
    control = sorted({op.name for op in model.subgraphs[0].operators} & {"CALL_ONCE", "IF", "WHILE"})
    if control:
        gaps.append(
            f"MACs and memory inside {', '.join(control)} are not counted: how often it runs is not in the file."
        )
    return gaps


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, tuple | list) else value
