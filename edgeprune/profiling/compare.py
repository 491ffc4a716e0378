"""Compare two .tflite files: their figures, their operators by kind, and operator by operator if these correspond."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from edgeprune.data.source import DataSource
    from edgeprune.evaluate.files import Accuracy
    from edgeprune.profiling.profile import Profile
    from edgeprune.recipe.config import Recipe
    from edgeprune.target import Target
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
Figure = str | float | int | None


class Change(TypedDict):
    """A figure of both files; ``change`` is b - a for numbers, else None."""

    a: Figure
    b: Figure
    change: float | int | None


class Kind(TypedDict):
    """All operators of one kind in a file: bytes of their weights as stored, and of the activations that they write."""

    dtypes: list[str]  # of the outputs
    count: int
    macs: int
    weight_bytes: int
    output_bytes: int


class KindRow(TypedDict):
    """The operators of one kind on both sides; None: the file has none."""

    operator: str
    a: Kind | None
    b: Kind | None


class Aligned(TypedDict):
    """One operator of one of two files that correspond."""

    index: int
    dtype: str | None  # of the output
    macs: int
    weight_bytes: int
    written_bytes: int
    estimated_ms: float | None
    output_shape: list[int]


class AlignedRow(TypedDict):
    """One operator on both sides."""

    operator: str
    a: Aligned
    b: Aligned


class Comparison(TypedDict):
    """Two .tflite files side by side, as JSON types.

    ``figures``: by the names in :data:`FIGURES`. ``aligned``: operator by operator, where both files have the same
    kinds in the same order but for :data:`CONVERSIONS`; else None. ``accuracy``: None without data.
    """

    a: str  # path
    b: str
    target: str | None
    figures: dict[str, Change]
    operators: list[KindRow]
    aligned: list[AlignedRow] | None
    accuracy: Accuracy | None


def compare(
    a: str | Path,
    b: str | Path,
    target: str | Path | Target | None = None,
    *,
    data: DataSource | None = None,
    recipe: str | Path | Recipe | None = None,
    seed: int = 0,
) -> Comparison:
    """Put two .tflite files side by side: sizes, memory, MACs, operators, and more where it is asked for.

    Args:
        a: a .tflite file.
        b: the other one.
        target: the board that latency is estimated for: its name, its TOML file, or a
            :class:`~edgeprune.target.Target`; None: no latency. Without data, TensorFlow is not imported.
        data: whose test split the metrics of both are measured on, as for :func:`edgeprune.build`; None: no metrics.
            Without labels, or with ``[task] kind = "teacher"``, there is the agreement of b with a only.
        recipe: whose ``[data]`` and ``[task]`` say how the data is prepared and what is measured: its name, its TOML
            file (``recipe.toml`` of a run gives the figures of its report) or a
            :class:`~edgeprune.recipe.config.Recipe`; None: ``edgeprune.toml`` in the working folder, else defaults.
        seed: of the build; chooses the test split if the source has none.

    Returns:
        A dict of JSON types. Bytes, MACs and parameters are whole numbers, latency is in milliseconds, sparsity and
        accuracy are fractions in [0, 1]; metrics in their own unit.

    Raises:
        ModelError: a file is missing or damaged.
        TargetError: no such target.
        DataError: the data cannot be read, or does not fit.
        RecipeError: no such recipe, or one that is not valid, or what is to be measured has to be stated there.
        UsageError: data was given, and the files have different inputs or outputs.
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
            {"operator": name, "a": kinds[0].get(name), "b": kinds[1].get(name)}
            for name in dict.fromkeys([*kinds[0], *kinds[1]])
        ],
        "aligned": _aligned(found[0].operators, found[1].operators),
        "accuracy": None if data is None else _accuracy((a, b), data, recipe, seed),
    }


def _accuracy(paths: Sequence[str | Path], data: DataSource, recipe: str | Path | Recipe | None, seed: int) -> Accuracy:
    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.evaluate.files import compare_accuracy
    from edgeprune.recipe.load import resolve_recipe

    resolved = resolve_recipe(recipe)
    return compare_accuracy(paths, data, resolved.data, resolved.task, seed, resolved.detection)


def _figures(found: Profile) -> dict[str, Any]:
    estimated = found.latency.estimated
    own = {"operators": len(found.operators), "estimated_ms": estimated.median_ms if estimated else None}
    memory = {"arena_bytes": found.memory.arena_bytes, "peak_bytes": found.memory.peak_bytes}
    return {**{name: getattr(found, name, None) for name in FIGURES}, **own, **memory}


def _pair(a: Figure, b: Figure) -> Change:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return {"a": a, "b": b, "change": b - a if numbers else None}  # type: ignore[operator]


def _kinds(operators: Sequence[OperatorRow]) -> dict[str, Kind]:
    rows: dict[str, Kind] = {}
    for operator in operators:
        before = rows.get(operator.name, Kind(dtypes=[], count=0, macs=0, weight_bytes=0, output_bytes=0))
        rows[operator.name] = {
            "dtypes": list(dict.fromkeys([*before["dtypes"], *([operator.dtype] if operator.dtype else [])])),
            "count": before["count"] + 1,
            "macs": before["macs"] + operator.macs,
            "weight_bytes": before["weight_bytes"] + operator.weight_bytes,
            "output_bytes": before["output_bytes"] + operator.written_bytes,
        }
    return rows


def _aligned(a: Sequence[OperatorRow], b: Sequence[OperatorRow]) -> list[AlignedRow] | None:
    sides = [[row for row in rows if row.name not in CONVERSIONS] for rows in (a, b)]
    if [row.name for row in sides[0]] != [row.name for row in sides[1]]:
        return None
    return [{"operator": left.name, "a": _facts(left), "b": _facts(right)} for left, right in zip(*sides, strict=True)]


def _facts(row: OperatorRow) -> Aligned:
    return {
        "index": row.index,
        "dtype": row.dtype,
        "macs": row.macs,
        "weight_bytes": row.weight_bytes,
        "written_bytes": row.written_bytes,
        "estimated_ms": row.estimated_ms,
        "output_shape": list(row.output_shape or ()),
    }
