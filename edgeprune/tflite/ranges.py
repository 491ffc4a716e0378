"""The activation ranges in a calibrated .tflite: reading and setting them, in place."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import tflite

Range = tuple[float, float]


def read_ranges(content: bytes) -> dict[str, Range]:
    """Smallest and largest value of every calibrated activation, by the name of its tensor."""
    return {name: (_float(content, low), _float(content, high)) for name, low, high in _places(content)}


def with_ranges(content: bytes, ranges: Mapping[str, Range]) -> bytes:
    """The same file with other ranges for the tensors in ``ranges``."""
    changed = bytearray(content)
    for name, low, high in _places(content):
        if name in ranges:
            struct.pack_into("<f", changed, low, ranges[name][0])
            struct.pack_into("<f", changed, high, ranges[name][1])
    return bytes(changed)


def _places(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Name of each tensor with a range, and where in the file its ends stand."""
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
