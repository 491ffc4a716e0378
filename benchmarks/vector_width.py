"""How many channels do the kernels of an emulated Cortex-A72 compute at once? Instructions against channels.

    python benchmarks/vector_width.py > benchmarks/results/vector_width.md

A 1x1 and a 3x3 convolution with N output channels each, on 64 input channels of 16x16, for several N. Counts rise in
steps as wide as the vectors that the kernels fill. The counts are exact: other work on the machine does not matter.
The other tables have simulated cycles of depthwise convolutions, and of float 3x3 convolutions with few channels
(`edgeprune bench --explain`, which needs Debian's package llvm).
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

CHANNELS = (4, 8, 10, 12, 14, 16, 20, 24, 28, 32)
DTYPES = {"float32": False, "int8": True}
RUNTIMES = ("ai-edge-litert", "tflite-runtime")
DEPTHWISE = (2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 72, 96, 128)
WINDOWS = (3, 5)
FEW = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24)
FEW_INPUTS = (3, 8, 16)
SIDE = 16


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
        _print_depthwise(Path(folder))
        _print_few(Path(folder))


def _print_depthwise(folder: Path) -> None:
    print(
        "\nSimulated cycles of depthwise convolutions for each output position, by XNNPACK of ai-edge-litert and by the"
    )
    print("built-in kernels of tflite-runtime.\n")
    cycles = {
        (dtype, kernels): {
            (shape[1], shape[3]): each
            for shape, each in _cycles(_convert_depthwise(integer, folder), kernels, "DEPTHWISE_CONV_2D")
        }
        for dtype, integer in DTYPES.items()
        for kernels in ("xnnpack", "builtin")
    }
    columns = [f"{dtype}, {kernels}, {window}x{window}" for dtype, kernels in cycles for window in WINDOWS]
    print(f"| channels | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    for channels in DEPTHWISE:
        row = [found[window, channels] for found in cycles.values() for window in WINDOWS]
        print(f"| {channels} | {' | '.join(f'{each:.0f}' for each in row)} |", flush=True)


def _print_few(folder: Path) -> None:
    """Convolutions of one output width each, side by side in one model for each number of inputs."""
    import_tf()
    import tf_keras

    print("\nSimulated cycles of float 3x3 convolutions for each output position, by XNNPACK of ai-edge-litert.\n")
    print(f"| channels | {' | '.join(f'of {inputs}' for inputs in FEW_INPUTS)} |\n{'|---' * (len(FEW_INPUTS) + 1)}|")
    columns = []
    for inputs in FEW_INPUTS:
        image = tf_keras.Input((SIDE, SIDE, inputs), batch_size=1)
        layers = [tf_keras.layers.Conv2D(channels, 3, padding="same")(image) for channels in FEW]
        path = folder / f"few-{inputs}.tflite"
        path.write_bytes(_converted(tf_keras.Model(image, layers), integer=False))
        columns.append({shape[0]: cycles for shape, cycles in _cycles(path, "xnnpack", "CONV_2D")})
    for channels in FEW:
        print(f"| {channels} | {' | '.join(f'{column[channels]:.0f}' for column in columns)} |", flush=True)


def _convert_depthwise(integer: bool, folder: Path) -> Path:
    """A depthwise convolution of each width and window."""
    import_tf()
    import tf_keras

    image = tf_keras.Input((SIDE, SIDE, 4), batch_size=1)
    layers = [
        tf_keras.layers.DepthwiseConv2D(window, padding="same")(tf_keras.layers.Conv2D(channels, 1)(image))
        for window in WINDOWS
        for channels in DEPTHWISE
    ]
    path = folder / f"depthwise-{integer}.tflite"
    path.write_bytes(_converted(tf_keras.Model(image, layers), integer))
    return path


def _cycles(path: Path, kernels: str, operators: str) -> list[tuple[tuple[int, ...], float]]:
    """The shape of the kernel of each such operator, and its cycles for each output position."""
    from edgeprune.tflite.flatbuffer import parse

    runtime, delegate = {"xnnpack": ("ai-edge-litert", "default"), "builtin": ("tflite-runtime", "builtin")}[kernels]
    explained = _bench(path, runtime, "--delegate", delegate, "--explain")["explained"]
    graph = parse(path.read_bytes()).subgraphs[0]
    return [
        (graph.input(operator, 1).shape, row["cycles"] / SIDE**2)
        for operator, row in zip(graph.operators, explained["operators"], strict=True)
        if operator.name == operators
    ]


def _convert(channels: int, integer: bool, folder: Path) -> Path:
    import_tf()
    import tf_keras

    image = tf_keras.Input((16, 16, 64), batch_size=1)
    x = tf_keras.layers.Conv2D(channels, 1, activation="relu")(image)
    x = tf_keras.layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
    path = folder / f"{channels}-{'int8' if integer else 'float32'}.tflite"
    path.write_bytes(_converted(tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x)), integer))
    return path


def _converted(model: Any, integer: bool) -> bytes:
    import numpy as np

    tf = import_tf()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if integer:
        generator = np.random.default_rng(0)
        samples = [generator.random((1, *model.input_shape[1:]), np.float32) for _ in range(8)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def _instructions(path: Path, runtime: str) -> int:
    return _bench(path, runtime)["instructions"]


def _bench(path: Path, runtime: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgeprune", "bench", str(path), "--device", "emulator", "--runtime", runtime]
    done = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["results"][0]


if __name__ == "__main__":
    main()
