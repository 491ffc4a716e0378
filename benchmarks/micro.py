"""What encoded weights save on a microcontroller: flash, arena, and whether outputs are the same to the bit.

    python benchmarks/micro.py FILE.tflite ...

For each int8 file: bytes plain, encoded, and as flashed, without names and metadata; the codes that were chosen, the
arena of TensorFlow Lite Micro's interpreter on this machine for both, on how many of 1,000 random inputs all outputs
are equal, and the time of an inference there, encoded over plain (portable kernels on a PC, not a microcontroller).
Needs ``edgeprune[micro]``.
"""

from __future__ import annotations

import argparse
import collections
import time

import numpy as np

from edgeprune.runtime.micro import MicroSession
from edgeprune.tflite.compact import compact
from edgeprune.tflite.encode import encode
from edgeprune.tflite.flatbuffer import read

INPUTS = 1000


def main(files: list[str]) -> None:
    print("| file | zeros | bytes | encoded | flashed | share | codes | arena | encoded | equal outputs | time |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for file in files:
        print(row(file), flush=True)


def row(file: str) -> str:
    graph = read(file).subgraphs[0]
    generator = np.random.default_rng(0)
    tensors = [graph.tensors[index] for index in graph.inputs]
    batch = [generator.integers(0, 128, (INPUTS, *one.shape[1:])).astype(one.dtype) for one in tensors]
    encoding = encode(file)
    flashed = compact(encoding.content)
    sessions = MicroSession(file), MicroSession(flashed)
    outputs, seconds = [], []
    for session in sessions:
        start = time.perf_counter()
        outputs.append(session.run(batch))
        seconds.append(time.perf_counter() - start)
    equal = sum(all(np.array_equal(a[i], b[i]) for a, b in zip(*outputs, strict=True)) for i in range(INPUTS))
    weights = [one for one in graph.tensors if one.name in {tensor.name for tensor in encoding.tensors}]
    zeros = sum(int((one.data() == 0).sum()) for one in weights) / sum(one.size for one in weights)
    codes = collections.Counter(tensor.code or "plain" for tensor in encoding.tensors)
    chosen = ", ".join(f"{number} {code}" for code, number in codes.most_common())
    arenas = [session.arena.bytes for session in sessions]
    return (
        f"| {file} | {zeros:.0%} | {encoding.plain_bytes:,} | {encoding.bytes:,} | {len(flashed):,} | "
        f"{len(flashed) / encoding.plain_bytes:.2f} | {chosen} | {arenas[0]:,} | {arenas[1]:,} | "
        f"{equal} of {INPUTS} | {seconds[1] / seconds[0]:.2f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.tflite")
    main(parser.parse_args().files)
