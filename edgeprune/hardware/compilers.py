"""Vendors' compilers, which turn a finished .tflite into the file that a target's accelerator runs.

A target names its compiler in ``[compiler]``; a new compiler is an entry in :data:`COMPILERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from edgeprune.artifact import CompiledFacts
from edgeprune.errors import MissingError
from edgeprune.files import JsonObject
from edgeprune.target import CompilerSettings, Target

# Name in [compiler] → module with the attributes of :class:`Compiler`.
COMPILERS = {"edgetpu": "edgeprune.hardware.edgetpu.compiler", "vela": "edgeprune.hardware.vela_compiler"}


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


class Compiler(Protocol):
    """The module of a compiler. ``INSTALL`` tells the user how to install it."""

    INSTALL: str

    def version(self) -> str | None:
        """The installed version; None when it is not installed."""

    def compile_model(self, model: Path, folder: Path, settings: CompilerSettings) -> Compiled:
        """Compile ``model`` into ``folder``."""


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
            raise MissingError(
                f"The compiler for {target.name}, {target.compiler.name}, is not installed.", fix=module.INSTALL
            )
        return None
    return module


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
