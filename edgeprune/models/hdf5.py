"""Open HDF5 files. All that they hold is checked before anything of it is read.

HDF5 follows links to other files, and datasets whose values lie in other files, without asking: so a model file can
carry any file of the reader's disk into the weights. It makes memory for what a file claims, not for what it holds. And
corrupt structures can crash the library. Keras writes a tree: groups, hard links, datasets of numbers that lie in the
file, and attributes. Anything else is refused.
"""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import posixpath
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import ModelError
from edgeprune.models.limits import DEPTH, OBJECTS, most_bytes, refused, shown

if TYPE_CHECKING:
    import h5py
    from h5py import h5d, h5t

_HEAP_HEAD_BYTES = 16  # of a heap of texts, and of each object in it
_LINKS = {1: "is a link by name", 64: "is a link to another file"}  # of HDF5's kinds, which are numbers in files
# Attributes in which Keras lists groups and datasets by name; long lists go on in NAME0, NAME1, …
_LISTS = ("layer_names", "weight_names")
# All attributes that Keras reads, and so the only texts.
_READ = (*_LISTS, "keras_version", "backend", "model_config", "training_config", "dtype")


@contextlib.contextmanager
def open_hdf5(source: Path | io.BytesIO, path: object) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; the only place that does.

    Args:
        source: the file, or its content.
        path: for messages.

    Raises:
        ModelError: it holds what Keras never writes.
        OSError, RuntimeError, ValueError, KeyError, TypeError: it is damaged.
    """
    import h5py

    with contextlib.ExitStack() as opened:
        content: mmap.mmap | memoryview
        if isinstance(source, Path):
            stored = opened.enter_context(open(source, "rb"))
            content = opened.enter_context(mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ))
        else:
            content = opened.enter_context(source.getbuffer())
        file = opened.enter_context(h5py.File(source, "r"))
        _Check(content, path).walk(file)
        yield file


def weight_bytes(file: h5py.File) -> int:
    """The bytes of all datasets of an open file."""
    import h5py

    sizes: list[int] = []
    # visititems stops at a function that returns something.
    file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


class _Check:
    """The walk through one file.

    Args:
        content: of the file.
        path: for messages.
    """

    def __init__(self, content: mmap.mmap | memoryview, path: object):
        self._content, self._path = content, path
        self._size, self._most = len(content), most_bytes(len(content))
        self._texts: set[str] = set()
        _check_sizes(content)
        _check_heaps(content)
        self._claimed = self._objects = 0

    def walk(self, file: h5py.File) -> None:
        import h5py

        seen: set[int] = set()
        waiting = ["/"]
        while waiting:
            name = waiting.pop()
            item = file[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise self._refused(name, "is one object under two names")
            seen.add(address)
            self._attributes(item, name)
            if isinstance(item, h5py.Group):
                waiting += self._members(item, name)
            elif isinstance(item, h5py.Dataset):
                self._dataset(item, name)

    def _members(self, group: h5py.Group, name: str) -> Iterator[str]:
        import h5py

        self._count(len(group))
        if name.count("/") > DEPTH:
            raise refused(self._path, f"nests its groups more than {DEPTH} deep")
        for member in group:
            full = posixpath.join(name, member)
            kind = group.id.links.get_info(group._e(member)).type
            if kind != h5py.h5l.TYPE_HARD:
                raise self._refused(full, _LINKS.get(kind, "is a link of an unknown kind"))
            yield full

    def _dataset(self, dataset: h5py.Dataset, name: str) -> None:
        if dataset.external:
            raise self._refused(name, "has its values in another file")
        if dataset.is_virtual:
            raise self._refused(name, "is put together from datasets elsewhere")
        item = self._item_bytes(dataset.id.get_type(), name)
        self._claimed += max(math.prod(dataset.shape or (0,)), math.prod(dataset.chunks or (0,))) * item
        if self._claimed > self._most:
            claimed = f"claims {self._claimed / 1e6:,.0f} MB of values in {self._size / 1e6:,.1f} MB"
            raise refused(self._path, f"{claimed} (the last: {shown(name)})")
        if dataset.chunks:
            self._chunks(dataset.id, name, math.prod(dataset.chunks) * item)

    def _chunks(self, dataset: h5d.DatasetID, name: str, most: int) -> None:
        """Only usual filters, in the usual order; and no chunk that expands to more than its size."""
        from h5py import h5z

        plan = dataset.get_create_plist()
        filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
        usual = (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_LZF, h5z.FILTER_FLETCHER32)
        if filters != [code for code in usual if code in filters]:
            raise self._refused(name, "is stored through filters that Keras does not use")
        chunks = dataset.get_num_chunks()
        self._count(chunks)
        for number in range(chunks if h5z.FILTER_DEFLATE in filters else 0):
            _, content = dataset.read_direct_chunk(dataset.get_chunk_info(number).chunk_offset)
            if len(zlib.decompressobj().decompress(content, most + 1)) > most:
                raise self._refused(name, "has a chunk that expands to more than its size")

    def _attributes(self, item: h5py.Group | h5py.Dataset | h5py.Datatype, name: str) -> None:
        from h5py import h5t

        self._count(len(item.attrs))
        listed: list[str] = []
        for key in item.attrs:
            attribute = item.attrs.get_id(key)
            if attribute.get_type().get_class() == h5t.STRING and attribute.get_type().is_variable_str():
                self._check_texts(key)
            elif math.prod(attribute.shape or (0,)) * self._item_bytes(attribute.get_type(), name) > self._size:
                raise self._refused(name, f"has an attribute {shown(key)} that is longer than the file")
            if key.rstrip("0123456789") in _LISTS and attribute.shape:
                listed += [text.decode() if isinstance(text, bytes) else str(text) for text in item.attrs[key].flat]
        # Keras reads by these lists: what they name twice, or in another group, it would read again and again.
        if len({posixpath.normpath(text) for text in listed}) < len(listed) or any(t.startswith("/") for t in listed):
            raise self._refused(name, "lists the same weights twice, or those of another group")

    def _check_texts(self, key: str) -> None:
        if key not in self._texts and key.rstrip("0123456789") in _READ:
            self._texts.add(key)
            _check_texts(self._content, key.encode())

    def _item_bytes(self, kind: h5t.TypeID, name: str) -> int:
        """Bytes of one value in memory, at most."""
        from h5py import h5t

        group = kind.get_class()
        if group in (h5t.REFERENCE, h5t.VLEN) or (group == h5t.STRING and kind.is_variable_str()):
            raise self._refused(name, "holds references, lists or texts where numbers belong")
        if group == h5t.COMPOUND:
            members = range(kind.get_nmembers())
            return max(kind.get_size(), sum(self._item_bytes(kind.get_member_type(n), name) for n in members))
        if group == h5t.ARRAY:
            return self._item_bytes(kind.get_super(), name) * math.prod(kind.get_array_dims())
        return kind.get_size()

    def _count(self, more: int) -> None:
        self._objects += more
        if self._objects > OBJECTS:
            raise refused(self._path, f"has more than {OBJECTS:,} members")

    def _refused(self, name: str, what: str) -> ModelError:
        return refused(self._path, f"has a member {shown(name)} which {what}")


def _check_heaps(content: mmap.mmap | memoryview) -> None:
    """Walk the heaps of texts: the library does so without end where an object has no size.

    Raises:
        ValueError: a heap is damaged.
    """
    for found in re.finditer(rb"GCOL\x01\0\0\0", content):
        at = found.start() + _HEAP_HEAD_BYTES
        stop = found.start() + _number(content, found.start() + 8)
        if not at <= stop <= len(content):
            raise ValueError("a heap of texts reaches beyond the end")
        while at + _HEAP_HEAD_BYTES <= stop:
            index, size = struct.unpack_from("<H", content, at)[0], _number(content, at + 8)
            # Object 0 is what is free, its own head included.
            at += _HEAP_HEAD_BYTES + _padded(size, 8) if index else size
            if at > stop or (index == 0 and size < _HEAP_HEAD_BYTES):
                raise ValueError("a heap of texts is damaged")


def _check_texts(content: mmap.mmap | memoryview, name: bytes) -> None:
    """Sum the lengths that attributes of this name state for their texts: the library makes memory for each.

    They stand in the file as a version, sizes, the name, type and shape, and 16 bytes for each text: its length, and
    where it lies.

    Raises:
        ValueError: the texts are longer than the file.
    """
    for found in re.finditer(re.escape(name) + b"\0", content):
        for version, head, multiple in ((1, 8, 8), (2, 8, 1), (3, 9, 1)):
            start = found.start() - head
            if start < 0 or content[start] != version:
                continue
            sizes = struct.unpack_from("<3H", content, start + 2)
            if sizes[0] != len(name) + 1:
                continue
            name_bytes, type_bytes, shape_bytes = (_padded(size, multiple) for size in sizes)
            shape = found.start() + name_bytes + type_bytes
            at = shape + shape_bytes
            values = _values(content, shape)
            if at + 16 * values > len(content):
                raise ValueError("an attribute reaches beyond the end")
            if sum(struct.unpack_from("<I", content, at + 16 * number)[0] for number in range(values)) > len(content):
                raise ValueError("an attribute states texts that are longer than the file")


def _values(content: mmap.mmap | memoryview, at: int) -> int:
    """The number of values of a shape: its version, number of axes, flags, and their sizes."""
    version, axes = content[at], content[at + 1]
    return math.prod(_number(content, at + (8 if version == 1 else 4) + 8 * axis) for axis in range(axes))


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _number(content: mmap.mmap | memoryview, at: int) -> int:
    if at + 8 > len(content):
        raise ValueError("a number reaches beyond the end")
    return int(struct.unpack_from("<Q", content, at)[0])


def _check_sizes(content: mmap.mmap | memoryview) -> None:
    """Offsets and lengths have eight bytes, as always: the walk through heaps relies on it."""
    superblock = content[:16]
    sizes = superblock[13:15] if superblock[8] < 2 else superblock[9:11]
    if bytes(sizes) != b"\x08\x08":
        raise ValueError("its superblock is damaged")
