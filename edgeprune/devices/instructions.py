"""Count the instructions of one inference on the emulated board, of the whole file and per operator."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprune.devices.emulator import LOG
from edgeprune.devices.emulator_job import run_job
from edgeprune.devices.protocol import Device, Job, broken_off
from edgeprune.errors import DeviceError, UsageError
from edgeprune.files import JsonObject

# After these inferences the runtime has packed its weights, and the allocator returns the same blocks every time.
WARMUP = 5
_MARK = re.compile(r"^mark (\d+)$", re.MULTILINE)
_OUTPUTS = "outputs.npz"
# The runtime's choice, and its built-in kernels; an Edge TPU cannot be emulated.
_DELEGATES = ("default", "builtin")


def measure(device: Device, job: Job) -> list[JsonObject]:
    """Count the instructions of one inference per file; see :data:`edgeprune.devices.protocol.Tool`.

    ``runs`` and ``rounds`` of the job are ignored, because a count does not vary.

    Returns:
        One result per file: device, runtime, threads, kernels, warmup, instructions (of one inference on random input,
        after ``warmup`` others), outputs_sha256, and ``outputs`` for a job with samples;
        with ``profile_operators``, ``operators`` as :func:`by_operator` gives them, but not for XNNPACK's kernels on
        weights that are stored sparse. There is no time in it.

    Raises:
        UsageError: more than one thread, or a delegate that is not there.
        ModelError: the runtime refuses a file.
        MissingError: the emulated board is not set up.
        DeviceError: it did not end in time, or crashed.
    """
    if job.threads != 1:
        raise UsageError(
            f"On the emulated board, counts with {job.threads} threads are not repeatable.", expected="--threads 1."
        )
    if job.delegate not in _DELEGATES:
        raise UsageError(
            f"The emulated board has no delegate {job.delegate!r}.", expected=f"one of: {', '.join(_DELEGATES)}."
        )
    # One process per file: an earlier file would change the state of the allocator, and with it the count.
    results: list[JsonObject] = []
    try:
        for file in job.files:
            results += _count(device, [file], job.delegate, job.samples)
        for file, result in zip(job.files, results if job.profile_operators else (), strict=False):
            if job.delegate == "builtin" or not _is_sparse(file):
                result["operators"] = by_operator(device, file, job.delegate)
    except DeviceError as error:
        error.results = broken_off(results)
        raise
    return results


def by_operator(device: Device, file: Path, delegate: str = "default") -> list[JsonObject]:
    """Instructions per operator of a file's main subgraph: the count up to the operator minus the count before it.

    The sum differs from the count of the whole file by some hundreds of instructions. The first operator includes the
    cost of calling the interpreter. A runtime that transforms the graph as a whole (sparse inference in XNNPACK) does
    so only when the graph is complete. Then the differences mean nothing, the last one can be negative, and some
    prefixes do not run.

    Returns:
        In the order in which they run: type ('CONV_2D'), name (of the first output), instructions.
    """
    from edgeprune.tflite.flatbuffer import parse, read_bytes
    from edgeprune.tflite.prefixes import prefixes

    content = read_bytes(file)
    graph = parse(content, str(file)).subgraphs[0]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        files = []
        for number, prefix in enumerate(prefixes(content)):
            files.append(Path(folder) / f"prefix{number}.tflite")
            files[-1].write_bytes(prefix)
        counts = [0, *(result["instructions"] for result in _count(device, files, delegate, None))]
    parts = np.diff(counts).tolist()
    return [
        {
            "type": operator.name,
            "name": graph.tensors[operator.outputs[0]].name if operator.outputs else "",
            "instructions": part,
        }
        for operator, part in zip(graph.operators, parts, strict=True)
    ]


def _is_sparse(file: Path) -> bool:
    from edgeprune.tflite.flatbuffer import read

    return any(tensor.sparsity for tensor in read(file).subgraphs[0].tensors)


def _count(device: Device, files: Sequence[Path], delegate: str, samples: Path | None) -> list[JsonObject]:
    job = {
        "models": [device.push(file, f"model{number}.tflite") for number, file in enumerate(files)],
        "warmup": WARMUP,
        "delegate": delegate,
        "samples": device.push(samples, "samples.npz") if samples else None,
        "outputs": _OUTPUTS,
    }
    found = run_job(device, job)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        device.pull(LOG, Path(folder) / LOG)
        counts = instructions((Path(folder) / LOG).read_text("utf-8"), len(files))
        outputs = _outputs(device, Path(folder) / _OUTPUTS, len(files)) if samples else None
    facts = {"device": f"emulator: {device.info().name}", "threads": 1, "warmup": WARMUP}
    results = [{**facts, **result, "instructions": count} for result, count in zip(found, counts, strict=True)]
    for result, arrays in zip(results, outputs or [], strict=False):
        result["outputs"] = arrays
    return results


def instructions(log: str, files: int) -> list[int]:
    """Instructions of the counted inference of each file, minus those of an empty pair of marks.

    Args:
        log: written by the plugin, with a line 'mark COUNT' per mark. Marks come in pairs: WARMUP + 1 pairs around
            nothing, then as many for each file.
        files: number of files that were run.

    Raises:
        DeviceError: marks are missing.
    """
    marks = np.array(_MARK.findall(log), np.int64)
    each = WARMUP + 1
    if len(marks) != 2 * each * (files + 1):
        raise DeviceError(
            f"The count is not complete: the plugin saw {len(marks)} marks.",
            expected=f"{2 * each * (files + 1)} marks.",
            fix="please report this with the version of QEMU.",
        )
    pairs = np.diff(marks.reshape(-1, each, 2)[:, -1])[:, 0]
    return (pairs[1:] - pairs[0]).tolist()


def _outputs(device: Device, path: Path, files: int) -> list[list[np.ndarray]]:
    device.pull(_OUTPUTS, path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    names = [[name for name in arrays if name.startswith(f"y{number}_")] for number in range(files)]
    return [[arrays[f"y{number}_{index}"] for index in range(len(mine))] for number, mine in enumerate(names)]
