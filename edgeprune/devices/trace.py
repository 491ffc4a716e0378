"""One inference on the emulated board, block by block: how often each ran, and what it asked of caches and memory."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.devices.cores import Core
from edgeprune.devices.emulator import LOG, Emulator
from edgeprune.devices.emulator_home import Plugin
from edgeprune.devices.emulator_job import run_job
from edgeprune.errors import DeviceError
from edgeprune.files import JsonObject

SOURCE = "emulator_trace.c"
# Bytes that a cache moves at once, in emulator_trace.c.
LINE_BYTES = 64
_WORD_DIGITS = 8
# Inferences before the one that fills the caches; it packs weights.
_WARMUP = 1


@dataclass(frozen=True, eq=False)
class Trace:
    """One inference. The last column of the arrays is what belongs to no operator.

    Attributes:
        blocks: machine code of each block that ran, 4 bytes per instruction.
        times: [blocks, operators + 1] how often each ran.
        misses: [levels, operators + 1] of each level of the caches.
        written: [operators + 1] lines written to memory.
        runtime: such as 'ai-edge-litert 2.1.6'.
        kernels: 'xnnpack' or 'builtin'.
    """

    blocks: list[bytes]
    times: np.ndarray
    misses: np.ndarray
    written: np.ndarray
    runtime: str
    kernels: str

    @property
    def instructions(self) -> np.ndarray:
        """[operators + 1] instructions."""
        return np.array([len(block) // 4 for block in self.blocks], np.int64) @ self.times

    @property
    def transfers(self) -> np.ndarray:
        """[operators + 1] lines that move between the last cache and memory."""
        return self.misses[-1] + self.written


def trace(
    device: Emulator,
    content: bytes,
    delegate: str,
    core: Core,
    caches: Sequence[tuple[int, int]],
    results: Sequence[Sequence[int]] = (),
) -> Trace:
    """Trace one inference of a file on random input, on one thread.

    Args:
        device: connected.
        content: of the .tflite.
        delegate: 'default' or 'builtin'.
        core: what the board runs on.
        caches: bytes and ways of each level.
        results: the outputs of the file that each operator writes; empty to tell no operators apart.

    Raises:
        ModelError: the runtime refuses the file.
        MissingError: the emulated board is not set up.
        DeviceError: it did not end in time, or crashed.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        model = Path(folder) / "model.tflite"
        model.write_bytes(content)
        pushed = device.push(model, "model0.tflite")
        job = {"models": [pushed], "warmup": _WARMUP, "delegate": delegate, "results": [*map(list, results)]}
        plugin = Plugin(SOURCE, tuple(f"cache={size}/{ways}" for size, ways in caches))
        (facts,) = run_job(device, job, functools.partial(device.run, plugin=plugin, core=core))
        device.pull(LOG, Path(folder) / LOG)
        log = (Path(folder) / LOG).read_text("utf-8")
    return read(log, len(results), facts)


def read(log: str, operators: int, facts: JsonObject) -> Trace:
    """The plugin's log, whose lines ``emulator_trace.c`` describes.

    Raises:
        DeviceError: it is not complete.
    """
    memory: dict[int, list[int]] = {}
    blocks: dict[bytes, np.ndarray] = {}
    for line in log.splitlines():
        kind, _, rest = line.partition(" ")
        first, *numbers = rest.split()
        if kind == "memory":
            memory[int(first)] = [int(number) for number in numbers]
        elif kind == "block":
            # The same code may have been translated several times.
            times = blocks.setdefault(_code(first), np.zeros(operators + 1, np.int64))
            for pair in numbers:
                operator, _, count = pair.partition(":")
                times[int(operator)] += int(count)
    if -1 not in memory or not blocks:
        raise DeviceError(
            "The trace of the emulated board is not complete.", fix="please report this with the version of QEMU."
        )
    empty = [0] * len(memory[-1])
    table = np.array([memory.get(number, empty) for number in (*range(operators), -1)], np.int64).T
    return Trace(
        list(blocks), np.array(list(blocks.values())), table[1:-1], table[-1], facts["runtime"], facts["kernels"]
    )


def _code(digits: str) -> bytes:
    words = (digits[at : at + _WORD_DIGITS] for at in range(0, len(digits), _WORD_DIGITS))
    return b"".join(int(word, 16).to_bytes(4, "little") for word in words)
