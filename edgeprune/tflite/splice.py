"""Add a named buffer to a .tflite without changing the bytes of the file.

Offsets in a flatbuffer point forward only. So a new root table is put in front of the file, with new lists of buffers
and metadata entries, and its other fields point into the old file. The old file moves by a multiple of 16 bytes, so
that weights stay aligned. The usual way, to unpack and pack the whole model, takes time and memory in proportion to the
weights and loses alignment.
"""

from __future__ import annotations

import dataclasses
import struct

import tflite

ALIGNMENT = 16  # of buffers: force_align in schema.fbs
# Fields of the table Model: version, operator_codes, subgraphs, description, buffers, metadata_buffer, metadata,
# signature_defs.
_FIELDS, _BUFFERS, _METADATA = 8, 4, 6


@dataclasses.dataclass
class _Front:
    """The bytes in front of the old file.

    Attributes:
        data: the bytes so far.
        old: (position of an offset in ``data``, position in the old file that it leads to), filled in at the end, when
            the length of ``data`` is known.
    """

    data: bytearray = dataclasses.field(default_factory=bytearray)
    old: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def align(self, multiple: int, shift: int = 0) -> None:
        """Pad until ``shift`` bytes more would end at a multiple."""
        self.data += bytes(-(len(self.data) + shift) % multiple)

    def put(self, layout: str, *values: int) -> int:
        """Append numbers; returns their position."""
        place = len(self.data)
        self.data += struct.pack("<" + layout, *values)
        return place

    def point(self, place: int, target: int) -> None:
        """Set the offset at ``place`` so that it leads to a later position."""
        struct.pack_into("<I", self.data, place, target - place)

    def table(self, fields: int) -> list[int]:
        """Append a table of 4-byte fields, all present; returns the position of each."""
        self.align(4)
        vtable = self.put(f"{2 + fields}H", 4 + 2 * fields, 4 + 4 * fields, *(4 + 4 * i for i in range(fields)))
        self.align(4)
        start = len(self.data)
        self.put("i", start - vtable)
        return [self.put("I", 0) for _ in range(fields)]


def with_buffer(content: bytes, name: str, payload: bytes) -> bytes:
    """The model with one more buffer, and a metadata entry that names it.

    Args:
        content: a .tflite whose buffers are inside the flatbuffer (files below 2 GB).
        name: of the metadata entry; the model must not have one of this name.
        payload: content of the new buffer.
    """
    model = tflite.Model.GetRootAs(content, 0)
    front = _Front(bytearray(8))
    front.data[4:8] = content[4:8]
    root = _root(front, model)
    number = model.BuffersLength()
    buffers = [model.Buffers(i)._tab.Pos for i in range(number)]
    entries = [model.Metadata(i)._tab.Pos for i in range(model.MetadataLength())]
    buffer_entry = _list(front, root[_BUFFERS], buffers)
    metadata_entry = _list(front, root[_METADATA], entries)
    name_field, number_field = _pointed_table(front, metadata_entry, 2)
    struct.pack_into("<I", front.data, number_field, number)
    text = name.encode()
    front.align(4)
    front.point(name_field, front.put("I", len(text)))
    front.data += text + b"\0"
    (data_field,) = _pointed_table(front, buffer_entry, 1)
    front.align(ALIGNMENT, shift=4)
    front.point(data_field, front.put("I", len(payload)))
    front.data += payload
    front.align(ALIGNMENT)
    for place, target in front.old:
        front.point(place, len(front.data) + target)
    return bytes(front.data) + content


def _root(front: _Front, model: tflite.Model) -> list[int]:
    """The new table Model. Its fields lead to the old file, except those of the two lists, which are written later.

    Returns:
        The position of each field.
    """
    old = model._tab
    present = [old.Offset(4 + 2 * slot) or slot in (_BUFFERS, _METADATA) for slot in range(_FIELDS)]
    places = front.table(_FIELDS)
    vtable = places[0] - 4 - struct.unpack_from("<i", front.data, places[0] - 4)[0]
    struct.pack_into("<I", front.data, 0, places[0] - 4)
    struct.pack_into("<I", front.data, places[0], model.Version())
    for slot in range(1, _FIELDS):
        offset = old.Offset(4 + 2 * slot)
        if not present[slot]:
            struct.pack_into("<H", front.data, vtable + 4 + 2 * slot, 0)
        elif slot not in (_BUFFERS, _METADATA):
            front.old.append((places[slot], old.Indirect(old.Pos + offset)))
    return places


def _list(front: _Front, field: int, tables: list[int]) -> int:
    """A list of tables of the old file and of one new table; returns the position of the new one's offset."""
    front.align(4)
    front.point(field, front.put("I", len(tables) + 1))
    for target in tables:
        front.old.append((front.put("I", 0), target))
    return front.put("I", 0)


def _pointed_table(front: _Front, entry: int, fields: int) -> list[int]:
    """A new table that the offset at ``entry`` leads to; returns the position of each field."""
    places = front.table(fields)
    front.point(entry, places[0] - 4)
    return places
