"""The interpreter of .tflite files: which package runs them, which release, and with which kernels.

Needs NumPy only, and no TensorFlow as long as one of the small runtimes is installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeprune.chatter import without_lines
from edgeprune.errors import MissingError, ModelError, UsageError

Kernels = Literal["default", "builtin"]

# Package, the module that tells that it is installed, the module with its Interpreter and OpResolverType. In the order
# in which they are tried: ai-edge-litert is tflite-runtime under its new name; importing TensorFlow takes seconds.
_RUNTIMES = {
    "ai-edge-litert": ("ai_edge_litert", "ai_edge_litert.interpreter"),
    "tflite-runtime": ("tflite_runtime", "tflite_runtime.interpreter"),
    "tensorflow": ("tensorflow", "tensorflow.lite.python.interpreter"),
}
# Kernels: the op resolver. AUTO lets the runtime apply its default delegate, XNNPACK.
_RESOLVERS = {"default": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}

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
        from edgeprune.profile.flatbuffer import parse, read_bytes

        name = "The model" if isinstance(model, bytes) else str(model)
        parse(model if isinstance(model, bytes) else read_bytes(model), name=name)
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": os.fspath(model)}
        resolver = getattr(self.module.OpResolverType, _RESOLVERS[kernels])
        try:
            with without_lines(_INFO):
                interpreter = self.module.Interpreter(
                    **source,
                    num_threads=threads,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=preserve_all_tensors,
                )
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{name} cannot run under {self.version}: {str(error).strip()}",
                fix="`edgeprune profile` lists its operators and the runtime that they need.",
            ) from error
        return interpreter


def find_runtime(prefer: str | None = None) -> Runtime:
    """The first runtime that is installed: ai-edge-litert, then tflite-runtime, then TensorFlow.

    Args:
        prefer: the package to use instead, by name.

    Raises:
        UsageError: ``prefer`` is not a runtime.
        MissingError: none is installed, or not the one preferred.
    """
    if prefer is not None and prefer not in _RUNTIMES:
        raise UsageError(f"There is no runtime {prefer!r}.", expected=f"one of: {', '.join(_RUNTIMES)}.")
    for name in [prefer] if prefer else _RUNTIMES:
        package, module = _RUNTIMES[name]
        if importlib.util.find_spec(package) is not None:
            return Runtime(name, f"{name} {_release(name, package)}", importlib.import_module(module))
    raise MissingError(
        f"{prefer or 'A runtime for .tflite files'} is not installed.",
        expected=f"{prefer}." if prefer else f"one of: {', '.join(_RUNTIMES)}.",
        fix=f"pip install {prefer or 'ai-edge-litert'}",
    )


def _release(name: str, package: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # another distribution of the package, such as tensorflow-cpu
        return importlib.import_module(package).__version__


def is_delegated(interpreter: Any) -> bool:
    """Whether a delegate (XNNPACK, where none was named) has taken over at least one operator."""
    return any(details["op_name"] == "DELEGATE" for details in interpreter._get_ops_details())
