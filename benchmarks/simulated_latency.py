"""How far are simulated times from published ones of a Raspberry Pi 4? `edgeprune bench --explain` on the same files.

    python benchmarks/simulated_latency.py --table published.csv --cache FOLDER
        > benchmarks/results/simulated_latency.md

Each published file with four threads, rebuilt with random weights; with the built-in kernels (tflite-runtime 2.14.0),
and with XNNPACK: float files in tflite-runtime 2.14.0, which is nearer in time to the published ones, and in
ai-edge-litert 2.1.6; int8 files in the latter, as the former does not give them to XNNPACK. Of published times on
XNNPACK those of the 64-bit system count. EfficientNet-Lite2 and -Lite4 are left out, as their runs take long.

The tool has three constants of its own, fitted here to the files in tflite-runtime: nanoseconds for a line from
memory and for one from the second cache, and microseconds for an operator. MLPerf's times include that the program
reads and normalizes its input; how long that takes for a value of a float input is the fourth. In the column 'left
out', all four are fitted to the other architectures: that is the error on what no fit has seen. FOLDER keeps files and
counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from latency_models import tflite_file
from scipy.optimize import minimize

from edgeprune.devices.emulator import Emulator
from edgeprune.devices.explain import COPYING_SHARE, LINE_CYCLES, START_CYCLES, explain
from edgeprune.devices.trace import LINE_BYTES
from edgeprune.files import JsonObject, write_json
from edgeprune.hardware.latency.features import FREE
from edgeprune.target import load_target

THREADS = "4"
BAR = 0.1
BOARD = load_target("rpi4")
FAMILIES = ("MobileNetV1", "MobileNetV3", "EfficientNet-Lite")
# Kernels and number format → the runtimes that are emulated, and the delegate.
RUNTIMES = {
    ("none", "fp32"): (("tflite-runtime", "builtin"),),
    ("none", "int8"): (("tflite-runtime", "builtin"),),
    ("xnnpack", "fp32"): (("tflite-runtime", "default"), ("ai-edge-litert", "default")),
    ("xnnpack", "int8"): (("ai-edge-litert", "default"),),
}


_MISSED = """
Missed with XNNPACK: three files are published, of a release of February 2022, which no wheel has; releases after
tflite-runtime 2.14.0 divide products into other blocks, and so read weights less often. Times of today's release would
close it. An operator of XNNPACK's is started at the same cost as a built-in one: MobileNetV3, which has 108, is
simulated as too fast, and would be more so with less.

How many times as long one thread takes as four, for MobileNetV1 in float with XNNPACK (published: 312 and 142 ms, 2.19,
google/XNNPACK#814):
"""


@dataclass(frozen=True)
class File:
    """A published file in an emulated runtime.

    ``transfers`` (lines from and to memory), ``lines`` (from the second cache) and ``values`` are in millions,
    ``starts`` in thousands.
    """

    model: str
    size: str
    dtype: str
    kernels: str
    runtime: str
    published_ms: float
    compute_ms: float
    transfers: float
    lines: float
    starts: float
    one_thread_compute_ms: float

    @property
    def family(self) -> str:
        """The architecture, of all widths and input sizes."""
        return next(name for name in FAMILIES if self.model.startswith(name))

    @property
    def is_fitted(self) -> bool:
        """Whether constants are fitted to it: where they ran in the release that is nearest to the published one."""
        return self.runtime.startswith("tflite-runtime")

    @property
    def is_nearest(self) -> bool:
        """Whether no other release that gives it to the same kernels is nearer to the published one."""
        return self.is_fitted or (self.kernels, self.dtype) == ("xnnpack", "int8")

    @property
    def values(self) -> float:
        """Millions of values of a float input that MLPerf's program normalizes; XNNPACK's own benchmark does not."""
        is_normalized = self.dtype == "fp32" and self.kernels == "builtin"
        return float(np.prod([int(side) for side in self.size.split("x")])) / 1e6 if is_normalized else 0.0

    def simulated_ms(self, transfer_ns: float, line_ns: float, start_us: float, value_ns: float) -> float:
        """The time on four threads by four constants."""
        waits = self.transfers * transfer_ns + self.lines * line_ns + self.starts * start_us
        return self.compute_ms + waits + self.values * value_ns

    def one_to_four(self, *constants: float) -> float:
        """How many times as long one thread takes as four."""
        four = self.simulated_ms(*constants)
        return (four - self.compute_ms + self.one_thread_compute_ms) / four


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="of published latencies")
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    files = [file for rows in _published(options.table) for file in _simulated(rows, options.cache)]
    _print(files)


def _published(table: Path) -> list[list[dict[str, str]]]:
    """The rows of each file on the board's processor."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in csv.DictReader(table.open(encoding="utf-8")):
        is_other_system = row["delegate"] == "xnnpack" and "ARM64" not in row["notes"]
        is_large = row["model"] in ("EfficientNet-Lite2", "EfficientNet-Lite4")
        if (row["device"], row["threads"]) == ("rpi4", THREADS) and not is_other_system and not is_large:
            key = (row["model"], row["input"], row["dtype"], row["delegate"])
            found.setdefault(key, []).append(row)
    return list(found.values())


def _simulated(rows: list[dict[str, str]], cache: Path) -> list[File]:
    row = rows[0]
    path = tflite_file(row, cache)
    files = []
    for runtime, delegate in RUNTIMES[row["delegate"], row["dtype"]]:
        known = cache / f"{path.stem}-{runtime}-{delegate}.explained.json"
        if not known.is_file():
            print(path.stem, runtime, file=sys.stderr, flush=True)
            with Emulator(f"emulator://{runtime}") as device:
                write_json(known, explain(device, path, delegate, BOARD))
        explained = json.loads(known.read_text("utf-8"))
        one, four = explained["simulated"]
        files.append(
            File(
                model=row["model"],
                size=row["input"],
                dtype=row["dtype"],
                kernels=explained["kernels"],
                runtime=explained["runtime"],
                published_ms=statistics.median(float(each["latency_ms"]) for each in rows),
                compute_ms=four["compute_ms"],
                transfers=explained["memory_bytes"] / LINE_BYTES / 1e6,
                lines=explained["misses"][0] / 1e6,
                starts=sum(map(_is_started, explained["operators"])) / 1e3,
                one_thread_compute_ms=one["compute_ms"],
            )
        )
    return files


def _is_started(operator: JsonObject) -> bool:
    return operator["instructions"] > 0 and operator["type"] not in FREE


_TRANSFER_NS = LINE_BYTES / (2 * BOARD.cpu.memory_bandwidth_bytes_per_s * COPYING_SHARE) * 1e9
_LINE_NS = LINE_CYCLES / BOARD.cpu.clock_hz * 1e9
_START_US = START_CYCLES / BOARD.cpu.clock_hz * 1e6
_GUESS = (_TRANSFER_NS, _LINE_NS, _START_US, 40.0)


def _fit(files: list[File]) -> np.ndarray:
    """Constants with the least sum of absolute logarithmic errors; architectures, formats, kernels weigh the same."""
    kinds = [(file.family, file.dtype, file.kernels) for file in files]
    weights = np.array([1 / kinds.count(kind) for kind in kinds])

    def loss(values: np.ndarray) -> float:
        errors = [np.log(file.simulated_ms(*np.abs(values)) / file.published_ms) for file in files]
        return float(np.abs(errors) @ weights)

    starts = [np.array(_GUESS) * factor for factor in (0.5, 1.0, 2.0)]
    found = [minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000}) for start in starts]
    return np.abs(min(found, key=lambda one: one.fun).x)


def _errors(files: list[File], constants: np.ndarray) -> np.ndarray:
    return np.array([file.simulated_ms(*constants) / file.published_ms - 1 for file in files])


def _left_out(files: list[File]) -> np.ndarray:
    """Relative errors with constants that were fitted to the other architectures."""
    errors = np.zeros(len(files))
    for family in FAMILIES:
        out = np.array([file.family == family for file in files])
        others = [file for file in files if file.family != family and file.is_fitted]
        errors[out] = _errors([file for file in files if file.family == family], _fit(others))
    return errors


def _print(files: list[File]) -> None:
    fitted = _fit([file for file in files if file.is_fitted])
    used = np.array([_TRANSFER_NS, _LINE_NS, _START_US, fitted[-1]])
    errors, left_out = _errors(files, used), _left_out(files)
    print("# Simulated and published times\n")
    print("`python benchmarks/simulated_latency.py --table published.csv --cache FOLDER`\n")
    print(
        "Published files on a Raspberry Pi 4 with four threads, and their time by `bench --explain`: cycles by LLVM's"
    )
    print(
        f"model of the Cortex-A72, {_TRANSFER_NS:.1f} ns for a line from or to memory, {_LINE_NS:.1f} ns for one from"
    )
    print(f"the second cache, {_START_US:.0f} us for an operator. MLPerf's times (built-in kernels) include that the")
    print(
        f"program normalizes its input: {fitted[-1]:.0f} ns for each value of a float input. The constants are fitted"
    )
    print(
        "to the files in tflite-runtime; 'left out': to those of the other architectures. The bar is for both errors."
    )
    values = ", ".join(f"{value:.1f}" for value in fitted)
    print(f"Fitted anew, the four would be {values}. 'Nearest': the release that is nearest to the published one.\n")
    _print_header("kernels", "runtime", "files", "median error", "left out", "worst of these", "bar", "met")
    for kernels, runtime in dict.fromkeys((file.kernels, file.runtime) for file in files):
        mine = np.array([(file.kernels, file.runtime) == (kernels, runtime) for file in files])
        _print_row(kernels, runtime, errors[mine], left_out[mine])
    nearest = np.array([file.kernels == "xnnpack" and file.is_nearest for file in files])
    _print_row("xnnpack", "nearest", errors[nearest], left_out[nearest])
    _print_row("both", "all", errors, left_out)
    print(_MISSED)
    for file in files:
        if (file.model, file.dtype, file.kernels) == ("MobileNetV1_1.0", "fp32", "xnnpack"):
            print(f"- {file.runtime}: {file.one_to_four(*used):.2f}")
    print()
    names = ("model", "input", "format", "kernels", "runtime", "published (ms)", "simulated", "error", "left out")
    _print_header(*names, "compute", "cache", "memory", "operators")
    for file, error, other in zip(files, errors, left_out, strict=True):
        waits = np.array([file.lines, file.transfers, file.starts]) * (_LINE_NS, _TRANSFER_NS, _START_US)
        parts = " | ".join(f"{part:.2f}" for part in (file.compute_ms, *waits))
        words = f"{file.model} | {file.size} | {file.dtype} | {file.kernels} | {file.runtime}"
        simulated = file.published_ms * (1 + error)
        print(f"| {words} | {file.published_ms:.2f} | {simulated:.2f} | {error:+.1%} | {other:+.1%} | {parts} |")


def _print_header(*names: str) -> None:
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")


def _print_row(kernels: str, runtime: str, errors: np.ndarray, left_out: np.ndarray) -> None:
    medians = [float(np.median(np.abs(each))) for each in (errors, left_out)]
    worst = left_out[np.abs(left_out).argmax()]
    met = "yes" if max(medians) <= BAR else "no"
    cells = [f"{len(errors)}", *(f"{median:.1%}" for median in medians), f"{worst:+.1%}", f"{BAR:.0%}", met]
    print(f"| {kernels} | {runtime} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
