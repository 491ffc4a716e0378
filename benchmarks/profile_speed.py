"""How long `edgeprune profile` takes on a file of 16 MB, how much memory, and how both grow with the operators.

python benchmarks/profile_speed.py [--target NAME]

The files are chains of fully connected layers with random weights, written without TensorFlow: dense or with zeros,
and, for the growth, with many small layers. Bars for 16 MB: 1.5 s and 300 MB. The command has one thread, so its CPU
seconds are what it takes on an idle machine; wall seconds beside them tell whether this one is.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))  # the writer of files is the tests'

BAR_S, BAR_MB = 1.5, 300
MEGABYTES = 16
LAYERS = 16
GROWTH = (250, 1000, 4000)
RUNS = 5
# The command in a process of its own that tells its peak memory, in kB, at the end of its errors. Not ru_maxrss: that
# begins with the memory of the process that started it.
CODE = """
import re, sys
from edgeprune.cli import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="rpi4")
    target = parser.parse_args().target
    print(f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores, median of {RUNS} runs")
    print(f"\n| file | operators | wall s | CPU s | peak MB | bars ({BAR_S} s, {BAR_MB} MB) |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        for dtype in ("float32", "int8"):
            for zeros in (0.0, 0.5, 0.8):
                path.write_bytes(chain(LAYERS, MEGABYTES << 20, dtype, zeros))
                wall, cpu, peak = measure(path, target)
                met = "met" if cpu <= BAR_S and peak <= BAR_MB else "missed"
                print(f"| 16 MB {dtype}, {zeros:.0%} zeros | {LAYERS} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {met} |")
        for layers in GROWTH:
            path.write_bytes(chain(layers, layers * 256, "float32", 0.0))
            wall, cpu, peak = measure(path, target)
            print(f"| small layers | {layers} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | |")


def chain(layers: int, nbytes: int, dtype: str, zeros: float) -> bytes:
    """A file of fully connected layers whose weights take ``nbytes`` together, a fraction of them zero."""
    from tiny_files import Given, tflite_of

    generator = np.random.default_rng(0)
    scale = None if dtype == "float32" else 0.1
    width = int((nbytes / layers / np.dtype(dtype).itemsize) ** 0.5)
    tensors = [Given((1, width), dtype, scale=scale)]
    for _ in range(layers):
        weights = generator.standard_normal((width, width)) * (generator.random((width, width)) >= zeros)
        data = weights.astype(np.float32) if dtype == "float32" else np.clip(weights * 40, -127, 127).astype(np.int8)
        tensors += [Given((width, width), dtype, data, scale), Given((1, width), dtype, scale=scale)]
    nodes = [("FULLY_CONNECTED", (2 * i, 2 * i + 1), (2 * i + 2,)) for i in range(layers)]
    return tflite_of(tensors, nodes, [0], [2 * layers])


def measure(path: Path, target: str) -> tuple[float, float, float]:
    """Median wall and CPU seconds of the command, and its largest peak of memory in MB."""
    command = [sys.executable, "-c", CODE, "profile", str(path), "--target", target, "--json"]
    found = []
    for _ in range(RUNS):
        before, start = os.times(), time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall, after = time.perf_counter() - start, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        found.append((wall, cpu, int(done.stderr.split()[-1]) / 1e3))
    walls, cpus, peaks = zip(*found, strict=True)
    return statistics.median(walls), statistics.median(cpus), max(peaks)


if __name__ == "__main__":
    main()
