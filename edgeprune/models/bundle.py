"""Check the index of a checkpoint before TensorFlow reads it, which aborts on some corrupt ones.

An index (``variables.index``) is a table of LevelDB's format: blocks of entries, sorted by key, each key without the
prefix that it shares with the one before; a block that lists the others; and a footer of 48 bytes. The values are
``BundleEntryProto`` messages that say where in the data files a tensor lies, the first one a ``BundleHeaderProto``.
TensorFlow compares checksums of the blocks and tensors itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from edgeprune._tensorflow import import_tf
from edgeprune.models.limits import OBJECTS
from edgeprune.models.types import ConfigValue

_FOOTER_BYTES, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER_BYTES = 5  # behind each block: its compression, and a checksum
_STRING_CHECKSUM_BYTES = 4
_KEY_BYTES = 1 << 16


def check_bundle(index: Path) -> None:
    """Raise unless every tensor that an index lists lies within the data files, and has the bytes of its shape.

    Raises:
        ValueError, OSError: as above, or the index is damaged.
    """
    import_tf()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

    entries = _entries(index.read_bytes())
    try:
        key, value = next(entries, (b"", b""))
        header = BundleHeaderProto.FromString(value)
        if key or not 0 < header.num_shards <= OBJECTS or header.endianness != BundleHeaderProto.LITTLE:
            raise ValueError("its header is damaged")
        shards = [index.with_suffix(f".data-{n:05d}-of-{header.num_shards:05d}") for n in range(header.num_shards)]
        sizes = [shard.stat().st_size for shard in shards]
        for key, value in entries:
            entry = BundleEntryProto.FromString(value)
            if not 0 <= entry.shard_id < len(shards):
                raise ValueError("it names a data file that does not exist")
            _check_entry(entry, shards[entry.shard_id], sizes[entry.shard_id], key.decode(errors="replace"))
    except DecodeError as error:
        raise ValueError("an entry is damaged") from error


def _check_entry(entry: ConfigValue, shard: Path, size: int, key: str) -> None:
    import tensorflow as tf

    dtype = tf.as_dtype(entry.dtype)
    values = math.prod(dim.size for dim in entry.shape.dim)
    if entry.slices or entry.shape.unknown_rank or any(dim.size < 0 for dim in entry.shape.dim):
        raise ValueError(f"the shape of {key!r} is damaged")
    if not (entry.offset >= 0 and 0 <= entry.size <= size - entry.offset):
        raise ValueError(f"{key!r} reaches beyond the end of its data file")
    if dtype == tf.string:
        with open(shard, "rb") as file:
            file.seek(entry.offset)
            _check_strings(file.read(entry.size), values, key)
    elif not (dtype.is_numpy_compatible and dtype.size) or values * dtype.size != entry.size:
        raise ValueError(f"{key!r} has {entry.size} bytes, which are not those of {values} values of {dtype.name}")


def _check_strings(content: bytes, values: int, key: str) -> None:
    """A tensor of strings: the length of each, a checksum, then all texts."""
    if values > len(content):
        raise ValueError(f"{key!r} has fewer texts than its shape")
    at = total = 0
    for _ in range(values):
        length, at = _varint(content, at)
        total += length
    if at + _STRING_CHECKSUM_BYTES + total != len(content):
        raise ValueError(f"the texts of {key!r} have other lengths than stated")


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every key of a table with its value."""
    footer = content[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("its end is missing or damaged")
    at = 0
    handles = []
    for _ in range(2):
        offset, at = _varint(footer, at)
        size, at = _varint(footer, at)
        handles.append((offset, size))
    meta, index = (list(_block(content, *handle)) for handle in handles)
    if meta:
        raise ValueError("it has parts of an unknown kind")
    count = 0
    for _, handle in index:
        offset, at = _varint(handle, 0)
        size, _ = _varint(handle, at)
        for entry in _block(content, offset, size):
            count += 1
            if count > OBJECTS:
                raise ValueError(f"it has more than {OBJECTS:,} entries")
            yield entry


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = len(content) - _FOOTER_BYTES
    if size < 4 or offset + size + _TRAILER_BYTES > end or content[offset + size] != 0:
        raise ValueError("a block is damaged")
    block = content[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    stop = size - 4 * (restarts + 1)
    if stop < 0:
        raise ValueError("a block is damaged")
    at, key = 0, b""
    while at < stop:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or shared + own > _KEY_BYTES or at + own + length > stop:
            raise ValueError("an entry is damaged")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is damaged")
