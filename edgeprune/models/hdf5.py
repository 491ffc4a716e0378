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

# Lists of texts may take this much. Keras 3 lists up to 2,000 names, beside a description of 1.3 MB; any of them could
# be that text.
_ATTRIBUTE_BYTES = 1 << 31
_LINKS = {1: "is a link by name", 64: "is a link to another file"}  # of HDF5's kinds, which are numbers in files
# Attributes in which Keras lists groups and datasets by name; long lists go on in NAME0, NAME1, …
_LISTS = ("layer_names", "weight_names")


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

    if isinstance(source, Path):
        with open(source, "rb") as stored, mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as content:
            check = _Check(content, path)
    else:
        with source.getbuffer() as content:
            check = _Check(content, path)
    with h5py.File(source, "r") as file:
        check.walk(file)
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
        self._size, self._path, self._most = len(content), path, most_bytes(len(content))
        self._longest_text = _longest_text(content)
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
        self._count(len(item.attrs))
        listed: list[str] = []
        for key in item.attrs:
            attribute = item.attrs.get_id(key)
            values = math.prod(attribute.shape or (0,))
            if values * self._item_bytes(attribute.get_type(), name) > _ATTRIBUTE_BYTES:
                raise self._refused(name, f"has an attribute {shown(key)} of {values:,} values")
            if key.rstrip("0123456789") in _LISTS and attribute.shape:
                listed += [text.decode() if isinstance(text, bytes) else str(text) for text in item.attrs[key].flat]
        # Keras reads by these lists: what they name twice, or in another group, it would read again and again.
        if len({posixpath.normpath(text) for text in listed}) < len(listed) or any(t.startswith("/") for t in listed):
            raise self._refused(name, "lists the same weights twice, or those of another group")

    def _item_bytes(self, kind: h5t.TypeID, name: str) -> int:
        """Bytes of one value in memory, at most."""
        from h5py import h5t

        group = kind.get_class()
        if group in (h5t.REFERENCE, h5t.VLEN):
            raise self._refused(name, "holds references or lists where numbers belong")
        if group == h5t.STRING and kind.is_variable_str():
            return self._longest_text  # each may be one and the same
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


def _longest_text(content: mmap.mmap | memoryview) -> int:
    """The largest size that a collection of texts states ("global heap"): no text is longer."""
    sizes = [
        struct.unpack_from("<Q", content, found.start() + 8)[0]
        for found in re.finditer(b"GCOL", content)
        if found.end() + 12 <= len(content)
    ]
    return min(max(sizes, default=0), len(content))
