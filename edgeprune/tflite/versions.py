"""Which release of a runtime a file needs: one that knows every operator version in it.

A runtime that is too old stops with "Didn't find op for builtin opcode 'X' version 'N'". The table
``operator_versions.csv`` holds, per operator and version,

- ``tensorflow``: the first TensorFlow release with it, as TensorFlow itself says
  (``FindMinimumRuntimeVersionForOp`` in ``tensorflow/compiler/mlir/lite/tools/versioning/runtime_version.cc``, read at
  commit 03f49db5). tflite-runtime carries TensorFlow's numbers; tflite-runtime 2.14.0 was asked for every row and
  accepts exactly those up to 2.14.0.
- ``litert``: the first ai-edge-litert release that accepts it. ai-edge-litert has numbers of its own, so the releases
  1.0.0, 1.0.1, 1.1.0, 1.1.2, 1.2.0, 1.3.0, 1.4.0, 2.0.3, 2.1.0, 2.1.6, 2.2.0 and 2.3.0 were asked, with a model of one
  operator code per row. Releases between these are assumed to know what the one before them knows.

An empty cell says that no release is known.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edgeprune.tflite.graph import Subgraph, TFLiteModel
from edgeprune.tflite.micro import unregistered

if TYPE_CHECKING:
    from edgeprune.target import Target

Version = tuple[int, ...]

# Package on the device → the column of the table with its release numbers.
PACKAGES = {
    "ai-edge-litert": "litert",
    "litert": "litert",  # Maven; assumed to have the release numbers of the Python package
    "tensorflow": "tensorflow",
    "tensorflow-lite": "tensorflow",  # Maven
    "tflite-runtime": "tensorflow",
}
# Custom operators that are part of the runtimes (register.cc).
_BUNDLED_CUSTOM = {"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"}
# Custom operators of MediaPipe's that no runtime has kernels for, and that XNNPACK, the default delegate, computes in
# float32 (xnnpack_delegate.cc, VisitMediaPipe…) → by column of the table, the first release that hands them to it.
# ai-edge-litert 1.0.1 to 2.3.0 and TensorFlow 2.17 and 2.21 run them; TensorFlow 2.16 and tflite-runtime 2.14.0 do not.
MEDIAPIPE = frozenset({"Convolution2DTransposeBias", "MaxPoolingWithArgmax2D", "MaxUnpooling2D"})
_MEDIAPIPE_RELEASES: dict[str, Version] = {"litert": (1, 0, 0), "tensorflow": (2, 17, 0)}
# Custom operator that a compiler puts in place of the operators it compiled → the compiler, and what runs the operator
# on the device.
COMPILED = {"edgetpu-custom-op": ("edgetpu", "libedgetpu"), "ethos-u": ("vela", "the Ethos-U driver")}


# select: an operator of full TensorFlow; custom: one of the user's own; compiled: what a compiler for another
# accelerator left; delegate: one that the default delegate of newer runtimes brings; newer: a built-in one that came
# after the runtime; unknown: one whose first release is not known; micro: one that microcontrollers do not have.
ProblemKind = Literal["select", "custom", "compiled", "delegate", "newer", "unknown", "micro"]
_SENTENCES: dict[ProblemKind, str] = {
    "select": "{operator} is a TensorFlow operator: it runs only where the Flex delegate (Select TF ops) is linked in.",
    "custom": "{operator} is a custom operator: it runs only where the application registers it.",
    "compiled": "{operator} runs only through {library}.",
    "delegate": (
        "{operator} is run by XNNPACK, the default delegate, under {package} {needed} or later, and {target} is "
        'assumed to have {assumed}, which stops with "Encountered unresolved custom op: {operator}". {remedy}'
    ),
    "newer": (
        "{operator} version {version} needs {package} {needed} or later, and {target} is assumed to have {assumed}, "
        "which stops with \"Didn't find op for builtin opcode '{operator}' version '{version}'\". {remedy}"
    ),
    "unknown": (
        "It is not known which {package} release first runs {operator} version {version}; try the file on the device "
        "before relying on it."
    ),
    "micro": "{operator} is not among the operators of TensorFlow Lite Micro.",
}


@dataclass(frozen=True)
class RuntimeProblem:
    """An operator that a target's runtime may not run.

    Attributes:
        kind: why not.
        operator: its name.
        details: what else the sentence about it says.
    """

    kind: ProblemKind
    operator: str
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The sentence or two for the user."""
        return _SENTENCES[self.kind].format(operator=self.operator, **self.details)


def parse_version(text: str) -> Version:
    """The release numbers of a version: '2.5.0.post1' is (2, 5, 0)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def format_version(version: Version) -> str:
    """Inverse of :func:`parse_version`: (2, 5, 0) is '2.5.0'."""
    return ".".join(map(str, version))


def first_release(operator: str, version: int, package: str) -> Version | None:
    """The first release of ``package`` that runs an operator version; None when none is known.

    Raises:
        KeyError: a package that is not in :data:`PACKAGES`.
    """
    return _table()[PACKAGES[package]].get((operator, version))


def min_runtime(model: TFLiteModel, package: str = "tflite-runtime") -> Version | None:
    """The first release of ``package`` that runs every operator version in the model.

    None when the model has no built-in operator, or one whose first release is not known.
    """
    releases = [first_release(name, version, package) for name, version in _builtins(model)]
    known = [release for release in releases if release is not None]
    return max(known) if known and len(known) == len(releases) else None


def runtime_problems(model: TFLiteModel, target: Target) -> list[RuntimeProblem]:
    """What in the model the target's runtime may not run: custom operators first."""
    if target.micro is not None:
        return [RuntimeProblem("micro", name) for name in unregistered(model)]
    return [*_custom_operators(model, target), *_new_versions(model, target)]


def compiled_operators(graph: Subgraph) -> tuple[str, ...]:
    """Names of the operators in a graph that a compiler for an accelerator put there."""
    return tuple(dict.fromkeys(op.name for op in graph.operators if op.custom and op.name in COMPILED))


def _new_versions(model: TFLiteModel, target: Target) -> Iterator[RuntimeProblem]:
    package, assumed = target.runtime.package, parse_version(target.runtime.version)
    for name, version in _builtins(model):
        needed = first_release(name, version, package)
        details: dict[str, object] = {"version": version, "package": package}
        if needed is None:
            yield RuntimeProblem("unknown", name, details)
        elif needed > assumed:
            details |= {"needed": format_version(needed), "target": target.name, "assumed": target.runtime.version}
            yield RuntimeProblem("newer", name, details | {"remedy": _remedy(name, version)})


def _remedy(name: str, version: int) -> str:
    release = first_release(name, version, "ai-edge-litert")
    if release is None:
        return "Convert to another number format."
    return f"{_install(release)[:-1]}, or convert to another number format."


def _install(release: Version) -> str:
    return f"Install ai-edge-litert {format_version(release)} or later on it."


def _custom_operators(model: TFLiteModel, target: Target) -> Iterator[RuntimeProblem]:
    own = target.compiler.name if target.compiler else None
    for name, custom, _ in dict.fromkeys(model.operator_codes):
        if not custom or name in _BUNDLED_CUSTOM:
            continue
        if name.startswith("Flex"):
            yield RuntimeProblem("select", name)
        elif name in COMPILED:
            compiler, library = COMPILED[name]
            if compiler != own:  # the target's own compiler made it, so the target can run it
                yield RuntimeProblem("compiled", name, {"library": library})
        elif name in MEDIAPIPE and _in_float32(model, name):
            yield from _delegated(name, target)
        else:
            yield RuntimeProblem("custom", name)


def _delegated(name: str, target: Target) -> Iterator[RuntimeProblem]:
    needed = _MEDIAPIPE_RELEASES[PACKAGES[target.runtime.package]]
    if parse_version(target.runtime.version) < needed:
        details = {
            "package": target.runtime.package,
            "needed": format_version(needed),
            "target": target.name,
            "assumed": target.runtime.version,
            "remedy": _install(_MEDIAPIPE_RELEASES["litert"]),
        }
        yield RuntimeProblem("delegate", name, details)


def _in_float32(model: TFLiteModel, name: str) -> bool:
    """Whether all operators of a name read and write float32, without which XNNPACK leaves them."""
    return all(
        graph.tensors[index].dtype == "float32"
        for graph in model.subgraphs
        for operator in graph.operators
        if operator.name == name
        for index in (*operator.inputs, *operator.outputs)
        if index >= 0
    )


def _builtins(model: TFLiteModel) -> list[tuple[str, int]]:
    return list(dict.fromkeys((name, version) for name, custom, version in model.operator_codes if not custom))


@functools.cache
def _table() -> dict[str, dict[tuple[str, int], Version]]:
    text = importlib.resources.files("edgeprune.tflite").joinpath("operator_versions.csv").read_text("utf-8")
    columns: dict[str, dict[tuple[str, int], Version]] = {"tensorflow": {}, "litert": {}}
    for row in csv.DictReader(text.splitlines()):
        for column, releases in columns.items():
            if row[column]:
                releases[row["operator"], int(row["version"])] = parse_version(row[column])
    return columns
