"""How many channels do the kernels of an emulated Cortex-A72 compute at once? Instructions against channels.

    python benchmarks/vector_width.py > benchmarks/results/vector_width.md

A 1x1 and a 3x3 convolution with N output channels each, on 64 input channels of 16x16, for several N. Counts rise in
steps as wide as the vectors that the kernels fill. The counts are exact: other work on the machine does not matter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeprune._tensorflow import import_tf

CHANNELS = (4, 8, 10, 12, 14, 16, 20, 24, 28, 32)
DTYPES = {"float32": False, "int8": True}
RUNTIMES = ("ai-edge-litert", "tflite-runtime")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    columns = [f"{runtime}, {dtype}" for runtime in RUNTIMES for dtype in DTYPES]
    print("# Instructions against channels\n\n`python benchmarks/vector_width.py`: thousands of instructions for one")
    print("inference of a 1x1 and a 3x3 convolution with as many channels, on an emulated Cortex-A72.\n")
    print(f"| channels | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for channels in CHANNELS:
            files = {dtype: _convert(channels, integer, Path(folder)) for dtype, integer in DTYPES.items()}
            counts = [_instructions(files[dtype], runtime) for runtime in RUNTIMES for dtype in DTYPES]
            print(f"| {channels} | {' | '.join(f'{count / 1e3:,.0f}' for count in counts)} |", flush=True)


def _convert(channels: int, integer: bool, folder: Path) -> Path:
    import numpy as np

    tf = import_tf()
    import tf_keras

    image = tf_keras.Input((16, 16, 64), batch_size=1)
    x = tf_keras.layers.Conv2D(channels, 1, activation="relu")(image)
    x = tf_keras.layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
    converter = tf.lite.TFLiteConverter.from_keras_model(
        tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x))
    )
    if integer:
        generator = np.random.default_rng(0)
        samples = [generator.random((1, 16, 16, 64), np.float32) for _ in range(8)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path = folder / f"{channels}-{'int8' if integer else 'float32'}.tflite"
    path.write_bytes(converter.convert())
    return path


def _instructions(path: Path, runtime: str) -> int:
    command = [sys.executable, "-m", "edgeprune", "bench", str(path), "--device", "emulator", "--runtime", runtime]
    command += ["--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["results"][0]["instructions"]


if __name__ == "__main__":
    main()
