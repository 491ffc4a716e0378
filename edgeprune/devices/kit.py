"""Twenty small .tflite files that span operators, sizes and number formats, to measure a board with.

A latency model with a coefficient for each kind of work needs files in which the kinds stand in different proportions.
Each network is one kind of work and little else, or a whole small network, in float32 and in int8. Weights are random,
the same in every kit: a latency depends on shapes and formats, not on values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.files import output_errors, write_bytes
from edgeprune.recipe.config import Mode

if TYPE_CHECKING:
    import numpy as np

README = "README.md"
_TITLE = "# Files to measure a board with"
FORMATS: tuple[Mode, ...] = ("float32", "int8")
_SEED = 0
_SAMPLES = 4  # random ones, for the ranges of int8

# A function from the input to the output.
Body = Callable[[Any], Any]


def _repeated(count: int, *layers: Callable[[], Any]) -> Body:
    """A chain of layers, each made anew, ``count`` times."""

    def body(x: Any) -> Any:
        for _ in range(count):
            for make in layers:
                x = make()(x)
        return x

    return body


def _conv(filters: int, size: int) -> Callable[[], Any]:
    def make() -> Any:
        from tf_keras import layers

        return layers.Conv2D(filters, size, padding="same", activation="relu")

    return make


def _depthwise(size: int) -> Callable[[], Any]:
    def make() -> Any:
        from tf_keras import layers

        return layers.DepthwiseConv2D(size, padding="same", activation="relu")

    return make


def _dense(units: int) -> Callable[[], Any]:
    def make() -> Any:
        from tf_keras import layers

        return layers.Dense(units, activation="relu")

    return make


def _elementwise(x: Any) -> Any:
    from tf_keras import layers

    y = x
    for _ in range(3):
        y = layers.Add()([layers.Multiply()([x, y]), x])
    return layers.ReLU(6.0)(y)


def _nonlinear(x: Any) -> Any:
    from tf_keras import layers

    for activation in ("sigmoid", "tanh", "sigmoid", "softmax"):
        x = layers.Activation(activation)(x)
    return x


def _moved(x: Any) -> Any:
    from tf_keras import layers

    y = layers.MaxPooling2D(2)(x)
    y = layers.UpSampling2D(2)(y)
    y = layers.Concatenate()([x, y, x])
    y = layers.AveragePooling2D(3, strides=2)(layers.ZeroPadding2D(2)(y))
    return layers.GlobalAveragePooling2D()(y)


def _separable(x: Any) -> Any:
    """Blocks of MobileNetV2: expanded, filtered by channel, projected, added."""
    from tf_keras import layers

    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    for filters, stride in ((16, 1), (24, 2), (24, 1), (48, 2), (48, 1), (96, 2), (96, 1)):
        y = layers.Conv2D(6 * x.shape[-1], 1, activation="relu")(x)
        y = layers.DepthwiseConv2D(3, strides=stride, padding="same", activation="relu")(y)
        y = layers.Conv2D(filters, 1)(y)
        x = layers.Add()([x, y]) if stride == 1 and filters == x.shape[-1] else y
    return layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def _residual(x: Any) -> Any:
    """Blocks of ResNet: two 3x3 convolutions and a shortcut."""
    from tf_keras import layers

    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    for filters in (16, 32, 64):
        stride = 1 if filters == x.shape[-1] else 2
        y = layers.Conv2D(filters, 3, strides=stride, padding="same", activation="relu")(x)
        y = layers.Conv2D(filters, 3, padding="same")(y)
        x = layers.Conv2D(filters, 1, strides=stride)(x) if stride > 1 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    return layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))


# Name → input without the batch, network.
NETWORKS: dict[str, tuple[tuple[int, ...], Body]] = {
    "many-small": ((16, 16, 8), _repeated(24, _conv(8, 1))),
    "pointwise": ((28, 28, 128), _repeated(4, _conv(256, 1))),
    "convolution": ((40, 40, 32), _repeated(3, _conv(32, 3))),
    "depthwise": ((56, 56, 64), _repeated(2, _depthwise(3), _depthwise(5))),
    "dense": ((1024,), _repeated(2, _dense(768))),
    "elementwise": ((56, 56, 32), _elementwise),
    "nonlinear": ((28, 28, 32), _nonlinear),
    "moved": ((48, 48, 32), _moved),
    "separable": ((96, 96, 3), _separable),
    "residual": ((64, 64, 3), _residual),
}


def write_kit(folder: Path) -> list[Path]:
    """Write the files and a README into a folder; returns the paths of the .tflite files.

    The same versions of TensorFlow and edgeprune write the same bytes.

    Raises:
        UsageError: the folder has a README of something else.
        OutputError: it cannot be written to.
    """
    readme = folder / README
    if readme.is_file() and _TITLE not in readme.read_text("utf-8", "replace"):
        raise UsageError(
            f"{readme} is not from an earlier kit, and would be replaced.",
            expected="a folder for the kit alone.",
            fix="choose another one with --out.",
        )
    paths = []
    with output_errors(folder):
        for name, mode, content in _files():
            paths.append(folder / f"{name}-{mode}.tflite")
            write_bytes(paths[-1], content)
        write_bytes(folder / README, _readme(paths).encode())
    return paths


def _files() -> Iterator[tuple[str, Mode, bytes]]:
    import numpy as np
    import tf_keras

    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import RULES, QuantizationPlan

    for name, (shape, body) in NETWORKS.items():
        tf_keras.backend.clear_session()
        tf_keras.utils.set_random_seed(_SEED)
        inputs = tf_keras.layers.Input(shape, batch_size=1, name="input")
        model = tf_keras.Model(inputs, body(inputs), name=name.replace("-", "_"))
        samples = np.random.default_rng(_SEED).uniform(-1, 1, (_SAMPLES, 1, *shape)).astype("float32")
        for mode in FORMATS:
            needs = RULES[mode].samples
            plan = QuantizationPlan(mode, mode if mode == "int8" else "float", needs_samples=needs)
            yield name, mode, convert(model, plan, functools.partial(_batches, samples) if needs else None)


def _batches(samples: np.ndarray) -> Iterator[list[np.ndarray]]:
    return iter([sample] for sample in samples)


def _readme(paths: list[Path]) -> str:
    from edgeprune.tflite.flatbuffer import read
    from edgeprune.tflite.macs import macs

    rows = []
    for path in paths:
        model = read(path)
        names = ", ".join(sorted({operator.name for operator in model.subgraphs[0].operators}))
        rows.append(f"| {path.name} | {path.stat().st_size:,} | {macs(model):,} | {names} |")
    table = "\n".join(["| file | bytes | multiply-accumulates | operators |", "|---|---:|---:|---|", *rows])
    return f"""{_TITLE}

Made by `edgeprune targets kit`. In this folder, with the board's address, and the nearest of `edgeprune targets list`
as the target:

    edgeprune bench *.tflite --device ssh://USER@HOST --target rpi4 --append measurements.csv
    edgeprune targets fit myboard --from measurements.csv --next .

The second writes `myboard.toml`, for `--target myboard.toml`, and says which files to measure next, if any: to begin,
five are enough. On Android the device is `adb://SERIAL`. `--delegate builtin` measures the built-in kernels as well.

{table}
"""
