"""Vendors' compilers: what turns a finished .tflite into the file that a target's accelerator runs.

A target names its compiler in ``[compiler]``; a new compiler is an entry in :data:`COMPILERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgeprune.artifact import CompiledFacts
from edgeprune.errors import MissingError
from edgeprune.target import CompilerSettings, Target

# Name in [compiler] → module with version() and compile_model().
COMPILERS = {"edgetpu": "edgeprune.hardware.edgetpu.compiler", "vela": "edgeprune.hardware.vela_compiler"}


@dataclass(frozen=True)
class Compiled:
    """What a compiler made of a .tflite.

    Attributes:
        file: the artifact.
        compiler, version: who made it.
        placement: accelerator_ops, cpu_ops, fully_mapped and what else the compiler says about operators.
        performance: its own estimate, numbers with the unit in the name; None when it gives none.
        warnings: what it complained about.
    """

    file: Path
    compiler: str
    version: str
    placement: Mapping[str, Any]
    performance: Mapping[str, Any] | None = None
    warnings: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> CompiledFacts:
        """JSON types, without the path."""
        return {
            "compiler": self.compiler,
            "version": self.version,
            "placement": dict(self.placement),
            "performance": dict(self.performance) if self.performance else None,
            "warnings": list(self.warnings),
        }


class Compiler(Protocol):
    """A module of a compiler."""

    INSTALL: str

    def version(self) -> str | None:
        """The installed version; None when it is not installed."""

    def compile_model(self, model: Path, folder: Path, settings: CompilerSettings) -> Compiled:
        """Compile ``model`` into ``folder``."""


def compiler_of(target: Target) -> Compiler | None:
    """The compiler of a target; None when it has none, or has one that may be missing and is.

    Raises:
        MissingError: the target cannot do without its compiler, and that is not installed.
    """
    if target.compiler is None:
        return None
    module: Any = importlib.import_module(COMPILERS[target.compiler.name])
    if module.version() is None:
        if target.compiler.required:
            raise MissingError(
                f"The compiler for {target.name}, {target.compiler.name}, is not installed.", fix=module.INSTALL
            )
        return None
    return module


def compiler_version(target: Target) -> str | None:
    """Name and version of the compiler that a build for this target will use; None for none."""
    compiler = compiler_of(target)
    return f"{target.compiler.name} {compiler.version()}" if compiler and target.compiler else None


def compile_for(target: Target, model: Path, folder: Path) -> Compiled | None:
    """Compile a file for a target; None when :func:`compiler_of` says that nothing compiles.

    Raises:
        MissingError: the compiler is required and missing, or did not end in time.
        ConversionError: the compiler refused the model, with its own words.
    """
    compiler = compiler_of(target)
    if compiler is None:
        return None
    assert target.compiler is not None
    return compiler.compile_model(model, folder, target.compiler)
