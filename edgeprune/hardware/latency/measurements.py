"""Read a user's measurements of a board, and fit a target to them.

The table is what ``edgeprune bench`` appends to: one row per run of a .tflite, columns file, sha256, device, target,
runtime, runtime_version, threads, delegate, runs, median_ms, p95_ms, created.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeprune.errors import DataError, TargetError
from edgeprune.hardware.latency import fit as latency_fit
from edgeprune.hardware.latency.features import PARALLEL, CpuKernelSet, caches_of, works
from edgeprune.hardware.latency.prior import COLUMNS, cpu_amounts, cpu_seconds, cpu_vector
from edgeprune.hardware.xnnpack.sparse_file import sparse_operators
from edgeprune.target import CpuLatency, LatencyModel, Target
from edgeprune.tflite.flatbuffer import parse, read_bytes
from edgeprune.tflite.graph import Subgraph

# Value in the column delegate → kernels of the latency model.
KERNELS: dict[str, CpuKernelSet] = {"none": "builtin", "builtin": "builtin", "xnnpack": "xnnpack"}
COLUMNS_NEEDED = ("file", "device", "threads", "delegate", "median_ms")
MIN_FILES = 3  # for a fit, measured with one set of kernels
PROPOSED = 5  # files to measure next
ENOUGH_FILES = 5  # for an error and a range of the fit's own: with fewer files left out in turn, 80 % cannot be covered


@dataclass(frozen=True, eq=False)
class Measurement:
    """The median latency of one file on one board."""

    file: Path
    sha256: str
    device: str
    kernels: CpuKernelSet
    threads: int
    seconds: float
    graph: Subgraph


def read_measurements(table: Path) -> list[Measurement]:
    """Read a table and the files that it names, relative to its folder. Rows of delegates not in KERNELS are left out.

    Raises:
        DataError: the table cannot be read, lacks columns, or a row has a bad figure, a missing or another file.
        ModelError: a file is not a .tflite.
    """
    numbered = [(number, row) for number, row in enumerate(_rows(table), 2) if row["delegate"] in KERNELS]
    return [_measurement(table, number, row) for number, row in numbered]


def left_out(table: Path) -> dict[str, int]:
    """Rows that :func:`read_measurements` leaves out, counted by delegate: only a processor's kernels can be fitted.

    Raises:
        DataError: the table cannot be read, or lacks columns.
    """
    return dict(Counter(str(row["delegate"]) for row in _rows(table) if row["delegate"] not in KERNELS))


def words_left_out(left: Mapping[str, int]) -> str:
    """A sentence about the rows that were left out; empty when there are none."""
    rows = ", ".join(f"{count} with {delegate or 'no delegate named'}" for delegate, count in sorted(left.items()))
    return f" Only {' and '.join(PARALLEL)} kernels can be fitted, so these rows are left out: {rows}." if rows else ""


def base_name(table: Path) -> str:
    """The target that the measurements were made for.

    Raises:
        DataError: the table cannot be read, or names none or several.
    """
    names = sorted({row.get("target") or "" for row in _rows(table)} - {""})
    if len(names) != 1:
        raise DataError(
            f"The measurements {table} name {len(names)} targets in their column target.",
            expected="one target, from which the fit starts.",
            fix="name it with --base: the most similar board in `edgeprune targets list`.",
        )
    return names[0]


def _rows(table: Path) -> list[dict[str, Any]]:
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The measurements {table} cannot be read: {error}.") from None
    missing = [name for name in COLUMNS_NEEDED if rows and name not in rows[0]]
    if missing:
        raise DataError(
            f"The measurements {table} have no column {', '.join(missing)}.",
            expected=f"a table with a first line that names at least {', '.join(COLUMNS_NEEDED)}.",
        )
    return rows


def _measurement(table: Path, number: int, row: Mapping[str, Any]) -> Measurement:
    place = f"{table}, line {number}"
    try:
        threads, milliseconds = int(row["threads"]), float(row["median_ms"])
    except (TypeError, ValueError):
        raise DataError(f"{place}: threads and median_ms must be numbers.") from None
    if threads < 1 or not 0 < milliseconds < float("inf"):
        raise DataError(f"{place}: {threads} threads and {milliseconds} ms are not a measurement.")
    if not row["file"]:
        raise DataError(
            f"{place}: the column file is empty; the fit needs the measured file.", fix="name it, or remove the row."
        )
    file = table.parent / row["file"]
    if not file.is_file():
        raise DataError(
            f"{place}: the file {row['file']} does not exist; the fit needs the measured file.",
            fix=f"copy it to {file}, or remove the row.",
        )
    content = read_bytes(file)
    digest = hashlib.sha256(content).hexdigest()
    if row.get("sha256") and row["sha256"] != digest:
        raise DataError(
            f"{place}: {row['file']} is not the file that was measured (sha256 {digest}, measured {row['sha256']}).",
            fix="restore the file, or measure it again.",
        )
    graph = parse(content, name=str(file)).subgraphs[0]
    return Measurement(file, digest, row["device"], KERNELS[row["delegate"]], threads, milliseconds / 1e3, graph)


def fit_target(
    name: str, base: Target, measurements: Sequence[Measurement], left: Mapping[str, int] = MappingProxyType({})
) -> Target:
    """A copy of a target with coefficients fitted to measurements, separately for each set of kernels.

    Few measurements scale the base's coefficients together, many tell the kinds of work apart; see
    :mod:`edgeprune.hardware.latency.fit`.

    Args:
        name: of the new target.
        base: the target to copy, whose coefficients are the prior.
        measurements: of one board.
        left: result of :func:`left_out`, for the message of an error.

    Raises:
        TargetError: the name is not allowed, or the base has no coefficients.
        DataError: no set of kernels has enough files, or the measurements are of several boards.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9-]*", name):
        raise TargetError(
            f"{name!r} cannot be the name of a target.",
            expected="lower-case letters, digits and hyphens, beginning with a letter or digit.",
        )
    if base.latency is None:
        raise TargetError(f"The target {base.name} has no latency coefficients.", fix="choose another --base.")
    devices = sorted({one.device for one in measurements})
    if len(devices) > 1:
        raise DataError(
            f"The measurements are of {len(devices)} boards: {', '.join(devices)}.",
            expected="one board per target.",
            fix="split the table by its column device.",
        )
    fitted = {
        kernels: _fit(base, kernels, rows)
        for kernels in PARALLEL
        if getattr(base.latency, kernels) and len(_files(rows := _of(measurements, kernels))) >= MIN_FILES
    }
    if not fitted:
        counts = ", ".join(f"{len(_files(_of(measurements, kernels)))} with {kernels} kernels" for kernels in PARALLEL)
        raise DataError(
            f"Too few measurements to fit {name}. Number of different files: {counts}.{words_left_out(left)}",
            expected=f"at least {MIN_FILES} files with one set of kernels.",
            fix="measure more models, small and large ones, float and int8: edgeprune bench FILE.tflite.",
        )
    kept = base.latency.kernels if base.latency.kernels in fitted else next(iter(fitted))
    model = LatencyModel(
        version=f"{base.latency.version}-{name}",
        kernels=kept,
        builtin=fitted.get("builtin"),
        xnnpack=fitted.get("xnnpack"),
    )
    title = f"{devices[0]}, fitted from {base.name}"
    return base.model_copy(update={"name": name, "title": title, "aliases": (), "latency": model})


def propose(
    base: Target, measurements: Sequence[Measurement], files: Sequence[Path], count: int = PROPOSED
) -> list[tuple[Path, float]]:
    """Which files to measure next: those that say most about coefficients that the measurements leave open.

    Args:
        base: the target that the fit starts from.
        measurements: what there is already.
        files: candidates; those that were measured are left out.
        count: how many to propose, at most.

    Returns:
        Best first; with each the standard deviation of its estimate now, as a fraction of it.
    """
    assert base.latency is not None
    kernels = _most_measured(base, measurements)
    used = _of(measurements, kernels)
    prior = cpu_vector(getattr(base.latency, kernels))
    samples = _samples(base, kernels, used)
    theta = latency_fit.fit(samples, prior)
    open_ = latency_fit.covariance(samples, theta)
    contents = {path: read_bytes(path) for path in files}
    known, device, threads = _files(used), used[0].device, used[0].threads
    candidates = [
        Measurement(path, digest, device, kernels, threads, 1.0, parse(content, name=str(path)).subgraphs[0])
        for path, content in contents.items()
        if (digest := hashlib.sha256(content).hexdigest()) not in known
    ]
    if not candidates:
        return []
    rows = _samples(base, kernels, candidates)
    spread = latency_fit.uncertainty(rows, theta, open_)
    chosen = latency_fit.most_informative(rows, theta, open_, count)
    return [(candidates[index].file, float(np.expm1(spread[index]))) for index in chosen]


def _most_measured(base: Target, measurements: Sequence[Measurement]) -> CpuKernelSet:
    assert base.latency is not None
    known = [kernels for kernels in PARALLEL if getattr(base.latency, kernels)]
    return max(known, key=lambda kernels: len(_files(_of(measurements, kernels))))


def _of(measurements: Sequence[Measurement], kernels: CpuKernelSet) -> list[Measurement]:
    return [one for one in measurements if one.kernels == kernels]


def _files(measurements: Sequence[Measurement]) -> set[str]:
    return {one.sha256 for one in measurements}


def _fit(base: Target, kernels: CpuKernelSet, measurements: Sequence[Measurement]) -> CpuLatency:
    assert base.latency is not None
    table: CpuLatency = getattr(base.latency, kernels)
    samples, prior = _samples(base, kernels, measurements), cpu_vector(table)
    theta = latency_fit.fit(samples, prior)
    files = np.array([one.sha256 for one in measurements])
    count, factor, error = len(set(files)), table.range_factor, None
    note: str | None = f"{count} files are too few for a range of their own; it is that of {base.name}"
    if count >= ENOUGH_FILES:
        residuals = latency_fit.left_out(samples, prior, files)
        factor, error = latency_fit.range_factor(residuals, files), float(np.median(np.abs(np.expm1(residuals))))
        note = None
    seconds, serial = cpu_seconds(theta)
    return CpuLatency(
        how=f"fitted by `edgeprune targets fit` to {len(files)} measurements of {count} files on "
        f"{measurements[0].device}; starting from {base.name}",
        origin="fitted",
        measurements=len(files),
        range_factor=round(factor, 3),
        range_note=note,
        heldout_median_error=None if error is None else round(error, 4),
        serial_fraction=serial,
        seconds_per=seconds,
    )


def _samples(base: Target, kernels: CpuKernelSet, measurements: Sequence[Measurement]) -> latency_fit.Samples:
    caches = caches_of(base)
    rows = [
        cpu_amounts(works(one.graph, kernels, caches, sparse_operators(one.graph, base.runtime)))
        for one in measurements
    ]
    files, counts = np.unique([one.sha256 for one in measurements], return_counts=True)
    shared = dict(zip(files, counts**-0.5, strict=True))  # the repeats of one file share one weight
    cores = base.cpu.cores if base.cpu else max(one.threads for one in measurements)
    return latency_fit.Samples(
        amounts=np.array(rows),
        parallel=np.array([term in PARALLEL[kernels] for _, term in COLUMNS]),
        threads=np.array([float(min(one.threads, cores)) for one in measurements]),
        seconds=np.array([one.seconds for one in measurements]),
        weights=np.array([shared[one.sha256] for one in measurements]),
    )
