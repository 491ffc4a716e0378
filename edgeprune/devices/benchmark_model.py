"""Measure on Android with TensorFlow Lite's benchmark_model, which the user provides.

Options and output: tensorflow/tensorflow, tensorflow/lite/tools/benchmark/README.md and benchmark_model.cc; the table
of operators: tensorflow/core/util/stats_calculator.cc. Releases differ: newer ones put "INFO: " before their lines,
add p5, median and p95, and leave the column [start] out. The tool of the same name for LiteRT's CompiledModel prints a
block of results instead: google-ai-edge/LiteRT@15bfaa8b, litert/tools/benchmark_litert_model.h, and its README.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.devices.protocol import Device, Job
from edgeprune.errors import DeviceError, MissingError, ModelError, UsageError
from edgeprune.files import JsonObject, sha256_file

ON_DEVICE = "/data/local/tmp/benchmark_model"
TIMEOUT_S = 600.0
WARMUP = 5
FLAGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "xnnpack": ("--use_xnnpack=true",),
    "builtin": ("--use_xnnpack=false",),
    "gpu": ("--use_gpu=true",),
    "nnapi": ("--use_nnapi=true",),
}
_NUMBER = r"[-+\d.e]+"
_COUNT = re.compile(rf"count=(\d+)((?: \w+={_NUMBER})+)")
_TIMINGS = re.compile(rf"Inference timings in us: Init: ({_NUMBER}), First inference: ({_NUMBER}),")
_AVERAGE = re.compile(rf"Inference \(avg\): ({_NUMBER})")
# "Peak memory footprint" until 2.3, then "Memory footprint delta from the start of the tool"
_MEMORY = re.compile(rf"emory footprint.*\(MB\): init=({_NUMBER}) overall=({_NUMBER})")
# Of the tool for CompiledModel: a line 'NAME: VALUE ms', in older releases with another name of the first inference.
_RESULTS = re.compile(r"=+ BENCHMARK RESULTS =+(.*)", re.DOTALL)
_RESULT = rf"{{}}:\s+({_NUMBER})"
_OF_COMPILED = {"mean": "avg", "min": "min", "max": "max", "std": "std"}
_RUNS = re.compile(rf"Inference \(avg\):\s+{_NUMBER} ms \((\d+) runs\)")
_DELEGATED = {
    "all": re.compile("will be completely executed by the delegate"),
    "some": re.compile("will be partially executed by the delegate"),
    "none": re.compile("will not be executed by the delegate"),
}
_XNNPACK = re.compile("Created TensorFlow Lite XNNPACK delegate")
_OPERATORS = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_HEADLINE = re.compile(r"=+ (.+?) =+")
_REFUSED = re.compile(
    r"Failed to (?:load|construct|initialize|allocate|apply).*|.*Didn't find op.*|Benchmarking failed.*"
)
_WHERE = (
    "download android_aarch64_benchmark_model, linked at https://ai.google.dev/edge/litert/models/measurement, or "
    "build it (bazel build -c opt --config=android_arm64 //tensorflow/lite/tools/benchmark:benchmark_model), and give "
    "it with --benchmark-binary."
)


@dataclass(frozen=True)
class Printed:
    """The figures that benchmark_model printed in one run; None for what its release does not print.

    Attributes:
        times_ms: median_ms, mean_ms, std_ms, min_ms, max_ms, p5_ms, p95_ms.
        xnnpack: whether XNNPACK was created.
        delegated: 'all', 'some' or 'none' of the operators, if a delegate was asked for.
        operators: type, name, mean_ms, calls and memory_bytes (added by it) of each, in order.
    """

    runs: int
    times_ms: dict[str, float | None]
    init_ms: float
    first_ms: float
    init_bytes: int | None
    peak_bytes: int | None
    xnnpack: bool
    delegated: str | None
    operators: list[JsonObject] = field(default_factory=list)


def parse(text: str) -> Printed:
    """Read what benchmark_model printed.

    Raises:
        ValueError: there is no result in it.
    """
    if block := _RESULTS.search(text):
        return _compiled_model(block[1], text)
    timings = _TIMINGS.search(text)
    # A profile, which follows, has lines of counts, too; the warm-up's stands before that of the run.
    counts = list(_COUNT.finditer(text[: timings.start()])) if timings else []
    if not timings or not counts:
        raise ValueError("no line 'Inference timings in us'")
    printed = {key: float(value) / 1e3 for key, value in (pair.split("=") for pair in counts[-1][2].split())}
    average = _AVERAGE.search(text, timings.start())
    mean = printed.get("avg", float(average[1]) / 1e3 if average else None)
    names = {"median_ms": "median", "std_ms": "std", "min_ms": "min", "max_ms": "max", "p5_ms": "p5", "p95_ms": "p95"}
    memory = _MEMORY.search(text)
    return Printed(
        runs=int(counts[-1][1]),
        times_ms={"mean_ms": mean, **{ours: printed.get(theirs) for ours, theirs in names.items()}},
        init_ms=float(timings[1]) / 1e3,
        first_ms=float(timings[2]) / 1e3,
        init_bytes=round(float(memory[1]) * 2**20) if memory else None,
        peak_bytes=round(float(memory[2]) * 2**20) if memory else None,
        xnnpack=bool(_XNNPACK.search(text)),
        delegated=next((share for share, pattern in _DELEGATED.items() if pattern.search(text)), None),
        operators=list(_operators(text)),
    )


def _compiled_model(block: str, text: str) -> Printed:
    """What the tool for CompiledModel printed; it gives no median and no percentiles."""

    def value(name: str) -> float | None:
        found = re.search(_RESULT.format(name), block)
        return float(found[1]) if found else None

    runs = _RUNS.search(block)
    init_ms, first_ms = value("Model initialization"), value(r"(?:First inference|Warmup \(first\))")
    if runs is None or init_ms is None or first_ms is None:
        raise ValueError("the block BENCHMARK RESULTS has no line 'Inference (avg)'")
    times = {f"{name}_ms": value(rf"Inference \({theirs}\)") for name, theirs in _OF_COMPILED.items()}
    init_mb, peak_mb = value("Init footprint"), value("Overall footprint")
    return Printed(
        runs=int(runs[1]),
        times_ms={**dict.fromkeys(("median_ms", "p5_ms", "p95_ms")), **times},
        init_ms=init_ms,
        first_ms=first_ms,
        init_bytes=None if init_mb is None else round(init_mb * 2**20),
        peak_bytes=None if peak_mb is None else round(peak_mb * 2**20),
        xnnpack=bool(_XNNPACK.search(text)),
        delegated=next((share for share, pattern in _DELEGATED.items() if pattern.search(text)), None),
    )


def _operators(text: str) -> Iterator[JsonObject]:
    """The rows of the table "Run Order" of the regular runs; columns are found by their names."""
    section, header = "", None
    for line in text.partition(_OPERATORS)[2].splitlines():
        if headline := _HEADLINE.search(line):
            section, header = headline[1], None
        cells = [cell.strip() for cell in line.strip().split("\t")]
        if section != "Run Order" or len(cells) < 3:
            continue
        if header is None:
            header = [cell.strip("[]") for cell in cells]
            continue
        row = dict(zip(header, cells, strict=False))
        yield {
            "type": row["node type"],
            "name": row["Name"],
            "mean_ms": float(row["avg ms"]),
            "calls": int(row["times called"]),
            "memory_bytes": round(float(row["mem KB"]) * 1e3),
        }


def measure(device: Device, job: Job) -> list[JsonObject]:
    """Time files with benchmark_model; see :data:`edgeprune.devices.protocol.Tool`.

    Returns:
        Also: init_ms, first_ms, mean_ms, init_bytes and peak_bytes (what the tool's memory grew by),
        delegated, operators. ``median_ms`` is None where the release prints no median; with several rounds, it is the
        median of theirs, and percentiles and deviation are None.

    Raises:
        UsageError: a delegate that it does not know, or samples, which it cannot run.
        MissingError: there is no benchmark_model.
        ModelError: it refuses a file.
        DeviceError: the device went away.
    """
    if job.delegate not in FLAGS:
        raise UsageError(f"{device.address} has no delegate {job.delegate!r}.", expected=f"one of: {', '.join(FLAGS)}.")
    if job.samples:
        raise UsageError("benchmark_model on Android measures latency, not accuracy.", fix="leave out --data.")
    info = device.info()
    binary, version = _binary(device, job.benchmark_binary)
    paths = [device.push(file, f"model{number}.tflite") for number, file in enumerate(job.files)]
    facts = {"device": f"adb: {info.name}", "runtime": f"benchmark_model {version}", "threads": job.threads}
    reports: list[list[Printed]] = [[] for _ in paths]
    order = list(enumerate(paths))
    each = max(1, -(-job.runs // job.rounds))
    try:
        for number in range(job.rounds):
            # Every other round in reverse order, so that a steady drift cancels in each pair.
            for index, path in order if number % 2 == 0 else order[::-1]:
                reports[index].append(_run(device, binary, path, each, job))
    except DeviceError as error:
        done = [(index, part) for index, part in enumerate(reports) if part]
        error.results = [{**_result(part, job, facts), "complete": False, "model": index} for index, part in done]
        raise
    return [_result(part, job, facts) for part in reports]


def _binary(device: Device, local: Path | None) -> tuple[str, str]:
    """Path of benchmark_model on the device, and the start of its SHA-256, as it does not print its release."""
    if local:
        if not local.is_file():
            raise MissingError(f"The file {local} of --benchmark-binary does not exist.", fix=_WHERE)
        path, digest = device.push(local, "benchmark_model"), sha256_file(local)
        device.run(["chmod", "700", path], timeout_s=30)
        return path, digest[:12]
    # Through sh: on older Androids, test is no program of its own.
    if device.run(["sh", "-c", '[ -x "$0" ]', ON_DEVICE], timeout_s=30).code:
        raise MissingError(f"There is no {ON_DEVICE} on {device.address}.", fix=_WHERE)
    digest = device.run(["sha256sum", ON_DEVICE], timeout_s=60).stdout.decode("utf-8", "replace")
    return ON_DEVICE, digest[:12]


def _run(device: Device, binary: str, path: str, runs: int, job: Job) -> Printed:
    arguments = [
        binary,
        f"--graph={path}",
        f"--num_threads={job.threads}",
        f"--num_runs={runs}",
        f"--warmup_runs={WARMUP}",
        *FLAGS[job.delegate],
        *(["--enable_op_profiling=true"] if job.profile_operators else []),
    ]
    # Its lines go to both streams, and their order matters.
    done = device.run(["sh", "-c", 'exec "$@" 2>&1', "sh", *arguments], timeout_s=TIMEOUT_S)
    text = done.stdout.decode("utf-8", "replace")
    try:
        return parse(text)
    except ValueError as error:
        refused = _REFUSED.search(text)
        said = "".join(c if c.isprintable() else " " for c in (refused[0] if refused else text.strip()[-300:]))
        if refused:
            raise ModelError(f"benchmark_model on {device.address} cannot run the file: {said}.") from None
        raise MissingError(
            f"benchmark_model on {device.address} ended with exit code {done.code}: {said or error}.",
            expected="benchmark_model of TensorFlow 2.2 or newer, or of LiteRT, for that processor.",
            fix=_WHERE,
        ) from None


def _result(reports: list[Printed], job: Job, facts: JsonObject) -> JsonObject:
    import numpy as np

    first, single = reports[0], len(reports) == 1
    typical = [report.times_ms["median_ms"] or report.times_ms["mean_ms"] for report in reports]
    medians = [report.times_ms["median_ms"] for report in reports]
    times: dict[str, float | None] = dict(first.times_ms)
    if not single:
        times = {
            "median_ms": None if None in medians else float(np.median(medians)),  # type: ignore[arg-type]
            "mean_ms": float(
                np.average([r.times_ms["mean_ms"] or 0.0 for r in reports], weights=[r.runs for r in reports])
            ),
            "min_ms": min((r.times_ms["min_ms"] for r in reports if r.times_ms["min_ms"]), default=None),
            "max_ms": max((r.times_ms["max_ms"] for r in reports if r.times_ms["max_ms"]), default=None),
            "std_ms": None,
            "p5_ms": None,
            "p95_ms": None,
        }
    asked = job.delegate in ("gpu", "nnapi") and first.delegated != "none"
    return {
        **facts,
        "complete": True,
        "kernels": job.delegate if asked else "xnnpack" if first.xnnpack else "builtin",
        "delegated": first.delegated,
        "runs": sum(report.runs for report in reports),
        "warmup": WARMUP,
        "init_ms": first.init_ms,
        "first_ms": first.first_ms,
        **times,
        "init_bytes": first.init_bytes,
        "peak_bytes": first.peak_bytes,
        "operators": first.operators,
        "rounds_ms": [[value] for value in typical],
    }
