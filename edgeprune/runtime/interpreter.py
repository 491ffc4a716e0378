"""The interpreter of .tflite files: which package runs them, which release, and with which kernels.

Needs NumPy only, and no TensorFlow as long as one of the small runtimes is installed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeprune.chatter import without_lines
from edgeprune.errors import MissingError, ModelError, UsageError
from edgeprune.runtime import runner

Kernels = Literal["default", "builtin"]

# "INFO: Created TensorFlow Lite XNNPACK delegate": the Python API has no way to set the level of the log.
_INFO = re.compile("INFO: ")


@dataclass(frozen=True)
class Runtime:
    """An installed runtime. ``version`` names package and release, for example 'ai-edge-litert 2.3.0'."""

    name: str
    version: str
    module: Any

    def interpreter(
        self,
        model: str | Path | bytes,
        *,
        threads: int = 1,
        kernels: Kernels = "default",
        preserve_all_tensors: bool = False,
    ) -> Any:
        """An interpreter of a .tflite file or its bytes, tensors allocated.

        Args:
            model: path or content of the file.
            threads: number of threads that one inference may use.
            kernels: 'default', what the runtime chooses (XNNPACK where it applies), or 'builtin', its own only.
            preserve_all_tensors: intermediate tensors can be read after a run; takes more memory.

        Raises:
            ModelError: damaged, or with operators that this runtime cannot run.
        """
        # A .tflite that contradicts itself can crash the process in the runtime's C++, so it is read here first. The
        # reader is imported late: asking which runtime is installed must not need it.
        from edgeprune.tflite.flatbuffer import parse, read_bytes

        name = "The model" if isinstance(model, bytes) else str(model)
        parse(model if isinstance(model, bytes) else read_bytes(model), name=name)
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": os.fspath(model)}
        try:
            with without_lines(_INFO):
                return runner.make_interpreter(self.module, kernels, threads, preserve_all_tensors, **source)
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{name} cannot run under {self.version}: {str(error).strip()}",
                fix="`edgeprune profile` lists its operators and the runtime that they need.",
            ) from error


def find_runtime(prefer: str | None = None) -> Runtime:
    """The first runtime that is installed: ai-edge-litert, then tflite-runtime, then TensorFlow.

    Args:
        prefer: the package to use instead, by name.

    Raises:
        UsageError: ``prefer`` is not a runtime.
        MissingError: none is installed, or not the one preferred.
    """
    if prefer is not None and prefer not in runner.RUNTIMES:
        raise UsageError(f"There is no runtime {prefer!r}.", expected=f"one of: {', '.join(runner.RUNTIMES)}.")
    found = runner.installed_runtime([prefer] if prefer else runner.RUNTIMES)
    if found is not None:
        return Runtime(*found)
    raise MissingError(
        f"{prefer or 'A runtime for .tflite files'} is not installed.",
        expected=f"{prefer}." if prefer else f"one of: {', '.join(runner.RUNTIMES)}.",
        fix=f"pip install {prefer or 'ai-edge-litert'}",
    )
