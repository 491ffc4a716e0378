"""Whether the runtime here loads and runs a file: what no table of rules can say for certain.

The runtime on the board may be another release. One that is installed here is taken for it: the same package if there
is one, else the first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeprune.checking.finding import Finding, Severity
from edgeprune.errors import EdgepruneError, MissingError, ModelError
from edgeprune.runtime.interpreter import Runtime, find_runtime
from edgeprune.runtime.trial import FileRefused, try_file
from edgeprune.target import Target
from edgeprune.tflite import memory
from edgeprune.tflite.graph import Operator
from edgeprune.tflite.prefixes import prefix
from edgeprune.tflite.versions import compiled_operators, runtime_problems
from edgeprune.workers import WorkerDied

if TYPE_CHECKING:
    from edgeprune.checking.check import Subject

# One inference that takes longer hangs: a loop that does not end, for example.
LIMIT_S = 120.0
# A file that asks for more memory is not tried: a board has less, and this machine may have, too.
MOST_BYTES = 4 * 2**30
# "failed to delegate RESIZE_BILINEAR node #63", "Node number 3 (SOFTMAX) failed to prepare."; the number of a part that
# a delegate took is beyond the operators.
_NODE = re.compile(r"(?:node #|Node number )(\d+)")
_XNNPACK = "XNNPack"
# A target's package → that with the same releases here.
_PACKAGES = {"ai-edge-litert": "ai-edge-litert", "litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime"}
# Problems that the table of operators names already, and that another runtime does not have.
_NOT_HERE = {"select", "custom", "compiled"}


def running(subject: Subject, target: Target) -> list[Finding]:
    """A file that the runtime here refuses, or that ends its process."""
    runtime = _runtime_like(target)
    unlike = any(problem.kind in _NOT_HERE for problem in runtime_problems(subject.file, target))
    unlike = unlike or bool(compiled_operators(subject.graph))
    if runtime is None or unlike or memory.plan(subject.graph).arena_bytes > MOST_BYTES:
        return []
    try:
        try_file(subject.path, runtime, LIMIT_S)
    except FileRefused as error:
        if _XNNPACK in error.said and _runs_without_delegate(subject, runtime):
            return [_refused_by_xnnpack(subject, error, runtime, target)]
        return [Finding("error", error.what, _way_out(subject, target), _named(subject, error))]
    except ModelError:  # of open sizes, of which the runtime was given 1, which may be too small
        return []
    except WorkerDied as death:
        return [_died(subject, target, runtime, death)]
    return []


def _runtime_like(target: Target) -> Runtime | None:
    for prefer in (_PACKAGES.get(target.runtime.package), None):
        try:
            return find_runtime(prefer)
        except MissingError:
            continue
    return None


def _runs_without_delegate(subject: Subject, runtime: Runtime) -> bool:
    try:
        try_file(subject.path, runtime, LIMIT_S, kernels="builtin")
    except (ModelError, WorkerDied):
        return False
    return True


def _refused_by_xnnpack(subject: Subject, error: FileRefused, runtime: Runtime, target: Target) -> Finding:
    """An error only where the board has this package: others hand other operators to XNNPACK."""
    severity: Severity = "error" if _PACKAGES.get(target.runtime.package) == runtime.name else "warning"
    what = f"{error.what} That is its default delegate; with the built-in kernels, the file runs."
    fix = "turn the default delegate off (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES in Python)."
    return Finding(severity, what, fix, _named(subject, error))


def _named(subject: Subject, error: FileRefused) -> tuple[str, ...]:
    """Where the first operator comes from that the runtime names."""
    operators = subject.graph.operators
    named = [operators[number] for number in map(int, _NODE.findall(error.said)) if number < len(operators)]
    return tuple(map(subject.where, named[:1]))


def _died(subject: Subject, target: Target, runtime: Runtime, death: WorkerDied) -> Finding:
    operator = _operator_at_fault(subject, runtime)
    said = f": {death.said}" if death.said else ""
    what = f"{runtime.version} does not survive the file: its process {death.how}{said}."
    return Finding("error", what, _way_out(subject, target), (subject.where(operator),) if operator else ())


def _operator_at_fault(subject: Subject, runtime: Runtime) -> Operator | None:
    """The operator that ends the shortest beginning of the graph which is fatal, by bisection."""
    content = subject.path.read_bytes()
    operators = subject.graph.operators
    alive, dead = 0, len(operators)
    if not dead or _dies(prefix(content, 0), runtime):
        return None
    while dead - alive > 1:
        middle = (alive + dead) // 2
        if _dies(prefix(content, middle), runtime):
            dead = middle
        else:
            alive = middle
    return operators[dead - 1]


def _dies(content: bytes, runtime: Runtime) -> bool:
    try:
        try_file(content, runtime, LIMIT_S)
    except WorkerDied:
        return True
    except EdgepruneError:
        return False
    return False


def _way_out(subject: Subject, target: Target) -> str:
    if subject.keras is None:
        return "convert the model again, with a newer converter or to another number format."
    from edgeprune.checking.trial import working_mode

    works = working_mode(subject.keras, target, subject.format)
    if works is None:
        return "replace the layer."
    return f'replace the layer; or build it as {works}, which works: `[quantize] modes = ["{works}"]`.'
