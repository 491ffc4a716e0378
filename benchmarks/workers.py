"""What child processes cost: a demo build and a single conversion with them and without, and the memory that stays.

python benchmarks/workers.py [RUNS]

Without: the converter and the interpreters run in the process of the command, as the same functions. Builds take turns.
A single conversion is timed from the start of Python, with the import of TensorFlow, as a command has it. CPU seconds
are those of the command and its children; beside other work on the machine, only they can be compared.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

CONVERSIONS = 50

INSIDE = """
import pickle
from edgeprune.workers import worker

def call(self, function, *arguments, limit_s=0):
    given = [(lambda items: lambda: iter(items()))(a.items) if isinstance(a, worker.Stream) else a for a in arguments]
    return function(*given)

class Local:
    def __init__(self, thing): self.thing = thing
    def call(self, method, *arguments): return getattr(self.thing, method)(*arguments)
    def close(self): pass

worker.Worker.start = lambda self: None
worker.Worker.call = call
worker.Worker.create = lambda self, cls, *arguments: Local(cls(*arguments))
"""
BUILD = """
import sys
sys.argv = ["edgeprune", "build", "--target", "rpi4"]
from edgeprune.cli import main
main()
"""
CONVERT = """
from edgeprune._tensorflow import import_tf
from edgeprune.convert.converter import CONVERTER, convert
from edgeprune.runtime.interpreter import INTERPRETER
INTERPRETER.start()
import_tf()
CONVERTER.start()
import numpy as np, tf_keras
from edgeprune.quantize.plan import QuantizationPlan
layers = tf_keras.layers
x = inputs = layers.Input([32, 32, 3])
for filters in (16, 32, 64):
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))
model = tf_keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
samples = [[np.ones([1, 32, 32, 3], "f")]] * 50
convert(model, QuantizationPlan("int8", "float", needs_samples=True), lambda: iter(samples))
"""
MEMORY = """
import numpy as np
from edgeprune._tensorflow import import_tf
import_tf()
import tf_keras
from edgeprune.convert.converter import convert
from edgeprune.quantize.plan import QuantizationPlan

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

model = tf_keras.applications.MobileNetV2(weights=None)
for number in range({conversions} + 1):
    convert(model, QuantizationPlan("float32", "float", needs_samples=False))
    if number == 0:
        first = resident()
    if number % 10 == 0:
        print(f"after {{number + 1:2}} conversions {{resident():.0f}} MB, {{resident() - first:+.0f}} MB", flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=int, default=3)
    runs = parser.parse_args().runs
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    _compare("single int8 conversion of a small model", CONVERT, runs)
    _compare("demo build", BUILD, runs)
    print("resident memory of the command, MobileNetV2 to float32:")
    subprocess.run([sys.executable, "-c", MEMORY.format(conversions=CONVERSIONS)], check=True)


def _compare(what: str, code: str, runs: int) -> None:
    pairs = []
    for _ in range(runs):
        pairs.append((_seconds(code), _seconds(INSIDE + code)))
        one, other = (f"{wall:.2f} s ({cpu:.2f} s of CPU)" for wall, cpu in pairs[-1])
        print(f"{what}: {one} with child processes, {other} without", flush=True)
    for number, unit in enumerate(("s", "s of CPU")):
        ratio = statistics.median(with_[number] / without[number] for with_, without in pairs)
        more = statistics.median(with_[number] - without[number] for with_, without in pairs)
        print(f"{what}: median ratio {ratio:.3f}, median difference {more:+.2f} {unit}")


def _seconds(code: str) -> tuple[float, float]:
    """On the clock and of CPU, of the process and those that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), _cpu_seconds()
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - start, _cpu_seconds() - used


def _cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
