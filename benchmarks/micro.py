"""What encoded weights save on a microcontroller, and what they cost: flash, arena, instructions, equal outputs.

    python benchmarks/micro.py FILE.tflite ...

For each int8 file: bytes plain, and as flashed, without names and metadata, plain and with encoded weights; the codes
that were chosen, the arena of TensorFlow Lite Micro's interpreter on this machine for both, on how many of 1,000 random
inputs all outputs are equal, and the instructions of one inference, plain and encoded: those of an x86-64 with portable
kernels, counted exactly by QEMU's user mode (`qemu-x86_64` and `gcc`; "-" without). A microcontroller takes others; how
much decoding adds is comparable. Needs ``edgeprune[micro]``, and Linux on x86-64 for instructions.
"""

from __future__ import annotations

import argparse
import collections
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np

INPUTS = 1000
ARENA = 1 << 22
MARK = 0x6502  # what edgeprune's plugin for QEMU looks for
FACCESSAT = 439  # faccessat2, as the C library calls it from 2.33 on; its number on x86-64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.tflite")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)  # what runs inside of QEMU
    options = parser.parse_args()
    if options.count:
        counted(options.files[0])
        return
    names = ("file", "zeros", "bytes", "flashed plain", "encoded", "share", "codes", "arena plain", "encoded")
    names += ("equal outputs", "instructions plain", "encoded", "ratio")
    print("| " + " | ".join(names) + " |")
    print("|---" * len(names) + "|")
    for file in options.files:
        print(row(file), flush=True)


def row(file: str) -> str:
    from edgeprune.runtime.micro import MicroSession
    from edgeprune.tflite.compact import compact
    from edgeprune.tflite.encode import encode
    from edgeprune.tflite.flatbuffer import read

    graph = read(file).subgraphs[0]
    generator = np.random.default_rng(0)
    tensors = [graph.tensors[index] for index in graph.inputs]
    batch = [given(one, generator) for one in tensors]
    encoding = encode(file)
    plain, flashed = compact(Path(file).read_bytes()), compact(encoding.content)
    sessions = MicroSession(file), MicroSession(flashed)
    outputs = [session.run(batch) for session in sessions]
    equal = sum(all(np.array_equal(a[i], b[i]) for a, b in zip(*outputs, strict=True)) for i in range(INPUTS))
    weights = [one for one in graph.tensors if one.name in {tensor.name for tensor in encoding.tensors}]
    zeros = sum(int((one.data() == 0).sum()) for one in weights) / sum(one.size for one in weights)
    codes = collections.Counter(tensor.code or "plain" for tensor in encoding.tensors)
    chosen = ", ".join(f"{number} {code}" for code, number in codes.most_common())
    arenas = [f"{session.arena.bytes:,}" for session in sessions]
    counts = [instructions(content) for content in (plain, flashed)]
    words = ["-"] * 3 if None in counts else [*(f"{n:,}" for n in counts), f"{counts[1] / counts[0]:.2f}"]
    cells = [Path(file).name, f"{zeros:.0%}", f"{encoding.plain_bytes:,}", f"{len(plain):,}", f"{len(flashed):,}"]
    cells += [f"{len(flashed) / encoding.plain_bytes:.2f}", chosen, *arenas, f"{equal} of {INPUTS}", *words]
    return "| " + " | ".join(cells) + " |"


def given(tensor, generator: np.random.Generator) -> np.ndarray:
    """Random inputs: all int8 values, or normal numbers for float inputs."""
    shape = (INPUTS, *tensor.shape[1:])
    if tensor.dtype == "float32":
        return generator.normal(0, 10, shape).astype(np.float32)
    return generator.integers(-128, 128, shape).astype(tensor.dtype)


def instructions(content: bytes) -> int | None:
    """Of one inference; None where they cannot be counted here."""
    if not all(map(shutil.which, ("qemu-x86_64", "gcc"))):
        return None
    sources = resources.files("edgeprune.devices")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("emulator_plugin.c", "emulator_plugin.h"):
            Path(folder, name).write_bytes(sources.joinpath(name).read_bytes())
        Path(folder, "model.tflite").write_bytes(content)
        version = subprocess.run(["qemu-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
        api = 1 if int(re.search(r"version (\d+)", version)[1]) < 9 else 2
        compiler = ["gcc", "-O2", "-fPIC", "-shared", f"-DAPI={api}", f"-DFACCESSAT={FACCESSAT}"]
        subprocess.run([*compiler, "-o", "plugin.so", "emulator_plugin.c"], cwd=folder, check=True)
        command = ["qemu-x86_64", "-plugin", "./plugin.so", "-d", "plugin", "-D", "log", sys.executable]
        subprocess.run([*command, str(Path(__file__).resolve()), "--count", "model.tflite"], cwd=folder, check=True)
        marks = [int(line.split()[1]) for line in Path(folder, "log").read_text().splitlines()]
    return marks[-1] - marks[-2] - (marks[1] - marks[0])


def counted(file: str) -> None:
    """Marks around nothing, and around the second inference."""
    from tflite_micro.python.tflite_micro import runtime

    gc.disable()
    interpreter = runtime.Interpreter.from_file(file, arena_size=ARENA)
    form = interpreter.get_input_details(0)
    interpreter.set_input(np.ones(form["shape"], form["dtype"]), 0)
    root, native = os.open("/", os.O_RDONLY), interpreter._interpreter
    for work in (lambda: None, native.Invoke, native.Invoke):
        for do in (lambda: None, work):
            do()
            os.access("", MARK, dir_fd=root)


if __name__ == "__main__":
    main()
