#!/usr/bin/env python3
"""Time .tflite files on the machine that this script runs on, and print the results and the machine's state as JSON.

A board needs this file, Python 3.9 or newer, NumPy and one of ai-edge-litert, tflite-runtime or TensorFlow.
``edgeprune bench`` copies it there; it can also be copied by hand::

    python3 runner.py model.tflite --threads 4

``edgeprune build`` uses the same functions on the machine that builds. Nothing else of edgeprune is imported when it
runs.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # the board has no edgeprune
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from edgeprune.runtime.api import Interpreter, RuntimeModule, TensorDetails

# Package → the module to look for, and the module with its Interpreter and OpResolverType, in the order in which they
# are tried: ai-edge-litert is tflite-runtime under its new name; importing TensorFlow takes seconds.
RUNTIMES = {
    "ai-edge-litert": ("ai_edge_litert", "ai_edge_litert.interpreter"),
    "tflite-runtime": ("tflite_runtime", "tflite_runtime.interpreter"),
    "tensorflow": ("tensorflow", "tensorflow.lite.python.interpreter"),
}
# Delegate → the op resolver, and the shared library to load. AUTO lets the runtime apply its default delegate, XNNPACK.
DELEGATES = {
    "default": ("AUTO", None),
    "builtin": ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", None),
    "compiled": ("AUTO", None),  # no delegate of an interpreter: LiteRT's CompiledModel, see Compiled
    "edgetpu": ("AUTO", "libedgetpu.so.1"),
}
EDGETPU_SUFFIX = "_edgetpu.tflite"
# A fast model is run more often than asked, up to either limit, because the processor's clock needs time to settle.
MAX_RUNS = 500
MAX_SECONDS = 0.5
FOLDER_PREFIX = "edgeprune-"
# Bits that a Raspberry Pi's firmware reports; raspberrypi/documentation, "vcgencmd get_throttled".
THROTTLING = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage since boot",
    17: "clock capped since boot",
    18: "throttled since boot",
    19: "soft temperature limit since boot",
}
# Exit codes, the same as edgeprune's: the file is at fault, or something is missing on this machine.
MODEL, MISSING = 2, 3


class RunnerError(Exception):
    """A file cannot be measured; ``code`` is MODEL or MISSING."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class Installed(NamedTuple):
    """A runtime that is installed. ``version`` is its package and release, such as 'ai-edge-litert 2.3.0'."""

    package: str
    version: str
    module: RuntimeModule


def release(name: str, package: str) -> str:
    """The release of an installed runtime."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # another distribution of the package, such as tensorflow-cpu
        return str(importlib.import_module(package).__version__)


def installed_runtime(names: Iterable[str] = tuple(RUNTIMES)) -> Installed | None:
    """The first of the runtimes ``names`` that is installed; None when none is."""
    for name in names:
        package, module = RUNTIMES[name]
        if importlib.util.find_spec(package) is not None:
            # Its classes are those of RuntimeModule, which no runtime declares.
            loaded: Any = importlib.import_module(module)
            return Installed(name, f"{name} {release(name, package)}", loaded)
    return None


def make_interpreter(
    module: RuntimeModule,
    delegate: str = "default",
    threads: int = 1,
    keep_all_tensors: bool = False,
    **source: str | bytes,
) -> Interpreter:
    """An interpreter with its tensors allocated.

    Args:
        module: the runtime's module with ``Interpreter``.
        delegate: a name of ``DELEGATES``.
        threads: number of threads that one inference may use.
        keep_all_tensors: make intermediate tensors readable after a run.
        source: ``model_path`` or ``model_content``.

    Raises:
        ValueError, RuntimeError: the runtime refuses the file.
        RunnerError: the delegate's library is missing.
    """
    resolver, library = DELEGATES[delegate]
    delegates = None
    if library:
        try:
            delegates = [module.load_delegate(library)]
        except (ValueError, OSError) as error:
            reason = str(error).strip() or "is it installed?"
            raise RunnerError(MISSING, f"the delegate {library} cannot be loaded: {reason}") from error
    interpreter = module.Interpreter(
        num_threads=threads,
        experimental_delegates=delegates,
        experimental_op_resolver_type=getattr(module.OpResolverType, resolver),
        experimental_preserve_all_tensors=keep_all_tensors,
        **source,
    )
    interpreter.allocate_tensors()
    return interpreter


class Compiled:
    """A file in LiteRT's CompiledModel on the CPU, with those methods of ``Interpreter`` that measuring needs.

    Args:
        interpreter: of the same file, which knows the numbers of its tensors and how they are quantized.
        path: of the file.
        threads: number of threads that one inference may use.

    Raises:
        RunnerError: the runtime has no CompiledModel.
        ValueError, RuntimeError: it refuses the file.
    """

    def __init__(self, interpreter: Interpreter, path: str, threads: int):
        try:
            module: Any = importlib.import_module("ai_edge_litert.compiled_model")
            options = module.Options(cpu_options=module.CpuOptions(num_threads=threads))
        except (ImportError, AttributeError) as error:
            raise RunnerError(MISSING, "CompiledModel needs ai-edge-litert 2.1.6 or newer") from error
        self.get_input_details, self.get_output_details = interpreter.get_input_details, interpreter.get_output_details
        self._model = module.CompiledModel.from_file(path, options=options)
        signature = self._model.get_signature_by_index(0)
        inputs = self._model.get_input_tensor_details(signature["key"])
        outputs = self._model.get_output_tensor_details(signature["key"])
        self._buffers = (self._model.create_input_buffers(0), self._model.create_output_buffers(0))
        self._inputs = {inputs[name]["index"]: buffer for name, buffer in zip(signature["inputs"], self._buffers[0])}  # noqa: B905
        self._outputs = {outputs[name]["index"]: buffer for name, buffer in zip(signature["outputs"], self._buffers[1])}  # noqa: B905
        self._details = {detail["index"]: detail for detail in interpreter.get_output_details()}

    def invoke(self) -> None:
        self._model.run_by_index(0, *self._buffers)

    def set_tensor(self, tensor_index: int, value: np.ndarray) -> None:
        self._inputs[tensor_index].write(value)

    def get_tensor(self, tensor_index: int) -> np.ndarray:
        shape, dtype = tuple(self._details[tensor_index]["shape"]), self._details[tensor_index]["dtype"]
        return np.asarray(self._outputs[tensor_index].read(int(np.prod(shape)), dtype)).reshape(shape)


def delegate_of(path: str | Path, delegate: str) -> str:
    """The delegate to load for a file: unless one is named, a file compiled for the Edge TPU gets the Edge TPU's."""
    is_compiled = os.path.basename(str(path)).endswith(EDGETPU_SUFFIX)
    return "edgetpu" if delegate == "default" and is_compiled else delegate


def is_delegated(interpreter: Interpreter) -> bool:
    """Whether a delegate (XNNPACK, where none was named) has taken over at least one operator."""
    return any(details["op_name"] == "DELEGATE" for details in interpreter._get_ops_details())


def kernels_of(interpreter: Interpreter, delegate: str) -> str:
    """The kernels that really run: 'edgetpu', 'xnnpack' or 'builtin'."""
    if not is_delegated(interpreter):
        return "builtin"
    return delegate if DELEGATES[delegate][1] else "xnnpack"


def random_input(detail: TensorDetails, generator: np.random.Generator) -> np.ndarray:
    """Random values for an input: floats in [0, 1), 8- and 16-bit integers in their whole range, wider integers zero.

    Wider integers are indices and lengths, and a random one could point beyond the end of a table.
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


def set_random_inputs(interpreter: Interpreter | Compiled, seed: int = 0) -> None:
    """Fill all inputs with random values; the same values for the same seed."""
    generator = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], random_input(detail, generator))


def quantize(values: np.ndarray, detail: TensorDetails) -> np.ndarray:
    """Float values in the number format of an input."""
    dtype = detail["dtype"]
    scale, zero_point = detail["quantization"]
    if scale and issubclass(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return np.asarray(values, dtype)


def dequantize(values: np.ndarray, detail: TensorDetails) -> np.ndarray:
    """An output as float32, whatever its number format."""
    scale, zero_point = detail["quantization"]
    if scale and np.issubdtype(values.dtype, np.integer):
        return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return values.astype(np.float32)


def run_samples(interpreter: Interpreter, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs, one array [n, ...] each in float32, for samples given one after the other.

    Args:
        inputs: one array [n, ...] per input, in the order of the file.
    """
    details, results = interpreter.get_output_details(), []
    for index in range(len(inputs[0])):
        for detail, values in zip(interpreter.get_input_details(), inputs):  # noqa: B905  # Python 3.9 has no strict
            interpreter.set_tensor(detail["index"], quantize(values[index : index + 1], detail))
        interpreter.reset_all_variables()  # a fused LSTM would begin where the last sample ended
        interpreter.invoke()
        results.append([dequantize(interpreter.get_tensor(detail["index"]), detail)[0] for detail in details])
    return [np.stack([row[i] for row in results]) for i in range(len(details))]


def time_ms(invoke: Callable[[], None], runs: int, share: float = 1.0) -> np.ndarray:
    """Times of single inferences, in milliseconds.

    Args:
        invoke: runs one inference.
        runs: the smallest number of inferences to time.
        share: fraction of MAX_RUNS and MAX_SECONDS that this call may use; below 1 when a file has several rounds.
    """
    times_ns: list[int] = []
    total_ns = 0
    while len(times_ns) < runs or (len(times_ns) < MAX_RUNS * share and total_ns < MAX_SECONDS * share * 1e9):
        start = time.perf_counter_ns()
        invoke()
        times_ns.append(time.perf_counter_ns() - start)
        total_ns += times_ns[-1]
    return np.asarray(times_ns) / 1e6


def summary(times_ms: Sequence[float] | np.ndarray) -> dict[str, float | int]:
    """Statistics of times in milliseconds."""
    times = np.asarray(times_ms)
    return {
        "runs": len(times),
        "median_ms": float(np.median(times)),
        "p5_ms": float(np.percentile(times, 5)),
        "p95_ms": float(np.percentile(times, 95)),
        "min_ms": float(times.min()),
        "max_ms": float(times.max()),
        "mean_ms": float(times.mean()),
        "std_ms": float(times.std()),
    }


def cpu_model() -> str:
    """The name of this machine's processor, as the operating system gives it."""
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # The most specific name first: the last one, Hardware, is a family of chips and the same on every Raspberry Pi.
    names = [fields.get("model name"), fields.get("Model"), _read("/proc/device-tree/model")]
    names += [fields.get("CPU part") and f"CPU part {fields['CPU part']}", fields.get("Hardware")]
    return next(filter(None, names), None) or platform.processor() or platform.machine()


def circumstances() -> dict[str, Any]:
    """Clock, governor, temperature and throttling at this moment; None for what this machine does not report."""
    clocks = [_number(path) for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    known = [clock for clock in clocks if clock is not None]
    temperatures = [_number(path) for path in sorted(glob.glob("/sys/class/thermal/thermal_zone*/temp"))]
    warm = [value / 1e3 for value in temperatures if value is not None]
    return {
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock_hz": int(max(known) * 1e3) if known else None,
        "temperature_c": max(warm) if warm else None,
        "throttling": _throttling(),
    }


def _throttling() -> list[str] | None:
    if not shutil.which("vcgencmd"):
        return None
    try:
        done = subprocess.run(
            ["vcgencmd", "get_throttled"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=5, check=True
        )
        bits = int(done.stdout.decode().strip().partition("=")[2], 16)  # throttled=0x50005
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return throttling_of(bits)


def throttling_of(bits: int) -> list[str]:
    """Names of the throttling bits that a Raspberry Pi's firmware has set."""
    return [name for bit, name in THROTTLING.items() if bits >> bit & 1]


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return None


def _number(path: str) -> float | None:
    try:
        return float(_read(path) or "")
    except ValueError:
        return None


class Measured:
    """One file: loaded, run once, and then timed round by round."""

    def __init__(self, runtime: Installed, path: str, threads: int, delegate: str, warmup: int):
        self.delegate = delegate_of(path, delegate)
        self.times: list[list[float]] = []
        start = time.perf_counter_ns()
        try:
            interpreter = make_interpreter(runtime.module, self.delegate, threads, model_path=path)
            is_compiled = self.delegate == "compiled"
            self.interpreter: Any = Compiled(interpreter, path, threads) if is_compiled else interpreter
        except (ValueError, RuntimeError) as error:
            raise RunnerError(MODEL, f"{runtime.version} cannot load the file: {str(error).strip()}") from error
        init_ns = time.perf_counter_ns() - start
        set_random_inputs(self.interpreter)
        try:
            first_ms = float(time_ms(self.interpreter.invoke, 1, share=0)[0])
        except (ValueError, RuntimeError) as error:
            raise RunnerError(MODEL, f"{runtime.version} cannot run the file: {str(error).strip()}") from error
        self.facts: dict[str, Any] = {
            "runtime": f"{runtime.version}, CompiledModel" if is_compiled else runtime.version,
            "threads": threads,
            "kernels": kernels_of(interpreter, self.delegate),  # CompiledModel has the same, and does not tell
            "init_ms": init_ns / 1e6,
            "first_ms": first_ms,
            "warmup": warmup,
            "outputs_sha256": checksum(self.interpreter),
        }
        for _ in range(warmup):
            self.interpreter.invoke()

    def round(self, runs: int, share: float) -> list[float]:
        """Time one more round; its times in milliseconds."""
        self.times.append(time_ms(self.interpreter.invoke, runs, share).tolist())
        return self.times[-1]

    def result(self) -> dict[str, Any]:
        """The facts of the file, and statistics over all rounds."""
        return dict(self.facts, **summary(np.concatenate(self.times)), rounds_ms=self.times)


def checksum(interpreter: Interpreter | Compiled) -> str:
    """SHA-256 of the outputs of the last run."""
    digest = hashlib.sha256()
    for detail in interpreter.get_output_details():
        digest.update(np.ascontiguousarray(interpreter.get_tensor(detail["index"])).tobytes())
    return digest.hexdigest()


def measure(options: argparse.Namespace, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Load every file, time the files in turns, and run the samples.

    Args:
        options: of the command line.
        report: called with each intermediate result, {"event": …}, as soon as it is known.
    """
    runtime = installed_runtime()
    if runtime is None:
        raise RunnerError(MISSING, f"Python {platform.python_version()} has none of {', '.join(RUNTIMES)}")
    machine = {"cpu": cpu_model(), "machine": platform.machine(), "python": platform.python_version()}
    before = circumstances()
    report({"event": "start", "before": before, **machine})
    measured = []
    for number, path in enumerate(options.models):
        measured.append(Measured(runtime, path, options.threads, options.delegate, options.warmup))
        report({"event": "loaded", "model": number, "facts": measured[-1].facts})
    take_turns(measured, options.runs, options.rounds, report)
    after = circumstances()
    shared = {"peak_bytes": peak_bytes(), "before": before, "after": after, **machine}
    if options.samples:
        write_outputs(measured, options.samples, options.outputs)
    return {"results": [dict(one.result(), **shared) for one in measured]}


def take_turns(measured: Sequence[Measured], runs: int, rounds: int, report: Callable[[dict[str, Any]], None]) -> None:
    """Time files round by round, every other round in reverse order, so that a steady drift cancels out."""
    each = max(1, -(-runs // rounds))
    order = list(enumerate(measured))
    for number in range(rounds):
        for index, one in order if number % 2 == 0 else order[::-1]:
            times = one.round(each, 1 / rounds)
            report({"event": "round", "model": index, "times_ms": times})


def write_outputs(measured: Sequence[Measured], samples: str, outputs: str) -> None:
    """Run every file on the inputs x0, x1, … of the .npz ``samples``; write arrays y{model}_{output} to ``outputs``."""
    with np.load(samples, allow_pickle=False) as archive:
        inputs = [archive[f"x{i}"] for i in range(len(archive.files))]
    arrays: dict[str, Any] = {}
    for number, one in enumerate(measured):
        for index, values in enumerate(run_samples(one.interpreter, inputs)):
            arrays[f"y{number}_{index}"] = values
    np.savez(outputs, **arrays)


def peak_bytes() -> int:
    """The most memory that this process has used so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def stop_at_end_of_input() -> None:
    """Stop when standard input ends: the process or connection that started this one is gone then."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        leave()

    threading.Thread(target=wait, daemon=True).start()


def leave() -> None:
    """Remove the folder that was made for this run, which no other process can do any more, and exit."""
    folder = os.getcwd()
    if os.path.basename(folder).startswith(FOLDER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(MISSING)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Time .tflite files on this machine.")
    parser.add_argument("models", nargs="+", metavar="FILE.tflite", help="several files take turns")
    parser.add_argument("--threads", type=int, default=1, help="threads that one inference may use")
    parser.add_argument("--runs", type=int, default=50, help="inferences to time per file, at least")
    parser.add_argument("--rounds", type=int, default=1, help="rounds that the runs of a file are divided into")
    parser.add_argument("--warmup", type=int, default=5, help="inferences of each file that are not timed")
    parser.add_argument("--delegate", choices=list(DELEGATES), default="default", help="builtin: no XNNPACK")
    parser.add_argument(
        "--samples", metavar="IN.npz", help="samples to run, as arrays x0, x1, … [n, ...], one per input"
    )
    parser.add_argument("--outputs", metavar="OUT.npz", default="outputs.npz", help="where the samples' outputs go")
    parser.add_argument("--stream", action="store_true", help="print a line of JSON after every step")
    parser.add_argument("--stdin", action="store_true", help="stop when standard input ends")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.stdin:
        stop_at_end_of_input()

    def report(line: dict[str, Any]) -> None:
        if options.stream:
            print(json.dumps(line), flush=True)

    try:
        document = measure(options, report)
    except RunnerError as error:
        print(json.dumps({"error": str(error), "code": error.code}), flush=True)
        return error.code
    except BrokenPipeError:  # the process that read the output is gone
        leave()
    print(json.dumps(document, indent=None if options.stream else 2), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
