"""What do recurrent layers, attention and layer normalization cost in int8 on an emulated Cortex-A72? Instructions.

    python benchmarks/recurrent.py > benchmarks/results/recurrent.md

One layer each, as float32 and int8: an LSTM, which the converter fuses; a GRU, which is a loop in float32 and written
out in int8; self-attention of 4 heads over the steps; and layer normalization. The counts are exact: other work on the
machine does not matter. Beside the ratio of instructions stands that of the latency estimates for a Raspberry Pi 4 on
one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeprune._tensorflow import import_tf

# steps, features, units
SIZES = ((40, 23, 32), (20, 64, 128))
LAYERS = ("LSTM", "GRU", "attention", "LayerNormalization")
RUNTIMES = {"ai-edge-litert": "ai-edge-litert 2.1.6", "tflite-runtime": "tflite-runtime 2.14.0"}
DTYPES = ("float32", "int8")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("# Recurrent layers in int8\n\n`python benchmarks/recurrent.py`: thousands of instructions for one inference")
    print("on an emulated Cortex-A72, and how many times those of float32 int8 takes.\n")
    columns = " | ".join(
        f"{runtime}, {dtype}" for runtime in RUNTIMES for dtype in (*DTYPES, "ratio", "estimated ratio")
    )
    print(f"| layer | steps, features, units | multiply-accumulates | {columns} |\n{'|---' * 11}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for layer in LAYERS:
            for size in SIZES:
                print(f"| {' | '.join(_row(layer, size, Path(folder)))} |", flush=True)


def _row(layer: str, size: tuple[int, int, int], folder: Path) -> list[str]:
    files = [_convert(layer, size, dtype, folder) for dtype in DTYPES]
    cells = [layer, ", ".join(map(str, size)), f"{_macs(files[1]):,}"]
    for runtime in RUNTIMES:
        single, integer = (_instructions(file, runtime) for file in files)
        cells += ["crashes" if count is None else f"{count / 1e3:,.0f}" for count in (single, integer)]
        cells += [_ratio(integer, single), _ratio(*(_estimated_ms(file, runtime) for file in files[::-1]))]
    return cells


def _ratio(integer: float | None, single: float | None) -> str:
    return f"{integer / single:.2f}" if single and integer else "–"


def _convert(layer: str, size: tuple[int, int, int], dtype: str, folder: Path) -> Path:
    import numpy as np

    import_tf()
    import tf_keras

    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    steps, features, units = size
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input([steps, features])
    model = tf_keras.Model(x, _applied(tf_keras.layers, layer, units, x))
    samples = np.random.default_rng(0).normal(0, 1, [8, 1, steps, features]).astype("float32")
    plan = QuantizationPlan(dtype, "float", dtype == "int8")  # type: ignore[arg-type]
    path = folder / f"{layer}-{steps}-{units}-{dtype}.tflite"
    path.write_bytes(convert(model, plan, lambda: ([sample] for sample in samples)))
    return path


def _applied(layers: Any, layer: str, units: int, x: Any) -> Any:
    if layer == "attention":
        return layers.MultiHeadAttention(4, units // 4)(x, x)
    return layers.LayerNormalization()(x) if layer == "LayerNormalization" else getattr(layers, layer)(units)(x)


def _estimated_ms(path: Path, runtime: str) -> float | None:
    """The latency estimate for a Raspberry Pi 4 under a runtime; None for a file with a loop."""
    from edgeprune.profiling.profile import profile
    from edgeprune.target import load_target, with_runtime

    estimated = profile(path, with_runtime(load_target("rpi4"), RUNTIMES[runtime]), threads=1).latency.estimated
    return estimated.median_ms if estimated else None


def _macs(path: Path) -> int:
    from edgeprune.tflite.flatbuffer import read
    from edgeprune.tflite.macs import macs

    return macs(read(path))


def _instructions(path: Path, runtime: str) -> int | None:
    """Of one inference; None when the runtime does not survive the file."""
    command = [sys.executable, "-m", "edgeprune", "bench", str(path), "--device", "emulator", "--runtime", runtime]
    command += ["--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "Segmentation fault" in done.stderr:
        return None
    done.check_returncode()
    return json.loads(done.stdout)["results"][0]["instructions"]


if __name__ == "__main__":
    main()
