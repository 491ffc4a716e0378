"""What do float32 1x1 convolutions cost whose channels are no multiple of 8? Instructions on an emulated Cortex-A72.

    python benchmarks/odd_channels.py > benchmarks/results/odd_channels.md

One 1x1 convolution from 64 channels of 16x16 to N channels, for 40 widths N, under both runtimes of the emulated board.
Thousands of instructions for one inference, and how many times those of the next multiple of 8 it takes. The counts are
exact: other work on the machine does not matter.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeprune._tensorflow import import_tf

WIDTHS = tuple(range(25, 65))
RUNTIMES = ("ai-edge-litert", "tflite-runtime")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [_convert(width, Path(folder)) for width in WIDTHS]
        counts = {runtime: _instructions(files, runtime) for runtime in RUNTIMES}
    print(
        "# Float 1x1 convolutions of odd widths\n\n`python benchmarks/odd_channels.py`: thousands of instructions for"
    )
    print("one inference of a 1x1 convolution from 64 channels of 16x16 to as many, on an emulated Cortex-A72, and how")
    print("many times those of the next multiple of 8.\n")
    print(f"| channels | {' | '.join(f'{runtime} | ratio' for runtime in RUNTIMES)} |\n{'|---' * 5}|")
    for place, width in enumerate(WIDTHS):
        whole = WIDTHS.index(math.ceil(width / 8) * 8)
        cells = [f"{found[place] / 1e3:,.0f} | {found[place] / found[whole]:.2f}" for found in counts.values()]
        print(f"| {width} | {' | '.join(cells)} |")


def _convert(width: int, folder: Path) -> Path:
    tf = import_tf()
    import tf_keras

    image = tf_keras.Input((16, 16, 64), batch_size=1)
    model = tf_keras.Model(image, tf_keras.layers.Conv2D(width, 1, activation="relu")(image))
    path = folder / f"{width}.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


def _instructions(files: list[Path], runtime: str) -> list[int]:
    command = [sys.executable, "-m", "edgeprune", "bench", *map(str, files), "--device", "emulator"]
    command += ["--runtime", runtime, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=files[0].parent)
    return [result["instructions"] for result in json.loads(done.stdout)["results"]]


if __name__ == "__main__":
    main()
