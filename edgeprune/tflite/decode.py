"""Codes of weight tensors that TensorFlow Lite Micro decodes on the device: look-up tables, Huffman, pruned.

The interpreter of microcontrollers has a custom operator ``TFLM_DECODE``. It reads pairs of constant tensors, an
encoded one and its ancillary data, and writes one tensor of weights for each pair, from which the next operator
computes. The layout, as read in ``decode.cc`` and ``decode_state*.{h,cc}`` of ``tensorflow/lite/micro/kernels`` in
tflite-micro (2025 and 2026); numbers are little-endian, and buffers start at multiples of 16 bytes:

**Ancillary data** begin with 16 bytes, the common metadata:

====  ==================================================================================================
byte  content
====  ==================================================================================================
0     type: 0 look-up table, 1 Huffman, 2 pruned
1     version of these 16 bytes: 1
2, 3  reserved: 0
4     version of the type's own data: 1
5     look-up table: bits of an index, 1 to 7. Huffman: bit 0 is set if table entries have 32 bits; the
      upper four bits are log2(entries of the first table) - 1
6     look-up table: the distance of the channels' tables, in values
7-15  0
====  ==================================================================================================

What follows, and what the encoded tensor (uint8) holds:

- *Pruned*. Encoded: a bit for each weight, the first in the highest bit of the first byte; 1 for weights that are not
  at the zero point of their channel. Ancillary: these weights, in order.
- *Look-up table*. Encoded: an index for each weight, packed from the highest bit of each byte on. Ancillary: the tables
  of all channels, one after the other; with distance 0, one table for all. Channels are the indices along the axis of
  quantization, which has to be the first or the last one (so do the other decoders ask).
- *Huffman*. Encoded: the codewords, from the highest bit of each byte on, as whole words of 32 bits. Ancillary: tables
  of 16-bit entries. A first table is indexed by the next bits of the stream. An entry with bit 15 is a symbol: bits 0
  to 7 are the weight, bits 11 to 14 how many of the bits that indexed this table belong to it. Other entries lead to
  another table: bits 0 to 10 are how many entries after this one it begins, bits 11 to 14 are log2(its entries) - 1.

Decoders on a device check next to nothing: damaged ancillary data lead them to read and write where they must not. So
:func:`decode` checks all of it, and files are run only after that.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.tflite.graph import Quantization, Subgraph, Tensor, TFLiteModel

Code = Literal["lut", "huffman", "pruned"]

OPERATOR = "TFLM_DECODE"
HEADER_BYTES = 16
_VERSION = 1
_TYPES: dict[int, Code] = {0: "lut", 1: "huffman", 2: "pruned"}
_NUMBERS = {name: number for number, name in _TYPES.items()}
_MOST_INDEX_BITS = 7
_MOST_STRIDE = 128
_SYMBOL, _COUNT_SHIFT, _COUNT, _OFFSET = 0x8000, 11, 0xF, 0x7FF
# A table is indexed by at most so many bits: how many of them belong to a symbol has to fit into four bits.
_MOST_TABLE_BITS = 15


@dataclass(frozen=True)
class Encoded:
    """A tensor in one of the codes.

    Attributes:
        data: content of the encoded tensor.
        ancillary: content of the tensor of ancillary data.
    """

    code: Code
    data: bytes
    ancillary: bytes

    @property
    def bytes(self) -> int:
        """Of both tensors, as they lie in the file: each starts at a multiple of 16 bytes."""
        return sum(-(-len(part) // 16) * 16 for part in (self.data, self.ancillary))


def channel_axis(tensor: Tensor) -> int | None:
    """The axis along which the decoders see channels: 0 or the last one; None for one channel.

    Raises:
        ModelError: the scales are along another axis, which the decoders refuse.
    """
    quantization = tensor.quantization
    if quantization is None:
        return None
    last = len(tensor.shape) - 1
    if len(quantization.scale) > 1 and quantization.axis in (0, last):
        return quantization.axis
    if quantization.axis == 0:
        return None
    raise ModelError(
        f"The tensor {tensor.name!r} is quantized along axis {quantization.axis}.",
        expected=f"axis 0, or {last} with one scale for each index: TensorFlow Lite Micro decodes along no other.",
    )


def encodings(tensor: Tensor) -> list[Encoded]:
    """An int8 constant in each code that can hold it, the smallest first; empty if none can."""
    try:
        axis = channel_axis(tensor)
    except ModelError:
        return []
    if tensor.dtype != "int8" or not tensor.size:
        return []
    weights = tensor.data()
    found = [encoded for encode in (_pruned, _lut, _huffman) if (encoded := encode(weights, axis, tensor)) is not None]
    return sorted(found, key=lambda one: one.bytes)


def stored_bytes(weights: np.ndarray) -> int:
    """Bytes of int8 weights [channels, ...] in the code that takes the fewest, or plain; with padding."""
    points = Quantization((1.0,) * len(weights), (0,) * len(weights), 0)
    stored = memoryview(np.ascontiguousarray(weights, np.int8).tobytes())
    tensor = Tensor(0, "", weights.shape, weights.shape, "int8", points, None, False, True, stored)
    return min([-(-tensor.nbytes // 16) * 16, *(one.bytes for one in encodings(tensor)[:1])])


def decode(tensor: Tensor, data: bytes | memoryview, ancillary: bytes | memoryview) -> np.ndarray:
    """The weights of an encoded tensor.

    Args:
        tensor: the output of the operator, which says shape, type and axis of the weights.
        data: content of the encoded tensor.
        ancillary: content of the tensor of ancillary data.

    Returns:
        An int8 array of the tensor's shape.

    Raises:
        ModelError: damaged, or in a code that is not known here.
    """

    def refuse(what: str, expected: str | None = None) -> ModelError:
        return ModelError(
            f"The weights {tensor.name or tensor.index!r} cannot be decoded: {what}.",
            expected=expected,
            fix="encode the plain file again: edgeprune encode FILE.tflite --out CODED.tflite.",
        )

    data, ancillary = bytes(data), bytes(ancillary)
    if len(ancillary) < HEADER_BYTES:
        raise refuse(f"the ancillary data have {len(ancillary)} bytes", f"at least {HEADER_BYTES}.")
    if tensor.dtype != "int8":
        raise refuse(f"they are {tensor.dtype}", "int8.")
    code = _TYPES.get(ancillary[0])
    if code is None:
        raise refuse(f"code {ancillary[0]} is not known", "0 (look-up table), 1 (Huffman) or 2 (pruned).")
    if (ancillary[1], ancillary[4]) != (_VERSION, _VERSION):
        raise refuse(f"the ancillary data have the versions {ancillary[1]} and {ancillary[4]}", f"{_VERSION}.")
    try:
        weights = _DECODERS[code](tensor, channel_axis(tensor), data, ancillary)
    except _Damaged as damage:
        raise refuse(f"{damage} ({code})") from None
    return weights.reshape(tensor.shape)


def decoded_weights(graph: Subgraph) -> dict[int, np.ndarray]:
    """The weights of all encoded tensors of a subgraph: tensor that TFLM_DECODE writes → int8 array.

    Raises:
        ModelError: an operator, or what it reads, is damaged.
    """
    found = {}
    for operator in graph.operators:
        if operator.name != OPERATOR:
            continue
        if not operator.outputs or len(operator.inputs) != 2 * len(operator.outputs):
            raise ModelError(
                f"Operator {operator.index}, {OPERATOR}, has {len(operator.inputs)} inputs and "
                f"{len(operator.outputs)} outputs.",
                expected="two inputs for each output.",
            )
        for place in range(len(operator.outputs)):
            parts = graph.input(operator, 2 * place), graph.input(operator, 2 * place + 1)
            output = graph.output(operator, place)
            if output is None or any(part is None or not part.constant for part in parts):
                raise ModelError(f"Operator {operator.index}, {OPERATOR}, reads what is not a constant.")
            encoded, ancillary = (part.stored for part in parts if part is not None)
            found[output.index] = decode(output, encoded, ancillary)
    return found


def check(model: TFLiteModel) -> None:
    """Refuse a file with encoded weights that cannot be decoded; nothing for a file without any.

    Raises:
        ModelError: says which, and why.
    """
    for graph in model.subgraphs:
        decoded_weights(graph)


class _Damaged(Exception):
    """The rest of a sentence about data that cannot be decoded."""


def _header(code: Code, parameters: int = 0, stride: int = 0) -> bytes:
    return struct.pack("<BBHBBB9x", _NUMBERS[code], _VERSION, 0, _VERSION, parameters, stride)


def _channels(tensor: Tensor, axis: int | None) -> np.ndarray:
    """The channel of each weight, flat."""
    if axis is None:
        return np.zeros(tensor.size, np.int64)
    shape = [1] * len(tensor.shape)
    shape[axis] = -1
    return np.broadcast_to(np.arange(tensor.shape[axis]).reshape(shape), tensor.shape).reshape(-1)


def _bits(data: bytes, count: int) -> np.ndarray:
    """The first bits, from the highest one of each byte on."""
    if len(data) * 8 < count:
        raise _Damaged(f"{len(data)} bytes are encoded, and {-(-count // 8)} are needed")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count)


# -- pruned --------------------------------------------------------------------------------------------------------


def _zero_points(tensor: Tensor, axis: int | None) -> np.ndarray:
    """What each weight is where its bit is 0."""
    points = np.asarray(tensor.quantization.zero_point if tensor.quantization else (), np.int64)
    if not points.size:
        points = np.zeros(1, np.int64)
    channels = _channels(tensor, axis)
    if points.size == 1:
        return np.full(tensor.size, points[0], np.int64)
    return points[channels]


def _pruned(weights: np.ndarray, axis: int | None, tensor: Tensor) -> Encoded | None:
    quantization = tensor.quantization
    if quantization and len(quantization.scale) != len(quantization.zero_point):
        return None  # the decoder wants a zero point for each scale
    flat = weights.reshape(-1)
    kept = flat != _zero_points(tensor, axis)
    return Encoded("pruned", np.packbits(kept).tobytes(), _header("pruned") + flat[kept].tobytes())


def _from_pruned(tensor: Tensor, axis: int | None, data: bytes, ancillary: bytes) -> np.ndarray:
    kept = _bits(data, tensor.size).astype(bool)
    values = np.frombuffer(ancillary, np.int8, offset=HEADER_BYTES)
    if len(values) != kept.sum():
        raise _Damaged(f"{kept.sum()} weights are marked as kept, and {len(values)} values are stored")
    weights = _zero_points(tensor, axis).astype(np.int8)
    weights[kept] = values
    return weights


# -- look-up tables ------------------------------------------------------------------------------------------------


def _lut(weights: np.ndarray, axis: int | None, tensor: Tensor) -> Encoded | None:
    flat, channels = weights.reshape(-1), _channels(tensor, axis)
    options = []
    for group in (np.zeros_like(channels), channels):  # one table for all channels, or one for each
        rows = [np.unique(flat[group == channel]) for channel in range(int(group.max()) + 1)]
        longest = max(map(len, rows))
        bits = max(1, (longest - 1).bit_length())
        if bits > _MOST_INDEX_BITS:
            continue
        stride = longest if len(rows) > 1 else 0
        indices = np.zeros(len(flat), np.uint8)
        table = np.zeros((len(rows), longest), np.int8)
        for channel, row in enumerate(rows):
            indices[group == channel] = np.searchsorted(row, flat[group == channel])
            table[channel, : len(row)] = row
        packed = np.packbits(np.unpackbits(indices[:, None], axis=1)[:, 8 - bits :]).tobytes()
        options.append(Encoded("lut", packed, _header("lut", bits, stride) + table.tobytes()))
    return min(options, key=lambda one: one.bytes, default=None)


def _from_lut(tensor: Tensor, axis: int | None, data: bytes, ancillary: bytes) -> np.ndarray:
    bits, stride = ancillary[5], ancillary[6]
    if not 1 <= bits <= _MOST_INDEX_BITS:
        raise _Damaged(f"indices have {bits} bits instead of 1 to {_MOST_INDEX_BITS}")
    if stride > _MOST_STRIDE:
        raise _Damaged(f"tables of {stride} values are more than {_MOST_STRIDE}")
    packed = _bits(data, tensor.size * bits).reshape(-1, bits)
    indices = packed.astype(np.int64) @ (1 << np.arange(bits)[::-1])
    table = np.frombuffer(ancillary, np.int8, offset=HEADER_BYTES)
    places = _channels(tensor, axis) * stride + indices
    if (stride and indices.max() >= stride) or places.max() >= len(table):
        raise _Damaged("an index points outside of its table")
    return table[places]


# -- Huffman -------------------------------------------------------------------------------------------------------

# A node of the tree of codewords: a symbol (0 to 255), or what follows a 0 and a 1.
_Node = int | tuple["_Node", "_Node"]


def _tree(symbols: np.ndarray) -> _Node:
    """The tree of the shortest codewords; at least two symbols."""
    values, counts = np.unique(symbols, return_counts=True)
    heap: list[tuple[int, int, _Node]] = [
        (int(n), place, int(v)) for place, (v, n) in enumerate(zip(values, counts, strict=True))
    ]
    heapq.heapify(heap)
    for number in range(len(heap), 2 * len(heap) - 1):  # the number makes the tree depend on nothing but the weights
        (first, _, zero), (second, _, one) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (first + second, number, (zero, one)))
    return heap[0][2]


def _codewords(node: _Node, prefix: str = "") -> Iterator[tuple[int, str]]:
    if isinstance(node, int):
        yield node, prefix
        return
    for bit, child in zip("01", node, strict=True):
        yield from _codewords(child, prefix + bit)


def _below(node: _Node, bits: int) -> list[tuple[_Node, int]]:
    """For each value of the next bits, the node that they lead to, and how many of them lead there."""
    if not bits or isinstance(node, int):
        return [(node, 0)] * (1 << bits)
    return [(leaf, used + 1) for child in node for leaf, used in _below(child, bits - 1)]


def _depth(node: _Node) -> int:
    return 0 if isinstance(node, int) else 1 + max(map(_depth, node))


def _tables(root: _Node) -> tuple[int, list[int]]:
    """Bits of the first table, and the entries of all tables, the first one's first."""
    plans: dict[int, int] = {}
    sizes: dict[int, int] = {}

    def plan(node: _Node) -> int:
        """Entries of the tables of an inner node; notes the bits of each."""
        if id(node) not in sizes:
            options = []
            for bits in range(1, min(_depth(node), 8) + 1):
                inner = {id(child): child for child, _ in _below(node, bits) if not isinstance(child, int)}
                options.append(((1 << bits) + sum(map(plan, inner.values())), -bits))
            sizes[id(node)], plans[id(node)] = min(options)  # of equal ones the widest, which takes the fewest steps
        return sizes[id(node)]

    plan(root)
    entries: list[int] = []

    def write(node: _Node) -> int:
        """Append the tables of a node; returns where they begin."""
        bits, start = -plans[id(node)], len(entries)
        entries.extend([0] * (1 << bits))
        for place, (child, used) in enumerate(_below(node, bits), start):
            if isinstance(child, int):
                entries[place] = _SYMBOL | used << _COUNT_SHIFT | child
            else:
                begin = write(child)
                entries[place] = (-plans[id(child)] - 1) << _COUNT_SHIFT | (begin - place)
        return start

    write(root)
    return -plans[id(root)], entries


def _huffman(weights: np.ndarray, axis: int | None, tensor: Tensor) -> Encoded | None:
    symbols = weights.reshape(-1).view(np.uint8)
    if len(np.unique(symbols)) < 2:
        return None
    tree = _tree(symbols)
    words = dict(_codewords(tree))
    bits, entries = _tables(tree)
    text = "".join(words[symbol] for symbol in symbols.tolist())
    # The decoder reads as many bits as index a table, and gives back what is not of the symbol: there must be some.
    text += "0" * (7 + (-(len(text) + 7)) % 32)
    data = np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0")).tobytes()
    return Encoded("huffman", data, _header("huffman", (bits - 1) << 4) + np.asarray(entries, "<u2").tobytes())


def _from_huffman(tensor: Tensor, axis: int | None, data: bytes, ancillary: bytes) -> np.ndarray:
    if ancillary[5] & 1:
        raise _Damaged("tables have entries of 32 bits instead of 16")
    first = (ancillary[5] >> 4) + 1
    table = np.frombuffer(ancillary[: len(ancillary) // 2 * 2], "<u2", offset=HEADER_BYTES).tolist()
    if len(data) % 4:
        raise _Damaged("the codewords are not whole words of 32 bits")
    stream, length = int.from_bytes(data, "big"), len(data) * 8
    text = f"{stream:0{length}b}" if length else ""
    position, weights = 0, bytearray()
    for _ in range(tensor.size):
        begin, bits = 0, first
        while True:
            if position + bits > length:
                raise _Damaged(f"the codewords end after {len(weights)} of {tensor.size} weights")
            place = begin + int(text[position : position + bits], 2)
            if place >= len(table):
                raise _Damaged("an entry leads outside of the tables")
            entry = table[place]
            count = entry >> _COUNT_SHIFT & _COUNT
            if entry & _SYMBOL:
                if not 1 <= count <= bits:
                    raise _Damaged(f"a symbol takes {count} of {bits} bits")
                position += count
                weights.append(entry & 0xFF)
                break
            position += bits
            begin, bits = place + (entry & _OFFSET), count + 1
    return np.frombuffer(bytes(weights), np.int8)


_DECODERS: dict[Code, Callable[[Tensor, int | None, bytes, bytes], np.ndarray]] = {
    "lut": _from_lut,
    "huffman": _from_huffman,
    "pruned": _from_pruned,
}
