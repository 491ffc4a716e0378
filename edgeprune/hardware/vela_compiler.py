"""Vela, Arm's compiler for Ethos-U: run it, and read its summary.

https://pypi.org/project/ethos-u-vela; the summary's columns are described in its PERFORMANCE.md. Its cycles are an
estimate of the compiler for one system configuration, not a measurement.
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
from edgeprune.hardware.compilers import Compiled
from edgeprune.target import CompilerSettings
from edgeprune.tflite.flatbuffer import read

PACKAGE = "ethos-u-vela"
COMMAND = "vela"
INSTALL = "pip install ethos-u-vela"
TIMEOUT_S = 600
# Column of the summary → our key and the factor to its unit.
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
    """The version installed beside edgeprune; None when it is not."""
    if importlib.util.find_spec("ethosu") is None or importlib.util.find_spec("ethosu.vela") is None:
        return None
    return metadata.version(PACKAGE)


def compile_model(model: Path, folder: Path, settings: CompilerSettings) -> Compiled:
    """Compile a full-integer .tflite.

    Args:
        settings: its arguments name the accelerator, system configuration and memory mode.

    Raises:
        MissingError: Vela is not installed, or did not end in time.
        ConversionError: Vela refused the model, with its own words.
    """
    options = ["--show-cpu-operations", "--output-dir", str(folder)]
    command = [sys.executable, "-m", "ethosu.vela", *settings.arguments, *options, str(model)]
    text = call(command, timeout_s=TIMEOUT_S, fix=INSTALL).text
    artifact = folder / f"{model.stem}_vela.tflite"
    summaries = sorted(folder.glob(f"{model.stem}_summary_*.csv"))
    if not artifact.is_file() or not summaries:
        last = (text.strip().splitlines() or ["it printed nothing"])[-1]
        raise ConversionError(f"Vela wrote no model: {last}.", fix="`edgeprune check FILE --target NAME`.")
    performance = parse_summary(summaries[-1].read_text("utf-8"))
    return Compiled(
        file=artifact,
        compiler=COMMAND,
        version=version() or "unknown",
        placement=parse_placement(model, artifact, text, settings),
        performance=performance,
        warnings=tuple(dict.fromkeys(_WARNING.findall(text))),
    )


def parse_summary(text: str) -> dict[str, float | int]:
    """The last row of Vela's summary CSV as numbers with the unit in the name.

    Raises:
        ConversionError: not a summary of Vela.
    """
    rows = list(csv.DictReader(text.splitlines()))
    missing = sorted({"cycles_total", "inference_time", "sram_memory_used"} - set(rows[-1] if rows else ()))
    if missing:
        raise ConversionError(f"Vela's summary lacks {', '.join(missing)}.", fix="install another version of Vela.")
    found: dict[str, float | int] = {}
    for column, (key, factor) in _NUMBERS.items():
        if rows[-1].get(column):
            value = float(rows[-1][column]) * factor
            found[key] = value if key in _FLOATS else round(value)
    return found


def parse_placement(model: Path, artifact: Path, text: str, settings: CompilerSettings) -> dict[str, object]:
    """Operators of ``model`` on the NPU and on the CPU: those that stand in ``artifact`` beside the NPU's own.

    Vela's own counts are of operators after its rewriting, several for each in the file.
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
