"""One run of a .tflite, to see whether the runtime here survives it."""

from __future__ import annotations

from pathlib import Path

from edgeprune.runtime import runner
from edgeprune.runtime.interpreter import INTERPRETER, Runtime, find_runtime


def try_file(model: str | Path | bytes, runtime: Runtime | None = None) -> None:
    """Load a .tflite and run it once, on random inputs.

    Args:
        model: path or content.
        runtime: None for the first that is installed.

    Raises:
        ModelError: the runtime refuses the file, or an operator refuses what it gets.
        WorkerDied: the runtime ends its process on it.
    """
    INTERPRETER.call(_try, model, runtime or find_runtime())


def _try(model: str | Path | bytes, runtime: Runtime) -> None:
    interpreter = runtime.interpreter(model)
    runner.set_random_inputs(interpreter)
    with runtime.refusals():
        interpreter.invoke()
