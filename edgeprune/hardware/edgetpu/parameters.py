"""Where an Edge TPU keeps parameters, and in how many bytes: cached on the chip, or streamed in each inference.

Layout of the parameters, found by others in compiled files and confirmed here on 28 pairs of files:

- Weights lie in lines of 64 bytes: 16 outputs times 4 inputs, for each position of the kernel. So output channels
  count in multiples of 16 and input channels in multiples of 4 (RingCanary/coral-usb-oxidized, conv_layout_probe.md:
  ``offset = 512 + (ic // 4) * 256 + oc * 4 + ic % 4`` for 64 outputs; ricardodeazambuja/LibrEdgeTPU
  docs/HARDWARE_ANALYSIS.md).
- Depthwise kernels take one line for 16 channels at each position: 4 bytes per weight.
- For each output follow 4 bytes of bias, and 4 bytes of scale in int8 files (coral-usb-oxidized
  docs/phase4_conv2d_k3_param_region_2026-03-07.md); uint8 files have one scale per layer, in the instructions.
- A dilated depthwise kernel is stored with its holes.

Inferred from few files, so less sure: kernel positions whose weights are all zero are left out; uint8 layers with
up to 4 outputs are 4 wide; constants of additions and products (16 bytes a channel) are streamed, never cached; a
mean is a depthwise kernel.
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
# Each of the 16 tiles holds its share of the parameters (google-coral/libedgetpu beagle_chip_structures.h: 16 tiles).
TILES = 16
ARRAY = 64  # rows and columns of the array of multipliers
CACHE_BYTES = 8_000_000


@dataclass(frozen=True)
class Parameters:
    """Bytes by index of the operator, and what is not sure about them."""

    cached: dict[int, int]
    streamed: dict[int, int]
    notes: tuple[str, ...]


def parameters(graph: Subgraph, mapped: Collection[int], cache_bytes: int | None = None) -> Parameters:
    """What the operators on the chip keep there, and what they are sent for each inference.

    Layers go into the cache in the order of execution while they fit. On the chip a kernel takes whole blocks of the
    array of 64 x 64 cells, more than its bytes in the file: latencies of chains of equal 3x3 convolutions (sweeps of
    Jorgitou98/EdgeTPU-QuantRL-Evaluation) jump exactly where one block more does not fit. A layer also stays out when
    the share of one tile, which holds whole groups of 16 outputs, is more than a tile has.

    Args:
        mapped: indices of the operators on the chip.
        cache_bytes: SRAM for parameters; None: what was seen.
    """
    whole = cache_bytes or CACHE_BYTES
    cached: dict[int, int] = {}
    streamed: dict[int, int] = {}
    notes = []
    left = whole
    for operator in graph.operators:
        if operator.index not in mapped:
            continue
        with fitting(operator):
            size = layer_bytes(graph, operator)
            blocks = max(size, _block_bytes(graph, operator))
        tile = -(-size // min(TILES, _groups(graph, operator)))
        fits = blocks <= left and tile <= whole // TILES
        left -= blocks if fits else 0
        cached[operator.index] = size if fits else 0
        streamed[operator.index] = operand_bytes(graph, operator) + (0 if fits else size)
        if operator.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            notes.append("The compiler unrolls an LSTM; its parameters take several times the bytes given here.")
    return Parameters(cached, streamed, tuple(notes))


def _block_bytes(graph: Subgraph, operator: Operator) -> int:
    """Bytes of the blocks of the array that an operator's kernel takes on the chip."""
    weights = graph.input(operator, 1)
    if operator.name not in ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV") or weights is None or not weights.constant:
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
    if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        return 0
    weights = graph.input(operator, 1)
    if weights is None or not weights.constant or weights.sparsity is not None:
        return 0
    narrow = weights.dtype == "uint8" and operator.name == "CONV_2D" and weights.shape[0] <= INPUTS
    outputs = weights.shape[-1] if operator.name == "DEPTHWISE_CONV_2D" else weights.shape[0]
    words = _words(operator, weights)
    return _stored(INPUTS if narrow else LANES, outputs, words, 4 if weights.dtype == "uint8" else 8)


def _stored(lanes: int, outputs: int, words: int, overhead: int) -> int:
    """``words``: 4-byte words of weights per output; ``overhead``: bytes per output beside the weights."""
    padded = -(-outputs // lanes) * lanes
    return -(-padded * (INPUTS * words + overhead) // LINE_BYTES) * LINE_BYTES


def _words(operator: Operator, weights: Tensor) -> int:
    if operator.name == "FULLY_CONNECTED":
        return math.ceil(weights.shape[1] / INPUTS)
    height, width = weights.shape[1:3]
    if operator.name == "DEPTHWISE_CONV_2D":
        down, across = (int(operator.options.get(f"dilation_{axis}_factor", 1)) for axis in "hw")
        return ((height - 1) * down + 1) * ((width - 1) * across + 1)
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


def _groups(graph: Subgraph, operator: Operator) -> int:
    output = graph.output(operator)
    return max(1, -(-(output.shape[-1] if output and output.shape else 1) // LANES))


def operand_bytes(graph: Subgraph, operator: Operator) -> int:
    """Bytes of the constants of an addition or product, which are streamed in each inference, never cached."""
    if operator.name not in ("ADD", "MUL", "SUB", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"):
        return 0
    return sum(TILES * graph.tensors[i].size for i in operator.inputs if i >= 0 and graph.tensors[i].constant)
