"""Run a .tflite on batches of float samples, with inputs and outputs in the order of its Keras model."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edgeprune.runtime.api import Interpreter, TensorDetails
from edgeprune.runtime.interpreter import INTERPRETER, KernelChoice, Runtime
from edgeprune.runtime.runner import dequantize, quantize


class Session:
    """A .tflite with one interpreter per thread, in the interpreter's process.

    Batches are split into single samples: the file then runs exactly as on the device, and single samples can be spread
    over threads.

    Args:
        path: the .tflite.
        inputs, outputs: names of the Keras model's inputs and outputs, in the model's order (``serving_default``).
        runtime: that runs the file.
        kernels: see :data:`~edgeprune.runtime.interpreter.KernelChoice`.
        threads: number of interpreters; None for one per processor core that this process may use.

    Raises:
        ModelError: the runtime refuses the file.
        WorkerDied: it crashed on it; :meth:`run` may do so, too.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        runtime: Runtime,
        kernels: KernelChoice = "default",
        threads: int | None = None,
    ):
        self.threads = threads or len(os.sched_getaffinity(0))
        self.inputs = tuple(inputs)
        what = path.read_bytes(), self.inputs, tuple(outputs), runtime, kernels, self.threads
        self._runners = INTERPRETER.create(_Runners, *what)

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs of a batch, dequantized to float32.

        Args:
            batch: one array [n, ...] per input, in the model's order.

        Returns:
            One array [n, ...] per output, in the model's order.
        """
        return self._runners.call("run", list(batch))

    def close(self) -> None:
        """Let go of the interpreters."""
        self._runners.close()


class _Runners:
    """The interpreters of a session, in their process."""

    def __init__(
        self,
        content: bytes,
        inputs: Sequence[str],
        outputs: Sequence[str],
        runtime: Runtime,
        kernels: KernelChoice,
        threads: int,
    ):
        self._runners = [
            _Runner(runtime.interpreter(content, threads=1, kernels=kernels), inputs, outputs) for _ in range(threads)
        ]
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        size, threads = len(batch[0]), len(self._runners)
        parts = [range(size)[start::threads] for start in range(threads)]
        results: list[list[np.ndarray]] = [[] for _ in range(size)]
        futures = [
            self._pool.submit(runner.run, batch, part, results)
            for runner, part in zip(self._runners, parts, strict=True)
        ]
        for future in futures:
            future.result()
        return [np.stack(values) for values in zip(*results, strict=True)]


class _Runner:
    def __init__(self, interpreter: Interpreter, inputs: Sequence[str], outputs: Sequence[str]):
        self._interpreter = interpreter
        interpreter.allocate_tensors()
        self._inputs = _ordered(interpreter, "inputs", inputs)
        self._outputs = _ordered(interpreter, "outputs", outputs)

    def run(self, batch: Sequence[np.ndarray], indices: range, results: list[list[np.ndarray]]) -> None:
        """Fill ``results[i]`` with the outputs of sample i, for every i in ``indices``."""
        for index in indices:
            for detail, values in zip(self._inputs, batch, strict=True):
                self._interpreter.set_tensor(detail["index"], quantize(values[index : index + 1], detail))
            self._interpreter.reset_all_variables()  # a fused LSTM would begin where the last sample ended
            self._interpreter.invoke()
            results[index] = [
                dequantize(self._interpreter.get_tensor(detail["index"]), detail)[0] for detail in self._outputs
            ]


def _ordered(interpreter: Interpreter, kind: Literal["inputs", "outputs"], names: Sequence[str]) -> list[TensorDetails]:
    """Details of the inputs or outputs in the order of ``names``, which the converter need not have kept."""
    details = interpreter.get_input_details() if kind == "inputs" else interpreter.get_output_details()
    by_index = {detail["index"]: detail for detail in details}
    for signature in interpreter._get_full_signature_list().values():
        indices = signature[kind]
        # A signature of another subgraph, or one that does not fit its own, names other tensors.
        if {*names} == {*indices} and {*indices.values()} == {*by_index} and len(details) > 1:
            return [by_index[indices[name]] for name in names]
    return details
