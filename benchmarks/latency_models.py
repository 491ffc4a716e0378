"""The architectures of a table of published latencies, rebuilt with random weights and converted.

The column ``builder`` says how; a latency depends on shapes and number formats, not on the values of the weights.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# EfficientNet-Lite: width, depth (tensorflow/tpu: models/official/efficientnet/lite/efficientnet_lite_builder.py).
LITE = {"0": (1.0, 1.0), "1": (1.0, 1.1), "2": (1.1, 1.2), "3": (1.2, 1.4), "4": (1.4, 1.8)}
# Blocks of EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946): repeats, kernel, stride, expansion, filters.
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def tflite_file(row: Mapping[str, str], folder: Path) -> Path:
    """The .tflite that a row was measured with, as far as its builder tells; made once per folder."""
    key = f"{row['builder']}|{row['input']}|{row['dtype']}"
    name = re.sub("[^A-Za-z0-9.]+", "_", f"{row['model']}_{row['input']}_{row['dtype']}").strip("_")
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.tflite"
    if not path.is_file():
        content = _convert(row)
        partial = path.with_suffix(".part")
        partial.write_bytes(content)
        partial.rename(path)
    return path


def _convert(row: Mapping[str, str]) -> bytes:
    import gc

    import numpy as np

    from edgeprune._tensorflow import import_tf

    import_tf()
    import tf_keras

    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    tf_keras.backend.clear_session()
    gc.collect()
    tf_keras.utils.set_random_seed(0)
    shape = tuple(int(size) for size in row["input"].split("x"))
    model = build(row["builder"], shape)
    if row["dtype"] == "fp32":
        return convert(model, QuantizationPlan("float32", "float", needs_samples=False))
    sample = np.random.default_rng(0).uniform(-1, 1, (1, *shape)).astype("float32")
    return convert(model, QuantizationPlan("int8", "int8", needs_samples=True), lambda: iter([[sample]]))


def build(builder: str, shape: tuple[int, ...]) -> Any:
    """A tf_keras model for one entry of the column ``builder``, for inputs of ``shape`` (without the batch).

    Raises:
        LookupError: an entry of an unknown form.
    """
    for pattern, make in _BUILDERS:
        if match := re.search(pattern, builder):
            return make(shape, *match.groups())
    raise LookupError(f"builder: {builder!r} has none of the known forms")


def _application(shape: tuple[int, ...], name: str, arguments: str) -> Any:
    import ast

    import tf_keras

    call = ast.parse(f"f({arguments})", mode="eval").body
    assert isinstance(call, ast.Call)
    options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    return getattr(tf_keras.applications, name)(**{**options, "weights": None, "input_shape": shape})


def _lite(shape: tuple[int, ...], number: str) -> Any:
    """EfficientNet without squeeze-and-excitation, with ReLU6; first and last block, stem and head not scaled."""
    import tf_keras
    from tf_keras import layers

    width, depth = LITE[number]
    x = inputs = layers.Input(shape)
    x = _conv(x, layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False))
    for index, (repeats, kernel, stride, expansion, filters) in enumerate(BLOCKS):
        outer = index in (0, len(BLOCKS) - 1)
        for repeat in range(repeats if outer else math.ceil(depth * repeats)):
            x = _block(x, kernel, stride if repeat == 0 else 1, expansion, _round(filters * width))
    x = _conv(x, layers.Conv2D(1280, 1, use_bias=False))
    x = layers.GlobalAveragePooling2D()(x)
    return tf_keras.Model(inputs, layers.Dense(1000, activation="softmax")(x), name=f"efficientnet_lite{number}")


def _round(filters: float) -> int:
    """To a multiple of 8, down by less than a tenth."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def _conv(x: Any, layer: Any, activate: bool = True) -> Any:
    from tf_keras import layers

    x = layers.BatchNormalization()(layer(x))
    return layers.ReLU(6.0)(x) if activate else x


def _block(x: Any, kernel: int, stride: int, expansion: int, filters: int) -> Any:
    from tf_keras import layers

    y, channels = x, x.shape[-1]
    if expansion != 1:
        y = _conv(y, layers.Conv2D(channels * expansion, 1, use_bias=False))
    y = _conv(y, layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False))
    y = _conv(y, layers.Conv2D(filters, 1, use_bias=False), activate=False)
    return layers.Add()([x, y]) if stride == 1 and channels == filters else y


def _dense(shape: tuple[int, ...], depth: str, units: str, last: str) -> Any:
    import tf_keras
    from tf_keras import layers

    hidden = [layers.Dense(int(units), activation="tanh") for _ in range(int(depth))]
    return tf_keras.Sequential([layers.Input(shape), *hidden, layers.Dense(int(last))])


def _convs(shape: tuple[int, ...], depth: str, filters: str) -> Any:
    import tf_keras
    from tf_keras import layers

    hidden = [layers.Conv2D(int(filters), 3, padding="same", activation="relu") for _ in range(int(depth))]
    return tf_keras.Sequential([layers.Input(shape), *hidden])


_BUILDERS: tuple[tuple[str, Callable[..., Any]], ...] = (
    (r"keras\.applications\.(\w+)\((.*)\)", _application),
    (r"EfficientNet-Lite(\d)", _lite),
    (r"(\d+)x\[Dense N=(\d+) tanh\]\+Dense(\d+)", _dense),
    (r"(\d+)x\[Conv3x3 same F=(\d+) relu\]", _convs),
)


def resized(graph: Any, sizes: Mapping[int, int]) -> Any:
    """A graph with other sizes along all dimensions: a whole grid of models from one conversion.

    Args:
        graph: an :class:`edgeprune.tflite.graph.Subgraph`.
        sizes: old size to new size; sizes that do not occur in it stay.
    """
    import dataclasses

    tensors = tuple(
        dataclasses.replace(tensor, shape=tuple(sizes.get(size, size) for size in tensor.shape))
        for tensor in graph.tensors
    )
    return dataclasses.replace(graph, tensors=tensors)
