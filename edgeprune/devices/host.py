"""The machine at hand as a device: its processor, and the latency of a .tflite on it."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.devices.runtime import Kernels, Runtime, find_runtime, is_delegated
from edgeprune.errors import UsageError

MIN_RUNS = 50
# A fast model is run more often than asked, until either is reached.
_MAX_RUNS = 500
_MAX_SECONDS = 0.5


def cpu_model() -> str:
    """The name of this machine's processor, as the operating system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text("utf-8", "replace").splitlines() if ":" in line)
        for name, value in fields.items():
            if name.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine()


def measure_latency(
    path: str | Path,
    *,
    threads: int = 1,
    kernels: Kernels = "default",
    runs: int = MIN_RUNS,
    warmup: int = 5,
    runtime: Runtime | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Time single inferences of a .tflite on random input; only ``invoke`` is in the time.

    Args:
        threads: that one inference may use.
        kernels: 'default', what the runtime chooses, or 'builtin', without XNNPACK.
        runs: inferences to time, at least 50; fast models are run more often.
        warmup: inferences before the first that is timed, at least one.
        runtime: None for the first that is installed.
        seed: of the random input.

    Returns:
        device, runtime, threads, kernels ('xnnpack' or 'builtin': what really ran), runs, warmup, median_ms, p95_ms,
        min_ms, max_ms, mean_ms, std_ms.

    Raises:
        UsageError: too few runs or warm-ups.
        ModelError: the file is damaged or has operators that the runtime cannot run.
    """
    if runs < MIN_RUNS or warmup < 1:
        raise UsageError(
            f"{runs} runs after {warmup} warm-ups are too few to measure a latency.",
            expected=f"at least {MIN_RUNS} runs and 1 warm-up.",
        )
    runtime = runtime or find_runtime()
    interpreter = runtime.interpreter(path, threads=threads, kernels=kernels)
    generator = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], random_input(detail, generator))
    for _ in range(warmup):
        interpreter.invoke()
    times_ms = _time_ms(interpreter, runs)
    return {
        "device": f"host: {cpu_model()}",
        "runtime": runtime.version,
        "threads": threads,
        "kernels": "xnnpack" if is_delegated(interpreter) else "builtin",
        "runs": len(times_ms),
        "warmup": warmup,
        "median_ms": float(np.median(times_ms)),
        "p95_ms": float(np.percentile(times_ms, 95)),
        "min_ms": float(times_ms.min()),
        "max_ms": float(times_ms.max()),
        "mean_ms": float(times_ms.mean()),
        "std_ms": float(times_ms.std()),
    }


def random_input(detail: dict[str, Any], generator: np.random.Generator) -> np.ndarray:
    """Random values for an input: [0, 1) in floats, the whole range in 8 and 16 bits, zeros in wider integers.

    Wider integers are indices and lengths, which may not lead beyond a table.
    """
    dtype, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
    if dtype.kind == "f":
        return generator.random(shape, np.float32).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)


def _time_ms(interpreter: Any, runs: int) -> np.ndarray:
    times_ns: list[int] = []
    total_ns = 0
    while len(times_ns) < runs or (len(times_ns) < _MAX_RUNS and total_ns < _MAX_SECONDS * 1e9):
        start = time.perf_counter_ns()
        interpreter.invoke()
        times_ns.append(time.perf_counter_ns() - start)
        total_ns += times_ns[-1]
    return np.asarray(times_ns) / 1e6
