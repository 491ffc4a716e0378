"""One run of a .tflite, to see whether the runtime here survives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.runtime import runner
from edgeprune.runtime.api import Interpreter
from edgeprune.runtime.interpreter import INTERPRETER, KernelChoice, Runtime, find_runtime
from edgeprune.tflite.flatbuffer import parse, read_bytes
from edgeprune.workers.worker import LIMIT_S

MOST_WORDS = 400
# Some operators refuse single numbers, as an integer division does what rounds to zero: such as small inputs where the
# real ones are bytes.
FACTORS = (1.0, 255.0, -1.0)


class FileRefused(ModelError):
    """The runtime does not load a file, or stops at one of its operators, whatever its inputs are.

    Attributes:
        worker: the runtime and its release: the subject of a sentence.
        how: the rest of that sentence.
        said: why, in the runtime's words.
    """

    def __init__(self, worker: str, said: str):
        self.worker, self.how, self.said = worker, "refuses the file", said
        super().__init__(f"{worker} {self.how}: {said}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return FileRefused, (self.worker, self.said)


def try_file(
    model: str | Path | bytes,
    runtime: Runtime | None = None,
    limit_s: float = LIMIT_S,
    kernels: KernelChoice = "default",
) -> None:
    """Load a .tflite and run it once, on random inputs; where it refuses these, on others.

    Args:
        model: path or content.
        runtime: None for the first that is installed.
        limit_s: seconds after which the run is ended.
        kernels: see :data:`~edgeprune.runtime.interpreter.KernelChoice`.

    Raises:
        FileRefused: the runtime does not load the file, or does not run it.
        ModelError: the same of a file with sizes that are known at run time only, which are 1 here.
        WorkerDied: the runtime ends its process on it.
    """
    INTERPRETER.call(_try, model, runtime or find_runtime(), kernels, limit_s=limit_s)


def _try(model: str | Path | bytes, runtime: Runtime, kernels: KernelChoice) -> None:
    content = model if isinstance(model, bytes) else read_bytes(model)
    graph = parse(content).subgraphs[0]
    try:
        interpreter = runtime.interpreter(content, kernels=kernels)
        refusals: list[ModelError] = []
        for factor in FACTORS:
            try:
                with runtime.refusals():
                    return _run(interpreter, factor)
            except ModelError as error:
                refusals.append(error)
        raise refusals[0]
    except ModelError as error:
        if any(size < 0 for index in graph.inputs for size in graph.tensors[index].signature[1:]):
            raise
        raise FileRefused(runtime.version, _first_words(str(error.__cause__))) from error


def _run(interpreter: Interpreter, factor: float) -> None:
    """Run once on random inputs, of which floats are multiplied by a factor."""
    generator = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = runner.random_input(detail, generator)
        is_float = np.issubdtype(values.dtype, np.floating)
        interpreter.set_tensor(detail["index"], (values * factor).astype(values.dtype) if is_float else values)
    interpreter.invoke()


def _first_words(text: str) -> str:
    """The first line, or the beginning of it: runtimes string their complaints together."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it does not say why").rstrip(".")
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]}…"
