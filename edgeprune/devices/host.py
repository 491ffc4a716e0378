"""This machine as a device, and the latency of a .tflite on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeprune.devices.protocol import Completed, Device, Info, plain_name
from edgeprune.errors import DeviceError, UsageError
from edgeprune.external import execute
from edgeprune.files import JsonObject
from edgeprune.runtime import runner
from edgeprune.runtime.interpreter import INTERPRETER, KernelChoice, Runtime, find_runtime
from edgeprune.runtime.runner import cpu_model, random_input

__all__ = ["MIN_RUNS", "Host", "cpu_model", "measure_latency", "random_input"]

MIN_RUNS = 50


class Host(Device):
    """This machine: files are copied to a temporary folder, programs run as child processes."""

    python = sys.executable

    def __init__(self, address: str):
        super().__init__(address)
        if address != "host":
            raise UsageError(f"{address!r} is not the address of a device.", expected="host, and nothing after it.")
        self._folder: Path | None = None

    def connect(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=runner.FOLDER_PREFIX))

    def info(self) -> Info:
        import platform

        return Info(cpu_model(), platform.machine(), f"{platform.system()} {platform.release()}")

    def push(self, local: Path, name: str) -> str:
        assert self._folder is not None
        return str(shutil.copyfile(local, self._folder / plain_name(name)))

    def run(self, arguments: Sequence[str], *, timeout_s: float) -> Completed:
        fix = f"check that {arguments[0]} is installed."
        ended = execute(arguments, timeout_s=timeout_s, fix=fix, cwd=self._folder, stdin=subprocess.PIPE)
        if ended.code is None:
            raise DeviceError(f"The program did not end within {timeout_s:g} s.", output=ended.stdout)
        return Completed(ended.code, ended.stdout, ended.stderr.decode("utf-8", "replace"))

    def pull(self, name: str, local: Path) -> None:
        assert self._folder is not None
        shutil.copyfile(self._folder / plain_name(name), local)

    def close(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def measure_latency(
    path: str | Path,
    *,
    threads: int = 1,
    kernels: KernelChoice = "default",
    runs: int = MIN_RUNS,
    warmup: int = 5,
    runtime: Runtime | None = None,
    seed: int = 0,
) -> JsonObject:
    """Time single inferences of a .tflite on random input, without setting inputs and reading outputs.

    Args:
        path: the .tflite.
        threads: number of threads that one inference may use.
        kernels: see :data:`~edgeprune.runtime.interpreter.KernelChoice`.
        runs: number of inferences to time, at least 50; fast models are run more often.
        warmup: number of inferences that are not timed, at least one.
        runtime: None for the first that is installed.
        seed: of the random input.

    Returns:
        device, runtime, threads, kernels ('xnnpack' or 'builtin', whichever really ran), runs, warmup, median_ms,
        p5_ms, p95_ms, min_ms, max_ms, mean_ms, std_ms.

    Raises:
        UsageError: too few runs or warm-ups.
        ModelError: the file is damaged or has operators that the runtime cannot run.
    """
    if runs < MIN_RUNS or warmup < 1:
        raise UsageError(
            f"{runs} runs after {warmup} warm-ups are too few to measure a latency.",
            expected=f"at least {MIN_RUNS} runs and 1 warm-up.",
        )
    return INTERPRETER.call(_time, path, threads, kernels, runs, warmup, runtime or find_runtime(), seed)


def _time(
    path: str | Path, threads: int, kernels: KernelChoice, runs: int, warmup: int, runtime: Runtime, seed: int
) -> JsonObject:
    interpreter = runtime.interpreter(path, threads=threads, kernels=kernels)
    runner.set_random_inputs(interpreter, seed)
    for _ in range(warmup):
        interpreter.invoke()
    return {
        "device": f"host: {cpu_model()}",
        "runtime": runtime.version,
        "threads": threads,
        "kernels": runner.kernels_of(interpreter, kernels),
        "warmup": warmup,
        **runner.summary(runner.time_ms(interpreter.invoke, runs)),
    }
