"""What a .tflite tells about itself, without TensorFlow: size, sparsity, MACs, memory, operators, needed runtime.

The package is callable, because its one function has its name: ``edgeprune.profile(path)`` works whether ``profile``
was bound to the function or, after some other part was imported, to this package.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.profile.graph import Subgraph, TFLiteModel
    from edgeprune.profile.memory import MemoryPlan
    from edgeprune.target import Target

__all__ = ["KernelRow", "Latency", "Memory", "OperatorRow", "Profile", "profile"]


@dataclass(frozen=True)
class OperatorRow:
    """One operator of the main subgraph. Shapes as [batch, ...]; a missing optional input or output is None."""

    index: int
    name: str
    version: int
    output_name: str
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    dtype: str | None  # of the output
    macs: int


@dataclass(frozen=True)
class KernelRow:
    """The weights of one operator as stored; ``sparsity`` is the fraction of zeros in [0, 1]."""

    name: str
    operator: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    sparsity: float


@dataclass(frozen=True)
class Memory:
    """Bytes that the interpreter plans with its own kernels; see :class:`edgeprune.profile.memory.MemoryPlan`."""

    arena_bytes: int
    persistent_bytes: int
    peak_bytes: int
    peak_operator: str | None  # 'index name', where most memory is alive at once
    dynamic: bool


@dataclass(frozen=True)
class Latency:
    """Estimated latency on the target, in milliseconds; None until it can be estimated."""

    estimated: None = None


@dataclass(frozen=True)
class Profile:
    """The facts of one .tflite file.

    ``min_runtime`` counts in TensorFlow (and tflite-runtime) releases, ``min_litert`` in those of ai-edge-litert;
    None when the table of releases does not know an operator in the file.
    """

    file: str
    target: str | None
    sha256: str
    bytes: int
    gzip_bytes: int
    zstd_bytes: int
    params: int
    nonzero_params: int
    weight_sparsity: float | None
    macs: int
    latency: Latency
    memory: Memory
    placement: None
    min_runtime: str | None
    min_litert: str | None
    operators: tuple[OperatorRow, ...]
    kernels: tuple[KernelRow, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The profile as JSON types."""
        return _json(asdict(self))


def profile(path: str | Path, target: str | Path | Target | None = None) -> Profile:
    """Profile a .tflite file.

    Args:
        path: the file.
        target: the board to warn about: a :class:`~edgeprune.target.Target`, its name or its TOML file.

    Raises:
        ModelError: the file is missing, damaged or not a .tflite.
        TargetError: no such target.
    """
    import hashlib

    from edgeprune.profile import macs, memory, size, versions
    from edgeprune.profile.flatbuffer import parse, read_bytes
    from edgeprune.target import load_target

    chosen = load_target(target) if isinstance(target, str | Path) else target
    content = read_bytes(path)
    model = parse(content, name=str(path))
    graph = model.subgraphs[0]
    plan = memory.plan(graph)
    minimum, litert = versions.min_runtime(model), versions.min_runtime(model, "ai-edge-litert")
    return Profile(
        file=str(path),
        target=chosen.name if chosen else None,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        gzip_bytes=size.gzip_bytes(content),
        zstd_bytes=size.zstd_bytes(content),
        params=size.params(model),
        nonzero_params=size.nonzero_params(model),
        weight_sparsity=size.weight_sparsity(model),
        macs=macs.macs(model),
        latency=Latency(),
        memory=_memory(graph, plan),
        placement=None,
        min_runtime=versions.format_version(minimum) if minimum else None,
        min_litert=versions.format_version(litert) if litert else None,
        operators=_operators(graph),
        kernels=tuple(
            KernelRow(k.tensor_name, k.operator, k.shape, k.size, k.zeros, k.sparsity) for k in size.kernels(model)
        ),
        warnings=(*(versions.runtime_warnings(model, chosen) if chosen else ()), *_gaps(model, plan)),
    )


def _memory(graph: Subgraph, plan: MemoryPlan) -> Memory:
    peak = None if plan.peak_operator is None else graph.operators[plan.peak_operator]
    return Memory(
        plan.arena_bytes,
        plan.persistent_bytes,
        plan.peak_bytes,
        f"{peak.index} {peak.name}" if peak else None,
        plan.dynamic,
    )


def _operators(graph: Subgraph) -> tuple[OperatorRow, ...]:
    from edgeprune.profile.macs import operator_macs

    rows = []
    for operator in graph.operators:
        data, output = graph.input(operator, 0), graph.output(operator)
        rows.append(
            OperatorRow(
                index=operator.index,
                name=operator.name,
                version=operator.version,
                output_name=output.name if output else "",
                input_shape=data.shape if data else None,
                output_shape=output.shape if output else None,
                dtype=output.dtype if output else None,
                macs=operator_macs(graph, operator),
            )
        )
    return tuple(rows)


def _gaps(model: TFLiteModel, plan: MemoryPlan) -> list[str]:
    """What the figures leave out for this file."""
    gaps = []
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


class _CallablePackage(ModuleType):
    def __call__(self, path: str | Path, target: str | Path | Target | None = None) -> Profile:
        return profile(path, target)


sys.modules[__name__].__class__ = _CallablePackage
