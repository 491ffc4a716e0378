"""The runtime that is installed on this machine, and interpreters of .tflite files made with it.

Needs only NumPy, and no TensorFlow as long as one of the small runtimes is installed. An interpreter may end the
process that it is in, so files run in the process of :data:`INTERPRETER`: what is called there makes the interpreter.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeprune.chatter import without_lines
from edgeprune.errors import MissingError, ModelError, UsageError
from edgeprune.runtime import runner
from edgeprune.runtime.api import Interpreter, RuntimeModule
from edgeprune.workers import Worker

# 'default': what the runtime chooses, XNNPACK where it applies; 'builtin': the runtime's own kernels only.
KernelChoice = Literal["default", "builtin"]

# Matches "INFO: Created TensorFlow Lite XNNPACK delegate": the Python API cannot set the level of the log.
_INFO = re.compile("INFO: ")

INTERPRETER = Worker("The TFLite interpreter", warm=runner.installed_runtime)


@dataclass(frozen=True)
class Runtime:
    """An installed runtime.

    Attributes:
        name: of the package, such as 'ai-edge-litert'.
        version: package and release, such as 'ai-edge-litert 2.3.0'.
        module: the module with its ``Interpreter``.
    """

    name: str
    version: str
    module: RuntimeModule

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process, the same package."""
        return find_runtime, (self.name,)

    def interpreter(
        self,
        model: str | Path | bytes,
        *,
        threads: int = 1,
        kernels: KernelChoice = "default",
        preserve_all_tensors: bool = False,
    ) -> Interpreter:
        """An interpreter of a .tflite file, with its tensors allocated.

        Args:
            model: path or content of the file.
            threads: number of threads that one inference may use.
            kernels: see :data:`KernelChoice`.
            preserve_all_tensors: make intermediate tensors readable after a run; takes more memory.

        Raises:
            ModelError: the file is damaged, or has operators that this runtime cannot run.
        """
        # A .tflite that contradicts itself can crash the process in the runtime's C++ code, so it is parsed here first.
        # The parser is imported late, because asking which runtime is installed must not need it.
        from edgeprune.tflite.flatbuffer import parse, read_bytes

        name = "The model" if isinstance(model, bytes) else str(model)
        parse(model if isinstance(model, bytes) else read_bytes(model), name=name)
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": os.fspath(model)}
        with self.refusals(name), without_lines(_INFO):
            return runner.make_interpreter(self.module, kernels, threads, preserve_all_tensors, **source)

    @contextlib.contextmanager
    def refusals(self, name: str = "The model") -> Iterator[None]:
        """What this runtime raises about a file, as a ModelError."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{name} cannot run under {self.version}: {str(error).strip()}",
                fix="run `edgeprune profile` on the file: it shows which release of a runtime it needs.",
            ) from error


def find_runtime(prefer: str | None = None) -> Runtime:
    """The first runtime that is installed: ai-edge-litert, then tflite-runtime, then TensorFlow.

    Args:
        prefer: name of the only package to accept; None for any of them.

    Raises:
        UsageError: ``prefer`` is not the name of a runtime.
        MissingError: no runtime, or not the one in ``prefer``, is installed.
    """
    if prefer is not None and prefer not in runner.RUNTIMES:
        raise UsageError(f"There is no runtime {prefer!r}.", expected=f"one of: {', '.join(runner.RUNTIMES)}.")
    installed = runner.installed_runtime([prefer] if prefer else runner.RUNTIMES)
    if installed is not None:
        return Runtime(*installed)
    raise MissingError(
        f"{prefer or 'A runtime for .tflite files'} is not installed.",
        expected=f"{prefer}." if prefer else f"one of: {', '.join(runner.RUNTIMES)}.",
        fix=f"pip install {prefer or 'ai-edge-litert'}",
    )
