"""Published latencies as points for a fit: one per file, device and number of threads, the median of its repeats."""

from __future__ import annotations

import csv
import functools
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from latency_models import resized, tflite_file

from edgeprune.hardware.latency.edgetpu_features import all_integer, amounts
from edgeprune.hardware.latency.features import PARALLEL, caches_of, works
from edgeprune.hardware.latency.fit import Samples, family_weights
from edgeprune.hardware.latency.prior import CPU_TERMS, DTYPES, EDGETPU_TERMS, cpu_amounts, edgetpu_amounts
from edgeprune.target import Target
from edgeprune.tflite.flatbuffer import read

KERNELS = {"none": "builtin", "xnnpack": "xnnpack", "edgetpu": "edgetpu"}  # by the column delegate
FAMILIES = (
    "EfficientNet-Lite", "InceptionResNetV2", "MobileNetV1", "MobileNetV3", "NASNet", "ResNetV2", "VGG",
    "Synthetic 4x", "Synthetic 5x",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Point:
    """One file on one device. ``rows``: how many published latencies it is the median of."""

    device: str
    kernels: str
    threads: int
    model: str
    input: str
    dtype: str
    graph: Any
    ms: float
    rows: int

    @property
    def family(self) -> str:
        """The architecture, of all widths, depths and input sizes."""
        known = [name for name in FAMILIES if self.model.startswith(name)]
        return known[0] if known else re.split(r"[_\d ]", self.model)[0]


def load(table: Path, folder: Path) -> list[Point]:
    """All points of a table; ``folder`` keeps the .tflite files from one call to the next."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in csv.DictReader(table.open(encoding="utf-8")):
        key = (row["device"], row["delegate"], row["threads"], row["model"], row["input"], row["dtype"])
        groups.setdefault(key, []).append(row)
    return [_point(key, rows, folder) for key, rows in groups.items()]


def _point(key: tuple[str, ...], rows: list[dict[str, str]], folder: Path) -> Point:
    device, delegate, threads, model, size, dtype = key
    milliseconds = statistics.median(float(row["latency_ms"]) for row in rows)
    graph = _graph(rows[0], folder)
    return Point(device, KERNELS[delegate], int(threads), model, size, dtype, graph, milliseconds, len(rows))


def _graph(row: Mapping[str, str], folder: Path) -> Any:
    """Of a grid of widths and sizes, one member is converted, the others are it with other sizes."""
    for pattern, template, sizes in _GRIDS:
        if match := re.search(pattern, row["model"]):
            return resized(_main_graph(tflite_file({**row, **template}, folder)), sizes(row, match.group(1)))
    return _main_graph(tflite_file(row, folder))


@functools.cache
def _main_graph(path: Path) -> Any:
    return read(path).subgraphs[0]


def _mobilenet_sizes(row: Mapping[str, str], alpha: str) -> dict[int, int]:
    channels = {size: int(size * float(alpha)) for size in (32, 64, 128, 256, 512, 1024)}
    side = int(row["input"].split("x")[0])
    sides = {(224 >> i) + padding: (side >> i) + padding for i in range(6) for padding in (0, 1)}
    return {**channels, **sides}


_MOBILENET = {
    "model": "MobileNetV1_1.0",
    "input": "224x224x3",
    "builder": "keras.applications.MobileNet(alpha=1.0)",
}
_DENSE = {
    "model": "Synthetic 4x[Dense N=100 tanh]+Dense10",
    "builder": "own builder: Synthetic 4x[Dense N=100 tanh]+Dense10",
}
_CONVS = {
    "model": "Synthetic 5x[Conv3x3 same F=32 relu]",
    "builder": "own builder: Synthetic 5x[Conv3x3 same F=32 relu]",
}
_GRIDS: tuple[tuple[str, dict[str, str], Any], ...] = (
    (r"^MobileNetV1_([\d.]+)$", _MOBILENET, _mobilenet_sizes),
    (r"^Synthetic 4x\[Dense N=(\d+)", _DENSE, lambda row, units: {100: int(units)}),
    (r"^Synthetic 5x\[Conv3x3 same F=(\d+)", _CONVS, lambda row, filters: {32: int(filters)}),
)


def groups(points: list[Point]) -> np.ndarray:
    """The family of each point."""
    return np.array([point.family for point in points])


def samples(points: list[Point], target: Target, kernels: str) -> Samples:
    """The amounts and times of points, as a target's caches make them."""
    if kernels == "edgetpu":
        rows = [edgetpu_amounts(amounts(point.graph, all_integer(point.graph)).values()) for point in points]
        parallel = [False] * len(EDGETPU_TERMS)
    else:
        caches = caches_of(target)
        rows = [cpu_amounts(works(point.graph, kernels, caches)) for point in points]  # type: ignore[arg-type]
        parallel = [term in PARALLEL[kernels] for _ in DTYPES for term in CPU_TERMS]  # type: ignore[index]
    return Samples(
        np.array(rows),
        np.array(parallel),
        np.array([float(point.threads) for point in points]),
        np.array([point.ms / 1e3 for point in points]),
        family_weights(np.array([f"{point.family} {point.dtype}" for point in points])),
    )
