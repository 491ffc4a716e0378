"""Read and replace the activation ranges in a calibrated .tflite, without rewriting the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import tflite

Range = tuple[float, float]


def read_ranges(content: bytes) -> dict[str, Range]:
    """Tensor name → smallest and largest value, for every calibrated activation of the main subgraph."""
    return {name: (_float(content, low), _float(content, high)) for name, low, high in _places(content)}


def with_ranges(content: bytes, ranges: Mapping[str, Range]) -> bytes:
    """A copy of the file with the ranges of the tensors in ``ranges`` replaced."""
    changed = bytearray(content)
    for name, low, high in _places(content):
        if name in ranges:
            struct.pack_into("<f", changed, low, ranges[name][0])
            struct.pack_into("<f", changed, high, ranges[name][1])
    return bytes(changed)


def _places(content: bytes) -> Iterator[tuple[str, int, int]]:
    """For each tensor with a range: its name, and the offsets in the file of the lower and the upper end."""
    graph = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        quantization = tensor.Quantization()
        if quantization is None or quantization.MinLength() != 1 or quantization.MaxLength() != 1:
            continue
        table = quantization._tab
        # min and max are the first two fields of QuantizationParameters: slots 4 and 6 of its vtable.
        yield tensor.Name().decode(), table.Vector(table.Offset(4)), table.Vector(table.Offset(6))


def _float(content: bytes, place: int) -> float:
    return float(struct.unpack_from("<f", content, place)[0])
