"""Where an Edge TPU keeps parameters, and in how many bytes: cached on the chip, or streamed in each inference.

Layout of the parameters, found by others in compiled files and confirmed here on 28 pairs of files:

- Weights lie in lines of 64 bytes: 16 outputs times 4 inputs, for each position of the kernel. So output channels
  count in multiples of 16 and input channels in multiples of 4 (RingCanary/coral-usb-oxidized, conv_layout_probe.md:
  ``offset = 512 + (ic // 4) * 256 + oc * 4 + ic % 4`` for 64 outputs; ricardodeazambuja/LibrEdgeTPU
  docs/HARDWARE_ANALYSIS.md).
- Depthwise kernels take one line for 16 channels at each position: 4 bytes per weight.
- For each output follow 4 bytes of bias, and 4 bytes of scale in int8 files (coral-usb-oxidized
  docs/phase4_conv2d_k3_param_region_2026-03-07.md); uint8 files have one scale per layer, in the instructions.

Found in 57 compiled files of two independent sets, 28 of which are here (benchmarks/edgetpu_placement.py):

- Kernels of convolutions and dense layers with more than 64 outputs are stored in multiples of 64 outputs, the width of
  the array; up to 64 in multiples of 16 (:func:`output_step`).
- A dilated depthwise kernel is stored without holes.
- A dense layer of N outputs lies in the first ceil(N / 64) of the 16 tiles, 512 KiB each. The first layer that does not
  fit is streamed, and so are all after it.

Inferred from few files, so less sure: kernel positions whose weights are all zero are left out; uint8 layers with
up to 4 outputs are 4 wide; constants of elementwise operators are streamed, never cached, 16 bytes for each element
that is spread over other positions (one file), and one byte where the constant is as large as the output (one file:
2,309 elements, 2,368 bytes); a mean is a depthwise kernel.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from edgeprune.hardware.placement import fitting
from edgeprune.tflite.graph import Operator, Subgraph, Tensor

LINE_BYTES = 64
LANES = 16
INPUTS = 4
ARRAY = 64  # rows and columns of the array of multipliers
# google-coral/libedgetpu beagle_chip_structures.h: 16 tiles. A layer of 520,448 bytes a tile was cached.
TILES = 16
TILE_BYTES = 512 * 1024
CACHE_BYTES = 8_000_000
_KERNELS = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_ELEMENTWISE = ("ADD", "MUL", "SUB", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")


@dataclass(frozen=True)
class Parameters:
    """Bytes by index of the operator, and what is not sure about them."""

    cached: dict[int, int]
    streamed: dict[int, int]
    notes: tuple[str, ...]


def output_step(outputs: int) -> int:
    """The multiple of outputs in which a kernel with so many of them is stored and computed."""
    return ARRAY if outputs > ARRAY else LANES


def parameters(graph: Subgraph, mapped: Collection[int], cache_bytes: int | None = None) -> Parameters:
    """What the operators on the chip keep there, and what they are sent for each inference.

    Layers go into the cache in the order of execution, until one does not fit. On the chip a convolution's kernel takes
    whole blocks of the array of 64 x 64 cells, more than its bytes in the file: latencies of chains of equal 3x3
    convolutions (sweeps of Jorgitou98/EdgeTPU-QuantRL-Evaluation) jump exactly where one block more does not fit.

    Args:
        mapped: indices of the operators on the chip.
        cache_bytes: SRAM for parameters; None: what was seen.
    """
    cached: dict[int, int] = {}
    streamed: dict[int, int] = {}
    notes = []
    left, full = cache_bytes or CACHE_BYTES, False
    tiles = np.zeros(TILES)  # bytes of dense layers in each
    for operator in graph.operators:
        if operator.index not in mapped:
            continue
        with fitting(operator):
            size = layer_bytes(graph, operator)
            blocks = max(size, _block_bytes(graph, operator))
            used = _tiles(graph, operator)
            share = size / used if operator.name == "FULLY_CONNECTED" else 0.0
        fits = not size or not (full or blocks > left or tiles[:used].max() + share > TILE_BYTES)
        full |= not fits
        left -= blocks if fits else 0
        tiles[:used] += share if fits else 0.0
        cached[operator.index] = size if fits else 0
        streamed[operator.index] = operand_bytes(graph, operator) + (0 if fits else size)
        if operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            notes.append("The compiler unrolls an LSTM; its parameters take several times the bytes given here.")
    return Parameters(cached, streamed, tuple(notes))


def _tiles(graph: Subgraph, operator: Operator) -> int:
    """How many tiles an operator's outputs reach."""
    output = graph.output(operator)
    return min(TILES, max(1, math.ceil((output.shape[-1] if output and output.shape else 1) / ARRAY)))


def _block_bytes(graph: Subgraph, operator: Operator) -> int:
    """Bytes of the blocks of the array that an operator's kernel takes on the chip."""
    weights = graph.input(operator, 1)
    if operator.name not in _KERNELS or weights is None or not weights.constant:
        return 0
    outputs, *window, inputs = weights.shape
    return math.prod(window) * _whole_blocks(inputs) * _whole_blocks(outputs)


def _whole_blocks(channels: int) -> int:
    """Up to a multiple of 64; few channels, as of an image, to a multiple of 4."""
    block = ARRAY if channels > INPUTS else INPUTS
    return -(-channels // block) * block


def layer_bytes(graph: Subgraph, operator: Operator) -> int:
    """Bytes that an operator's parameters take in a compiled file."""
    if operator.name == "MEAN":
        return _mean_bytes(graph, operator)
    if operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        kernels = [graph.input(operator, position) for position in range(1, 9)]
        return sum(_stored(LANES, t.shape[0], math.ceil(t.shape[1] / INPUTS), 8) for t in kernels if t is not None)
    if operator.name not in (*_KERNELS, "DEPTHWISE_CONV_2D"):
        return 0
    weights = graph.input(operator, 1)
    if weights is None or not weights.constant or weights.sparsity is not None:
        return 0
    narrow = weights.dtype == "uint8" and operator.name == "CONV_2D" and weights.shape[0] <= INPUTS
    words, overhead = _words(operator, weights), 4 if weights.dtype == "uint8" else 8
    if operator.name == "DEPTHWISE_CONV_2D":
        return _stored(LANES, weights.shape[-1], words, overhead)
    outputs = weights.shape[0]
    return _stored(INPUTS if narrow else output_step(outputs), outputs, words, overhead)


def _stored(lanes: int, outputs: int, words: int, overhead: int) -> int:
    """``words``: 4-byte words of weights per output; ``overhead``: bytes per output beside the weights."""
    padded = -(-outputs // lanes) * lanes
    return -(-padded * (INPUTS * words + overhead) // LINE_BYTES) * LINE_BYTES


def _words(operator: Operator, weights: Tensor) -> int:
    if operator.name == "FULLY_CONNECTED":
        return math.ceil(weights.shape[1] / INPUTS)
    if operator.name == "DEPTHWISE_CONV_2D":
        return math.prod(weights.shape[1:3])
    return _used_positions(weights) * math.ceil(weights.shape[3] / INPUTS)


def _used_positions(weights: Tensor) -> int:
    """Positions of the kernel at which some weight is not zero; all of them where only the sizes are known."""
    if len(weights.stored) != weights.nbytes:
        return math.prod(weights.shape[1:3])
    point = weights.quantization.zero_point[0] if weights.quantization and weights.quantization.zero_point else 0
    return int(np.count_nonzero((weights.data() != point).any(axis=(0, 3))))


def _mean_bytes(graph: Subgraph, operator: Operator) -> int:
    data, output = graph.input(operator, 0), graph.output(operator)
    if data is None or output is None or not output.shape:
        return 0
    return _stored(LANES, output.shape[-1], data.size // max(output.size, 1), 4 if data.dtype == "uint8" else 8)


def operand_bytes(graph: Subgraph, operator: Operator) -> int:
    """Bytes of the constants of an elementwise operator, which are streamed in each inference, never cached."""
    output = graph.output(operator)
    if operator.name not in _ELEMENTWISE or output is None:
        return 0
    constants = [graph.tensors[i] for i in operator.inputs if i >= 0 and graph.tensors[i].constant]
    lanes = [1 if constant.size == output.size else LANES for constant in constants]
    each = zip(constants, lanes, strict=True)
    return sum(-(-lane * constant.size // LINE_BYTES) * LINE_BYTES for constant, lane in each)
