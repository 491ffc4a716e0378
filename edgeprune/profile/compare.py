"""Two .tflite files side by side: what each is, and its operators by kind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
    """All operators of one kind in a file; bytes as stored (weights) and written (activations)."""

    dtypes: tuple[str, ...]  # of the outputs
    count: int
    macs: int
    weight_bytes: int
    output_bytes: int


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Profile two files and put them side by side.

    Returns:
        JSON types: ``a``, ``b`` (paths), ``figures`` (name → a, b, change: b - a for numbers), ``operators`` (one entry
        for each kind of operator: operator, and for a and b the number formats, counts, MACs and bytes, or None).

    Raises:
        ModelError: a file is missing or damaged.
    """
    files = [_figures(path) for path in (a, b)]
    kinds = [_kinds(path) for path in (a, b)]
    return {
        "a": str(a),
        "b": str(b),
        "figures": {name: _pair(files[0][name], files[1][name]) for name in FIGURES},
        "operators": [
            {"operator": name, "a": _row(kinds[0].get(name)), "b": _row(kinds[1].get(name))}
            for name in dict.fromkeys([*kinds[0], *kinds[1]])
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


def _kinds(path: str | Path) -> dict[str, KindRow]:
    from edgeprune.profile.macs import operator_macs

    graph = parse(read_bytes(path), str(path)).subgraphs[0]
    rows: dict[str, KindRow] = {}
    for operator in graph.operators:
        output = graph.output(operator)
        before = rows.get(operator.name, KindRow((), 0, 0, 0, 0))
        rows[operator.name] = KindRow(
            tuple(dict.fromkeys([*before.dtypes, *([output.dtype] if output else [])])),
            before.count + 1,
            before.macs + operator_macs(graph, operator),
            before.weight_bytes + _stored(graph, operator),
            before.output_bytes + sum(graph.tensors[i].nbytes for i in operator.outputs if i >= 0),
        )
    return rows


def _stored(graph: Subgraph, operator: Operator) -> int:
    return sum(len(graph.tensors[i].stored) for i in operator.inputs if i >= 0)


def _row(row: KindRow | None) -> dict[str, Any] | None:
    return None if row is None else {**asdict(row), "dtypes": list(row.dtypes)}
