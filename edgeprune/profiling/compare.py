"""Compare two .tflite files: their figures, their operators by kind, and operator by operator if these correspond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.files import JsonObject

if TYPE_CHECKING:
    from edgeprune.profiling.profile import Profile
    from edgeprune.tflite.operators import OperatorRow

# Figure of a profile → its label, and whether less is better (None for neither).
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
    "estimated_ms": ("estimated ms", True),
}
# Operators that only change number formats, so that often just one of two files of the same network has them.
CONVERSIONS = frozenset({"DENSIFY", "DEQUANTIZE", "QUANTIZE"})
# Facts of each operator, when the operators of both files correspond.
ALIGNED = ("index", "dtype", "macs", "weight_bytes", "written_bytes", "estimated_ms")


@dataclass(frozen=True)
class KindRow:
    """All operators of one kind in a file: bytes of their weights as stored, and of the activations that they write."""

    dtypes: tuple[str, ...]  # of the outputs
    count: int
    macs: int
    weight_bytes: int
    output_bytes: int


def compare(a: str | Path, b: str | Path, target: str | Path | None = None) -> JsonObject:
    """Profile two files and put them side by side.

    Args:
        target: the board that latency is estimated for; None: no latency.

    Returns:
        JSON types: ``a``, ``b`` (paths), ``target``, ``figures`` (name → a, b, change: b - a for numbers),
        ``operators`` (one entry for each kind of operator: operator, and for a and b the number formats, counts, MACs
        and bytes, or None), ``aligned`` (one entry for each operator, where both files have the same kinds in the same
        order but for :data:`CONVERSIONS`; else None).

    Raises:
        ModelError: a file is missing or damaged.
        TargetError: no such target.
    """
    from edgeprune.profiling.profile import profile

    found = [profile(path, target) for path in (a, b)]
    figures, kinds = [_figures(one) for one in found], [_kinds(one.operators) for one in found]
    return {
        "a": str(a),
        "b": str(b),
        "target": found[0].target,
        "figures": {name: _pair(figures[0][name], figures[1][name]) for name in FIGURES},
        "operators": [
            {"operator": name, "a": _row(kinds[0].get(name)), "b": _row(kinds[1].get(name))}
            for name in dict.fromkeys([*kinds[0], *kinds[1]])
        ],
        "aligned": _aligned(found[0].operators, found[1].operators),
    }


def _figures(found: Profile) -> JsonObject:
    estimated = found.latency.estimated
    own = {"operators": len(found.operators), "estimated_ms": estimated.median_ms if estimated else None}
    memory = {"arena_bytes": found.memory.arena_bytes, "peak_bytes": found.memory.peak_bytes}
    return {**{name: getattr(found, name, None) for name in FIGURES}, **own, **memory}


def _pair(a: Any, b: Any) -> JsonObject:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return {"a": a, "b": b, "change": b - a if numbers else None}


def _kinds(operators: Sequence[OperatorRow]) -> dict[str, KindRow]:
    rows: dict[str, KindRow] = {}
    for operator in operators:
        before = rows.get(operator.name, KindRow((), 0, 0, 0, 0))
        rows[operator.name] = KindRow(
            tuple(dict.fromkeys([*before.dtypes, *([operator.dtype] if operator.dtype else [])])),
            before.count + 1,
            before.macs + operator.macs,
            before.weight_bytes + operator.weight_bytes,
            before.output_bytes + operator.written_bytes,
        )
    return rows


def _row(row: KindRow | None) -> JsonObject | None:
    return None if row is None else {**asdict(row), "dtypes": list(row.dtypes)}


def _aligned(a: Sequence[OperatorRow], b: Sequence[OperatorRow]) -> list[JsonObject] | None:
    sides = [[row for row in rows if row.name not in CONVERSIONS] for rows in (a, b)]
    if [row.name for row in sides[0]] != [row.name for row in sides[1]]:
        return None
    return [{"operator": left.name, "a": _facts(left), "b": _facts(right)} for left, right in zip(*sides, strict=True)]


def _facts(row: OperatorRow) -> JsonObject:
    return {key: getattr(row, key) for key in ALIGNED} | {"output_shape": list(row.output_shape or ())}
