"""Run Vela, Arm's compiler for Ethos-U, and read its summary.

https://pypi.org/project/ethos-u-vela; the summary's columns are described in its PERFORMANCE.md. Cycles are the
compiler's estimate for one system configuration, not a measurement.
"""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

from edgeprune.errors import ConversionError
from edgeprune.external import call
from edgeprune.files import JsonObject
from edgeprune.hardware.compilers import Compiled, Timing
from edgeprune.target import CompilerSettings
from edgeprune.tflite.flatbuffer import read

PACKAGE = "ethos-u-vela"
COMMAND = "vela"
INSTALL = "pip install ethos-u-vela"
TIMEOUT_S = 600
# Column of the summary → key in ``performance``, and the factor to the unit in its name.
_NUMBERS = {
    "cycles_total": ("cycles", 1),
    "cycles_npu": ("npu_cycles", 1),
    "inference_time": ("inference_ms", 1000),
    "core_clock": ("clock_hz", 1),
    "sram_memory_used": ("sram_bytes", 1024),
    "off_chip_flash_memory_used": ("flash_bytes", 1024),
    "dram_memory_used": ("dram_bytes", 1024),
    "nn_macs": ("macs", 1),
    "total_original_weights": ("weight_bytes", 1),
    "total_npu_encoded_weights": ("encoded_weight_bytes", 1),
}
_FLOATS = {"inference_ms"}
_REASON = re.compile(r"^Warning \(supported operators\) operator: (\w+), .*\nReason: (.+)$", re.MULTILINE)
NPU_OPERATOR = "ethos-u"
_WARNING = re.compile(r"^Warning: (.+)$", re.MULTILINE)


def version() -> str | None:
    """The version in this Python environment; None when Vela is not installed."""
    if importlib.util.find_spec("ethosu") is None or importlib.util.find_spec("ethosu.vela") is None:
        return None
    return metadata.version(PACKAGE)


def compile_model(model: Path, folder: Path, settings: CompilerSettings) -> Compiled:
    """Compile a full-integer .tflite.

    Args:
        model: the .tflite.
        folder: where Vela writes.
        settings: its arguments name the accelerator, system configuration and memory mode.

    Raises:
        MissingError: Vela cannot be started, or did not end in time.
        ConversionError: Vela refused the model; the message quotes it.
    """
    options = ["--show-cpu-operations", "--output-dir", str(folder)]
    command = [sys.executable, "-m", "ethosu.vela", *settings.arguments, *options, str(model)]
    text = call(command, timeout_s=TIMEOUT_S, fix=INSTALL).text
    artifact = folder / f"{model.stem}_vela.tflite"
    summaries = sorted(folder.glob(f"{model.stem}_summary_*.csv"))
    if not artifact.is_file() or not summaries:
        last = (text.strip().splitlines() or ["it printed nothing"])[-1]
        raise ConversionError(
            f"Vela wrote no model: {last}.",
            fix="`edgeprune check FILE --target NAME` shows which operators Ethos-U cannot run.",
        )
    performance = parse_summary(summaries[-1].read_text("utf-8"))
    return Compiled(
        file=artifact,
        compiler=COMMAND,
        version=version() or "unknown",
        placement=parse_placement(model, artifact, text, settings),
        performance=performance,
        warnings=tuple(dict.fromkeys(_WARNING.findall(text))),
    )


def time_model(model: Path, folder: Path, settings: CompilerSettings) -> Timing:
    """Compile a full-integer .tflite, and read its time, operator by operator.

    Args:
        model, folder, settings: as for :func:`compile_model`.

    Raises:
        MissingError, ConversionError: as :func:`compile_model`; or Vela wrote no times of operators.
    """
    told = settings.model_copy(update={"arguments": (*settings.arguments, "--verbose-performance")})
    made = compile_model(model, folder, told)
    tables = sorted(folder.glob(f"{model.stem}*_per-layer.csv"))
    cycles = parse_layers(tables[-1].read_text("utf-8") if tables else "")
    assert made.performance is not None
    milliseconds = made.performance["inference_ms"]
    whole = sum(cycles.values()) or 1.0
    return Timing(
        milliseconds,
        {name: milliseconds * part / whole for name, part in cycles.items()},
        tuple(row["name"] for row in made.placement["not_mapped"]),
    )


def parse_layers(text: str) -> dict[str, float]:
    """Cycles by the name of the tensor that is made, from Vela's table of its operators.

    Raises:
        ConversionError: not such a table.
    """
    rows = csv.DictReader(text.splitlines())
    missing = sorted({"Name", "Op Cycles"} - set(rows.fieldnames or ()))
    if missing:
        raise ConversionError(
            f"Vela's table of operators lacks {', '.join(missing)}.", fix="install another version of Vela."
        )
    cycles: dict[str, float] = {}
    for row in rows:
        cycles[row["Name"]] = cycles.get(row["Name"], 0.0) + float(row["Op Cycles"])
    return cycles


def parse_summary(text: str) -> dict[str, float | int]:
    """The last row of Vela's summary CSV as numbers with the unit in the name.

    Raises:
        ConversionError: not a summary of Vela.
    """
    rows = list(csv.DictReader(text.splitlines()))
    missing = sorted({"cycles_total", "inference_time", "sram_memory_used"} - set(rows[-1] if rows else ()))
    if missing:
        raise ConversionError(f"Vela's summary lacks {', '.join(missing)}.", fix="install another version of Vela.")
    numbers: dict[str, float | int] = {}
    for column, (key, factor) in _NUMBERS.items():
        if rows[-1].get(column):
            value = float(rows[-1][column]) * factor
            numbers[key] = value if key in _FLOATS else round(value)
    return numbers


def parse_placement(model: Path, artifact: Path, text: str, settings: CompilerSettings) -> JsonObject:
    """Where the operators of ``model`` run: on the CPU those that are left in ``artifact``, on the NPU all others.

    Vela's own counts are not used: they are of its internal operators, several for each in the file.
    """
    before, after = read(model).subgraphs[0].operators, read(artifact).subgraphs[0].operators
    reasons = {name.upper(): reason.strip() for name, reason in _REASON.findall(text)}
    left = [op.name for op in after if op.name != NPU_OPERATOR]
    return {
        "processor": settings.processor or "Ethos-U",
        "source": f"{COMMAND} {version()}",
        "accelerator_ops": max(len(before) - len(left), 0),
        "cpu_ops": len(left),
        "uncertain_ops": 0,
        "fully_mapped": not left,
        "partitions": len(after) - len(left),
        "cached_param_bytes": None,
        "streamed_param_bytes": None,
        "not_mapped": [{"name": name, "status": reasons.get(name, "placed on the CPU by Vela")} for name in left],
    }
