"""Vendors' compilers, which turn a finished .tflite into the file that a target's accelerator runs.

A target names its compiler in ``[compiler]``; a new compiler is an entry in :data:`COMPILERS`, and in :data:`TIMERS` if
it says how long a file takes.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from edgeprune.artifact import CompiledFacts
from edgeprune.errors import MissingError
from edgeprune.files import JsonObject
from edgeprune.target import CompilerSettings, Target

# Name in [compiler] → module with the attributes of :class:`Compiler`.
COMPILERS = {"edgetpu": "edgeprune.hardware.edgetpu.compiler", "vela": "edgeprune.hardware.vela_compiler"}
# Those of them whose modules have the attributes of :class:`Timer`.
TIMERS = {"vela"}


@dataclass(frozen=True)
class Compiled:
    """The result of a compiler.

    Attributes:
        file: the compiled file.
        compiler, version: of the compiler.
        placement: where the compiler placed the operators, with the keys of
            :meth:`edgeprune.hardware.placement.Placement.to_dict`.
        performance: the compiler's own estimate, numbers with the unit in the name; None when it gives none.
        warnings: the compiler's warnings.
    """

    file: Path
    compiler: str
    version: str
    placement: JsonObject
    performance: JsonObject | None = None
    warnings: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> CompiledFacts:
        """The result as JSON types, without the path of the file."""
        return {
            "compiler": self.compiler,
            "version": self.version,
            "placement": dict(self.placement),
            "performance": dict(self.performance) if self.performance else None,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Timing:
    """What a compiler says about the time of a file.

    Attributes:
        milliseconds: of one inference.
        by_tensor: their parts, by the name of the tensor that each makes; what the compiler makes itself is named after
            a tensor of the file, with an ending.
        left: names of the operators that stay on the processor, whose time is not contained.
    """

    milliseconds: float
    by_tensor: Mapping[str, float]
    left: tuple[str, ...]


class Compiler(Protocol):
    """The module of a compiler. ``INSTALL`` tells the user how to install it."""

    INSTALL: str

    def version(self) -> str | None:
        """The installed version; None when it is not installed."""

    def compile_model(self, model: Path, folder: Path, settings: CompilerSettings) -> Compiled:
        """Compile ``model`` into ``folder``."""


class Timer(Compiler, Protocol):
    """The module of a compiler that estimates latency."""

    def time_model(self, model: Path, folder: Path, settings: CompilerSettings) -> Timing:
        """Compile ``model`` into ``folder``, and read what it says of the time of each part."""


def compiler_of(target: Target) -> Compiler | None:
    """The compiler of a target; None when the target has none, or when it is optional and not installed.

    Raises:
        MissingError: the compiler is required and not installed.
    """
    if target.compiler is None:
        return None
    module = cast(Compiler, importlib.import_module(COMPILERS[target.compiler.name]))
    if module.version() is None:
        if target.compiler.required:
            raise _not_installed(target, module)
        return None
    return module


def _not_installed(target: Target, module: Compiler) -> MissingError:
    assert target.compiler is not None
    return MissingError(
        f"The compiler for {target.name}, {target.compiler.name}, is not installed.", fix=module.INSTALL
    )


def compiler_version(target: Target) -> str | None:
    """Name and version of the compiler that a build for this target uses; None when it uses none."""
    compiler = compiler_of(target)
    return f"{target.compiler.name} {compiler.version()}" if compiler and target.compiler else None


def compile_for(target: Target, model: Path, folder: Path) -> Compiled | None:
    """Compile a file for a target into ``folder``; None when :func:`compiler_of` gives no compiler.

    Raises:
        MissingError: the compiler is required and not installed, or did not end in time.
        ConversionError: the compiler refused the model; the message quotes it.
    """
    compiler = compiler_of(target)
    if compiler is None:
        return None
    assert target.compiler is not None
    return compiler.compile_model(model, folder, target.compiler)


def time_for(target: Target, content: bytes) -> Timing:
    """What the compiler of a target says about the time of a .tflite; it is one of :data:`TIMERS`.

    Raises:
        MissingError: the compiler is not installed, or did not end in time.
        ConversionError: the compiler refused the model; the message quotes it.
    """
    assert target.compiler is not None
    timer = cast(Timer, importlib.import_module(COMPILERS[target.compiler.name]))
    if timer.version() is None:
        raise _not_installed(target, timer)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.tflite"
        model.write_bytes(content)
        return timer.time_model(model, Path(folder), target.compiler)
