"""What a data source may be, as types; :func:`edgeprune.data.load.load_data` opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol


class Array(Protocol):
    """What NumPy makes an array of: its own arrays, and TensorFlow's tensors."""

    def __array__(self) -> object: ...


class Dataset(Protocol):
    """A ``tf.data.Dataset`` of (x, y), batched or not, in the words of a type checker that does not know TensorFlow."""

    @property
    def element_spec(self) -> object: ...

    def __iter__(self) -> Iterator[object]: ...


# Of one input or output, or of several: in the model's order, or by name.
Arrays = Array | tuple[Array, ...] | Mapping[str, Array]
# Called for every pass over the samples: (x, y) with arrays [batch, ...].
Batches = Callable[[], Iterable[tuple[Arrays, Arrays]]]
# A dataset; or x and y as arrays [samples, ...].
Samples = Dataset | tuple[Arrays, Arrays]
# By name: train, test and perhaps validation, or x_train, y_train, x_test, y_test, or x, y; or in the order train,
# validation, test, where validation may be left out; or all samples, of which a part becomes test.
Splits = Mapping[str, Samples | Array] | tuple[Samples, Samples] | tuple[Samples, Samples, Samples] | Samples
# A folder of class folders, an .npz file, package.module:function, file.py:function or "demo"; or the samples; or a
# function that returns them.
DataSource = str | Path | Callable[[], Splits] | Splits
