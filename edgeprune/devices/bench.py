"""Measure .tflite files on a device, each by itself or two in turns; the work of ``edgeprune bench``."""

from __future__ import annotations

import dataclasses
import datetime
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.devices.comparison import ROUNDS, ratio
from edgeprune.devices.protocol import Device, Job, open_device, tool_of
from edgeprune.errors import DeviceError, UsageError
from edgeprune.files import JsonObject, sha256_file

if TYPE_CHECKING:
    from edgeprune.evaluate.sample import Sample
    from edgeprune.target import Target


def bench(
    address: str,
    job: Job,
    *,
    compare: bool = False,
    target: str | None = None,
    sample: Sample | None = None,
    keep: Callable[[JsonObject], None] = lambda result: None,
) -> JsonObject:
    """Measure files on a device.

    Args:
        address: of the device.
        job: files and settings; its ``samples`` are set here.
        compare: measure two files in turns, so that what slows the device for a while slows both.
        target: the board's name, which is noted with the results.
        sample: to run on the device and on this machine; None for latency only.
        keep: called with each result as soon as it is known, also with that of an interrupted run.

    Returns:
        ``device`` {address, name, machine, system}; ``results``: one per file, in order, with file, sha256, bytes,
        target, created, the figures of the tool (see :mod:`edgeprune.devices.python_runner` and
        :mod:`edgeprune.devices.benchmark_model`), with a sample ``accuracy``, and where the job says so ``explained``
        (:func:`edgeprune.devices.explain.explain`); ``comparison``
        {a, b, ratio, low, high, confidence, rounds}, for counts {a, b, instructions_ratio}, or None; ``warnings``.

    Raises:
        UsageError: ``compare`` without exactly two files.
        ModelError: a file is damaged or does not run on the device.
        MissingError: the device, or something on it, is missing. The ``results`` of a DeviceError are what was measured
            until then.
    """
    if compare and len(job.files) != 2:
        raise UsageError(f"--compare takes two files, not {len(job.files)}.", expected="--compare A.tflite B.tflite.")
    for file in job.files:
        _check(file)
    jobs = [job] if compare else [dataclasses.replace(job, files=(file,)) for file in job.files]
    results: list[JsonObject] = []
    try:
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder, open_device(address) as device:
            if sample:
                sample.write(Path(folder) / "samples.npz")
            info = device.info()
            for part in jobs:
                if sample:
                    part = dataclasses.replace(part, samples=Path(folder) / "samples.npz")
                results += _measure(device, part, target, keep)
    except DeviceError as error:
        error.results = [*results, *error.results]
        _add_accuracy(error.results, sample)
        raise
    _add_accuracy(results, sample)
    return {
        "device": {"address": address, **dataclasses.asdict(info)},
        "results": results,
        "comparison": _comparison(results) if compare else None,
        "warnings": [*_warnings(results, job), *(sample.warnings if sample else ())],
    }


def _measure(device: Device, job: Job, target: str | None, keep: Callable[[JsonObject], None]) -> list[JsonObject]:
    rounds = max(job.rounds, ROUNDS if len(job.files) > 1 else 1)
    try:
        found = tool_of(device)(device, dataclasses.replace(job, rounds=rounds))
    except DeviceError as error:
        error.results = [_named(job.files[result.pop("model")], result, target) for result in error.results]
        for result in error.results:
            keep(result)
        raise
    results = [_named(file, result, target) for file, result in zip(job.files, found, strict=True)]
    for result in results:
        keep(result)
    if job.explain:
        _explain(device, job, job.explain, results)
    return results


def _explain(device: Device, job: Job, board: Target, results: Sequence[JsonObject]) -> None:
    """Add where the time goes on a board to what was counted."""
    from edgeprune.devices.explain import explain

    try:
        for file, result in zip(job.files, results, strict=True):
            result["explained"] = explain(device, file, job.delegate, board)
    except DeviceError as error:
        error.results = list(results)
        raise


def _named(file: Path, result: JsonObject, target: str | None) -> JsonObject:
    return {
        "file": os.fspath(file),
        "sha256": sha256_file(file),
        "bytes": file.stat().st_size,
        "target": target,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **result,
    }


def _check(file: Path) -> None:
    """Refuse a damaged file, which could crash the runtime on the device."""
    from edgeprune.tflite.flatbuffer import parse, read_bytes

    parse(read_bytes(file), name=str(file))


def _add_accuracy(results: Sequence[JsonObject], sample: Sample | None) -> None:
    from edgeprune.evaluate.sample import compare_outputs, host_outputs

    for result in results:
        outputs = result.pop("outputs", None)
        if sample is None or outputs is None:
            continue
        # A file that was compiled for an accelerator does not run on this machine.
        host = None if result["kernels"] == "edgetpu" else host_outputs(Path(result["file"]), sample)
        result["accuracy"] = compare_outputs(outputs, host, sample, Path(result["file"]))


def _comparison(results: Sequence[JsonObject]) -> JsonObject:
    from edgeprune.devices.explain import compare

    a, b = results
    if "instructions" in a:
        counted = {"a": a["file"], "b": b["file"], "instructions_ratio": b["instructions"] / a["instructions"]}
        return {**counted, "explained": compare(a["explained"], b["explained"])} if "explained" in a else counted
    return {"a": a["file"], "b": b["file"], **ratio(a["rounds_ms"], b["rounds_ms"])}


def _warnings(results: Sequence[JsonObject], job: Job) -> Iterator[str]:
    for result in results:
        name = Path(result["file"]).name
        for moment in ("before", "after"):
            state = (result.get(moment) or {}).get("throttling")
            if state:
                yield (
                    f"{name}: {moment} the runs, the board reported: {', '.join(state)}. The times may be too long; "
                    "check its power supply and cooling."
                )
        if result.get("delegated") in ("none", "some"):
            yield (f"{name}: {result['delegated']} of the operators ran on {job.delegate}; the others ran on the CPU.")
        if job.profile_operators and "instructions" in result and "operators" not in result:
            yield (
                f"{name}: there is no table of operators, because its weights are stored sparse, and sparse kernels "
                "run only in the whole graph. --delegate builtin gives a table for the built-in kernels."
            )
        if "median_ms" in result and result["median_ms"] is None:
            yield f"{name}: this release of benchmark_model prints no median, so no row is added to the CSV table."
