"""edgetpu_compiler: run it, and read what it prints.

Google publishes it for x86-64 Debian only (https://coral.ai/docs/edgetpu/compiler/). Its output changed over the
versions: 1.0 and 2.0 say how much memory was available for caching before, 14 and later how much remains after.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import ConversionError
from edgeprune.external import call, find
from edgeprune.hardware.compilers import Compiled
from edgeprune.hardware.edgetpu.rules import MAPPED
from edgeprune.target import CompilerSettings

COMMAND = "edgetpu_compiler"
INSTALL = "install edgetpu_compiler: https://coral.ai/docs/edgetpu/compiler/ (x86-64 Linux)."
# The compiler stops itself after 180 s.
TIMEOUT_S = 240
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = r"([\d.]+)\s*([KMG]i?B|B)"
_FIELDS = {
    "on_chip_used_bytes": rf"On-chip memory used for caching model parameters:\s*{_SIZE}",
    "on_chip_remaining_bytes": rf"On-chip memory remaining for caching model parameters:\s*{_SIZE}",
    "on_chip_available_bytes": rf"On-chip memory available for caching model parameters:\s*{_SIZE}",
    "off_chip_bytes": rf"Off-chip memory used for streaming uncached (?:model parameters|params):\s*{_SIZE}",
    "input_bytes": rf"Input size:\s*{_SIZE}",
    "output_bytes": rf"Output size:\s*{_SIZE}",
}
_COUNTS = {
    "subgraphs": r"Number of Edge TPU subgraphs:\s*(\d+)",
    "operations": r"Total number of operations:\s*(\d+)",
    "edgetpu_ops": r"Number of operations that will run on Edge TPU:\s*(\d+)",
    "cpu_ops": r"Number of operations that will run on CPU:\s*(\d+)",
}
_ROW = re.compile(r"^([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*?)\s*$")
_FAILURES = re.compile(r"^(?:ERROR: .*|Compilation failed.*|Internal compiler error.*|Invalid model.*)$", re.MULTILINE)


@dataclass(frozen=True)
class OperatorStatus:
    """A row of the operator table."""

    name: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        return self.status == MAPPED


@dataclass(frozen=True)
class ModelLog:
    """What the compiler printed about one model; None where this version or log does not say.

    Sizes are printed with three digits, so bytes are rounded to that.
    """

    version: str | None
    model: str | None
    succeeded: bool
    operators: tuple[OperatorStatus, ...]
    on_chip_used_bytes: int | None = None
    on_chip_remaining_bytes: int | None = None
    on_chip_available_bytes: int | None = None
    off_chip_bytes: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    subgraphs: int | None = None
    operations: int | None = None
    edgetpu_ops: int | None = None
    cpu_ops: int | None = None
    errors: tuple[str, ...] = ()
    truncated: bool = False  # the console leaves out rows: 'All other operators were mapped successfully'

    @property
    def mapped_ops(self) -> int:
        """Operators on the Edge TPU: as printed, else counted in the table."""
        if self.edgetpu_ops is not None:
            return self.edgetpu_ops
        return sum(row.count for row in self.operators if row.mapped)

    @property
    def unmapped_ops(self) -> int:
        """Operators on the CPU."""
        if self.cpu_ops is not None:
            return self.cpu_ops
        return sum(row.count for row in self.operators if not row.mapped)


def parse_log(text: str) -> list[ModelLog]:
    """The console output or the ``.log`` file of edgetpu_compiler, one entry for each model in it.

    A failed compilation gives one entry with ``succeeded`` false and the compiler's words in ``errors``.
    """
    version = _first(r"Edge TPU Compiler version ([\d.]+)", text)
    # Several models in one run are compiled together; each has a section of its own.
    starts = [match.start() for match in re.finditer(r"^Input(?: model)?: ", text, re.MULTILINE)]
    sections = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)] if starts else [text]
    errors = tuple(dict.fromkeys(line.strip() for line in _FAILURES.findall(text)))
    return [_section(section, version, errors) for section in sections]


def _section(text: str, version: str | None, errors: tuple[str, ...]) -> ModelLog:
    sizes = {name: _bytes(re.search(pattern, text)) for name, pattern in _FIELDS.items()}
    counts = {name: _integer(_first(pattern, text)) for name, pattern in _COUNTS.items()}
    rows = [_ROW.match(line.strip()) for line in text.splitlines()]
    operators = tuple(OperatorStatus(row[1], int(row[2]), row[3]) for row in rows if row)
    known = bool(operators) or counts["edgetpu_ops"] is not None or sizes["on_chip_used_bytes"] is not None
    return ModelLog(
        version=version,
        model=_first(r"^Input(?: model)?: (.+?)\s*$", text),
        succeeded=known,
        operators=operators,
        errors=() if known else errors,
        truncated="All other operators were mapped" in text,
        **sizes,
        **counts,
    )


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _integer(text: str | None) -> int | None:
    return int(text) if text else None


def _bytes(match: re.Match[str] | None) -> int | None:
    return round(float(match[1]) * _UNITS[match[2]]) if match else None


def version() -> str | None:
    """The version of the installed compiler; None when it is not on PATH."""
    path = find(COMMAND)
    if path is None:
        return None
    return _first(r"version ([\d.]+)", call([path, "--version"], timeout_s=30, fix=INSTALL).text) or "unknown"


def compile_model(model: Path, folder: Path, settings: CompilerSettings) -> Compiled:
    """Compile a full-integer .tflite.

    Raises:
        MissingError: the compiler is not there, or did not end in time.
        ConversionError: it refused the model.
    """
    path = find(COMMAND)
    command = [path or COMMAND, "--show_operations", *settings.arguments, "--out_dir", folder, model]
    logs = parse_log(call(command, timeout_s=TIMEOUT_S, fix=INSTALL).text)
    artifact = folder / f"{model.stem}_edgetpu.tflite"
    if not logs[0].succeeded or not artifact.is_file():
        words = "; ".join(logs[0].errors) or "it wrote no file"
        raise ConversionError(f"{COMMAND} refused the model: {words}.", fix="`edgeprune check FILE --target coral`.")
    return Compiled(
        file=artifact,
        compiler=COMMAND,
        version=logs[0].version or "unknown",
        placement=placement_of(logs[0]),
        warnings=_failed_words(logs[0]),
    )


def placement_of(log: ModelLog) -> dict[str, object]:
    """The compiler's word, in the keys of a predicted placement."""
    return {
        "processor": "Edge TPU",
        "source": f"{COMMAND} {log.version or ''}".strip(),
        "accelerator_ops": log.mapped_ops,
        "cpu_ops": log.unmapped_ops,
        "uncertain_ops": 0,
        "fully_mapped": log.mapped_ops > 0 and log.unmapped_ops == 0,
        "partitions": log.subgraphs,
        "cached_param_bytes": log.on_chip_used_bytes,
        "streamed_param_bytes": log.off_chip_bytes,
        "not_mapped": [
            {"name": row.name, "count": row.count, "status": row.status} for row in log.operators if not row.mapped
        ],
    }


def _failed_words(log: ModelLog) -> tuple[str, ...]:
    return (f"{log.unmapped_ops} operators run on the host's CPU.",) if log.unmapped_ops else ()
