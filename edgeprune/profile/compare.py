"""Two .tflite files side by side: what each is, and its operators by kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.profile.flatbuffer import parse, read_bytes
from edgeprune.profile.graph import Operator, Subgraph

# Figure of a profile: its name for people, and whether less is better (None: neither).
FIGURES: dict[str, tuple[str, bool | None]] = {
    "bytes": ("bytes", True),
    "gzip_bytes": ("bytes after gzip", True),
    "params": ("parameters", True),
    "nonzero_params": ("nonzero parameters", True),
    "weight_sparsity": ("weight sparsity", None),
    "macs": ("MACs", True),
    "operators": ("operators", None),
    "arena_bytes": ("arena bytes", True),
    "peak_bytes": ("peak bytes", True),
    "min_runtime": ("minimum runtime", None),
}


@dataclass(frozen=True)
class KindRow:
    """All operators of one kind and output format in a file; bytes as stored (weights) and written (activations)."""

    operator: str
    dtype: str
    count: int
    macs: int
    weight_bytes: int
    output_bytes: int


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Profile two files and put them side by side.

    Returns:
        JSON types: ``a``, ``b`` (paths), ``figures`` (name → a, b, change: b - a for numbers), ``operators`` (one entry
        for each kind of operator: operator, dtype, and for a and b the counts, MACs and bytes, or None).

    Raises:
        ModelError: a file is missing or damaged.
    """
    files = [_figures(path) for path in (a, b)]
    kinds = [{(row.operator, row.dtype): row for row in _kinds(path)} for path in (a, b)]
    names = list(dict.fromkeys([*kinds[0], *kinds[1]]))
    return {
        "a": str(a),
        "b": str(b),
        "figures": {name: _pair(files[0][name], files[1][name]) for name in FIGURES},
        "operators": [
            {"operator": name, "dtype": dtype, "a": _row(kinds[0], name, dtype), "b": _row(kinds[1], name, dtype)}
            for name, dtype in names
        ],
    }


def _figures(path: str | Path) -> dict[str, Any]:
    from edgeprune.profile import profile

    found = profile(path)
    own = {"operators": len(found.operators)}
    memory = {"arena_bytes": found.memory.arena_bytes, "peak_bytes": found.memory.peak_bytes}
    return {**{name: getattr(found, name, None) for name in FIGURES}, **own, **memory}


def _pair(a: Any, b: Any) -> dict[str, Any]:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return {"a": a, "b": b, "change": b - a if numbers else None}


def _kinds(path: str | Path) -> Iterable[KindRow]:
    from edgeprune.profile.macs import operator_macs

    graph = parse(read_bytes(path), str(path)).subgraphs[0]
    rows: dict[tuple[str, str], KindRow] = {}
    for operator in graph.operators:
        output = graph.output(operator)
        dtype = output.dtype if output else ""
        before = rows.get((operator.name, dtype), KindRow(operator.name, dtype, 0, 0, 0, 0))
        rows[operator.name, dtype] = KindRow(
            operator.name,
            dtype,
            before.count + 1,
            before.macs + operator_macs(graph, operator),
            before.weight_bytes + _stored(graph, operator),
            before.output_bytes + sum(graph.tensors[i].nbytes for i in operator.outputs if i >= 0),
        )
    return rows.values()


def _stored(graph: Subgraph, operator: Operator) -> int:
    return sum(len(graph.tensors[i].stored) for i in operator.inputs if i >= 0)


def _row(kinds: dict[tuple[str, str], KindRow], name: str, dtype: str) -> dict[str, int] | None:
    row = kinds.get((name, dtype))
    if row is None:
        return None
    return {
        "count": row.count,
        "macs": row.macs,
        "weight_bytes": row.weight_bytes,
        "output_bytes": row.output_bytes,
    }
