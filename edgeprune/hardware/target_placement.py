"""Where the operators of a file run on a target: what its compiler says, else a prediction."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.files import JsonObject
from edgeprune.hardware.placement import Placement
from edgeprune.target import Target
from edgeprune.tflite.graph import Subgraph


@dataclass(frozen=True)
class TargetPlacement:
    """Where the operators of a file run on a target.

    Attributes:
        placement: a :class:`~edgeprune.hardware.placement.Placement` as JSON; None without an accelerator.
        performance: the compiler's own estimate; None when it gives none.
        warnings: the compiler's warnings.
        mapped: indices of the operators on the accelerator; None when they cannot be predicted. A compiler only counts
            them: then these are as many of each kind as it counted.
    """

    placement: Mapping[str, Any] | None = None
    performance: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    mapped: frozenset[int] | None = None


def _edgetpu(graph: Subgraph, target: Target) -> Placement:
    from edgeprune.hardware.edgetpu.summary import edgetpu_placement

    return edgetpu_placement(graph, target.accelerator.parameter_cache_bytes if target.accelerator else None)


# Compiler → predictor of its placement. A compiler without a predictor is run.
PREDICTORS: dict[str, Callable[[Subgraph, Target], Placement]] = {"edgetpu": _edgetpu}

# Custom operator that a compiler puts in place of the operators it compiled → the processor that runs it.
COMPILED = {"ethos-u": "Ethos-U"}


def placement_of(
    path: str | Path, graph: Subgraph, target: Target | None, compiled: Mapping[str, Any] | None
) -> TargetPlacement:
    """Which operators of a file the target's accelerator runs.

    Args:
        path: the file.
        graph: its main subgraph.
        target: the board; None, or one without a compiler, has no placement.
        compiled: :meth:`edgeprune.hardware.compilers.Compiled.to_dict`, if the compiler ran already.

    Raises:
        MissingError: the placement cannot be predicted, and the compiler is not installed.
    """
    predictor = PREDICTORS.get(target.compiler.name) if target and target.compiler else None
    if compiled is not None:
        mapped = _as_counted(predictor(graph, target), compiled["placement"]) if predictor and target else None
        return TargetPlacement(compiled["placement"], compiled["performance"], tuple(compiled["warnings"]), mapped)
    if target is None or target.compiler is None:
        return TargetPlacement()
    if predictor is not None:
        predicted = predictor(graph, target)
        mapped = frozenset(op.index for op in predicted.operators if op.on_accelerator)
        return TargetPlacement(predicted.to_dict(), mapped=mapped)
    if any(operator.custom and operator.name in COMPILED for operator in graph.operators):
        return TargetPlacement(_compiled_file(graph))
    return _by_compiler(path, target)


def _as_counted(predicted: Placement, compiled: Mapping[str, Any]) -> frozenset[int]:
    """The operators on the accelerator: as many of each kind as the compiler counted.

    The compiler does not say which. Assumed to be on the CPU are first the operators that the prediction leaves there,
    then the last ones of the graph, because the compiler takes the first part.
    """
    left = Counter[str]()
    for row in compiled["not_mapped"]:
        left[row["name"]] += row.get("count", 1)
    named = left.total() == compiled["cpu_ops"]  # a shortened log names only some of the operators
    mapped = set()
    for kind in {op.name for op in predicted.operators} if named else {None}:
        ops = [op for op in predicted.operators if kind in (op.name, None)]
        ops.sort(key=lambda op: (not op.on_accelerator, op.index))
        count = left[kind] if kind else compiled["cpu_ops"]
        mapped |= {op.index for op in ops[: max(len(ops) - count, 0)]}
    return frozenset(mapped)


def _compiled_file(graph: Subgraph) -> JsonObject:
    """The placement in a file that a compiler wrote: what is not the compiler's own operator runs on the CPU."""
    names = [operator.name for operator in graph.operators]
    left = [name for name in names if name not in COMPILED]
    return {
        "processor": next(COMPILED[name] for name in names if name in COMPILED),
        "source": "compiled file",
        "accelerator_ops": len(names) - len(left),
        "cpu_ops": len(left),
        "uncertain_ops": 0,
        "fully_mapped": not left,
        "partitions": len(names) - len(left),
        "cached_param_bytes": None,
        "streamed_param_bytes": None,
        "not_mapped": [{"name": name, "status": "left by the compiler"} for name in left],
    }


def _by_compiler(path: str | Path, target: Target) -> TargetPlacement:
    """Run the compiler, and keep only what it says."""
    from edgeprune.hardware.compilers import compile_for

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        result = compile_for(target, Path(path), Path(folder))
    if result is None:
        return TargetPlacement()
    return TargetPlacement(result.placement, result.performance, tuple(result.warnings))


def delegates_of(graph: Subgraph, target: Target | None) -> tuple[JsonObject, ...]:
    """The placement of a graph for each delegate of the target's runtime."""
    from edgeprune.hardware.delegates import delegate_placement

    return (
        tuple(delegate_placement(graph, name, target.runtime).to_dict() for name in target.delegates) if target else ()
    )
