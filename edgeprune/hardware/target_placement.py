"""Placement as far as a target has something to place on: its compiler's word, else a prediction."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.hardware.placement import Placement
from edgeprune.target import Target
from edgeprune.tflite.graph import Subgraph


@dataclass(frozen=True)
class Found:
    """A placement as JSON types, the compiler's own estimate, and what to warn about.

    ``mapped``: indices of the operators on the accelerator, as predicted; None where nothing predicts them. Where the
    compiler counted them, as many of each kind as it says.
    """

    placement: Mapping[str, Any] | None = None
    performance: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    mapped: frozenset[int] | None = None


def _edgetpu(graph: Subgraph, target: Target) -> Placement:
    from edgeprune.hardware.edgetpu.summary import edgetpu_placement

    return edgetpu_placement(graph, target.accelerator.parameter_cache_bytes if target.accelerator else None)


# Compilers whose work can be predicted from the file. The others are asked.
PREDICTORS: dict[str, Callable[[Subgraph, Target], Placement]] = {"edgetpu": _edgetpu}

# The custom operator that a compiler leaves in place of what it took, and the processor that runs it.
COMPILED = {"ethos-u": "Ethos-U"}


def placement_of(path: str | Path, graph: Subgraph, target: Target | None, compiled: Mapping[str, Any] | None) -> Found:
    """What the target's accelerator takes of a file.

    Args:
        compiled: what the compiler said, if it ran already.

    Raises:
        MissingError: only the compiler can tell, and it is not installed.
    """
    predictor = PREDICTORS.get(target.compiler.name) if target and target.compiler else None
    if compiled is not None:
        mapped = _as_counted(predictor(graph, target), compiled["placement"]) if predictor and target else None
        return Found(compiled["placement"], compiled["performance"], tuple(compiled["warnings"]), mapped)
    if target is None or target.compiler is None:
        return Found()
    if predictor is not None:
        made = predictor(graph, target)
        return Found(made.to_dict(), mapped=frozenset(op.index for op in made.operators if op.on_accelerator))
    if any(operator.custom and operator.name in COMPILED for operator in graph.operators):
        return Found(_compiled_file(graph))
    return _asked(path, target)


def _as_counted(predicted: Placement, compiled: Mapping[str, Any]) -> frozenset[int]:
    """The operators on the accelerator: of each kind as many as the compiler counted, which does not say which.

    On the CPU are first those that the prediction leaves there, then the last ones: the compiler takes the first part.
    """
    left = Counter[str]()
    for row in compiled["not_mapped"]:
        left[row["name"]] += row.get("count", 1)
    named = left.total() == compiled["cpu_ops"]  # a log may name only some of those that it counts
    mapped = set()
    for kind in {op.name for op in predicted.operators} if named else {None}:
        ops = [op for op in predicted.operators if kind in (op.name, None)]
        ops.sort(key=lambda op: (not op.on_accelerator, op.index))
        count = left[kind] if kind else compiled["cpu_ops"]
        mapped |= {op.index for op in ops[: max(len(ops) - count, 0)]}
    return frozenset(mapped)


def _compiled_file(graph: Subgraph) -> dict[str, Any]:
    """The placement that a file which a compiler wrote says about itself."""
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


def _asked(path: str | Path, target: Target) -> Found:
    from edgeprune.hardware.compilers import compile_for

    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        made = compile_for(target, Path(path), Path(folder))
    if made is None:
        return Found()
    return Found(made.placement, made.performance, tuple(made.warnings))


def delegates_of(graph: Subgraph, target: Target | None) -> tuple[dict[str, Any], ...]:
    """What each delegate of the target's runtime takes of a graph."""
    from edgeprune.hardware.delegates import delegate_placement

    return tuple(delegate_placement(graph, name).to_dict() for name in (target.delegates if target else ()))
