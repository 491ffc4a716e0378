"""Batches that Python code makes, as datasets: Keras' Sequence and PyDataset, and functions that yield."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.code import users_code
from edgeprune.data.spec import InputSpec
from edgeprune.errors import DataError
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf


def with_datasets(data: Any, spec: InputSpec, name: str) -> Any:
    """The data of a source, its indexable batches and functions that yield batches replaced by datasets.

    A dataset of an indexable one goes through the batches 0, 1, ... in order, ``on_epoch_end`` is never called; that of
    a function calls it for each pass. Both are streamed.

    Args:
        data: what :func:`edgeprune.data.parts.read_parts` takes, or this in place of datasets.
        spec: the model's inputs; tells batches from samples.
        name: of the source, for errors.

    Raises:
        DataError: batches without a length, no batches, or a generator that can be read only once.
    """
    if isinstance(data, Mapping):
        return {key: _converted(value, spec, f"{key} data of {name}") for key, value in data.items()}
    if isinstance(data, (tuple, list)) and any(_passes(item, name) for item in data):
        return tuple(_converted(item, spec, f"data of {name}") for item in data)
    return _converted(data, spec, f"data of {name}")


def _converted(value: Any, spec: InputSpec, where: str) -> Any:
    passes = _passes(value, where)
    return value if passes is None else _dataset(passes, spec, where)


def _passes(value: Any, where: str) -> Callable[[], Iterable[Any]] | None:
    """A function that begins a pass over the batches of ``value``; None if it is something else."""
    import tensorflow as tf

    if hasattr(value, "__next__") and not hasattr(value, "__getitem__"):
        raise DataError(
            f"The {where} are of type {type(value).__name__}, which can be read once, and a build reads them often.",
            expected="a function that yields batches (x, y), and ends; it is called for each pass.",
            fix='return the function itself, without calling it: {"train": train_batches, "test": test_batches}.',
        )
    if isinstance(value, (tuple, list, Mapping, str, bytes, tf.data.Dataset)) or hasattr(value, "__array__"):
        return None
    if hasattr(value, "__getitem__") and not isinstance(value, type):
        count = _count(value, where)
        return lambda: (value[i] for i in range(count))
    return value if callable(value) else None


def _count(value: Any, where: str) -> int:
    """How many batches an indexable one has: its length, or what a PyDataset states in its place."""
    try:
        count = len(value) if hasattr(value, "__len__") else value.num_batches
        if count is None:
            raise ValueError("num_batches is None")
        return int(count)
    except Exception as error:  # of the user's code
        raise DataError(
            f"The {where} have no length: {error}.",
            expected="a finite number of batches.",
            fix="give __len__, or num_batches of a PyDataset, the number of batches of one pass.",
        ) from error


def _dataset(passes: Callable[[], Iterable[Any]], spec: InputSpec, where: str) -> tf.data.Dataset:
    import tensorflow as tf

    from edgeprune.data.stream import triple

    def elements() -> Iterator[Structure]:
        made = passes()
        if not hasattr(made, "__iter__") or isinstance(made, (Mapping, tuple)):
            raise DataError(
                f"The {where} come from a function that returns {type(made).__name__}.",
                expected="a function that yields batches (x, y).",
            )
        for element in made:
            yield _arrays(element)

    with users_code(f"Reading the {where}", DataError):
        first = next(iter(elements()), None)
    if first is None:
        raise DataError(f"The {where} have no batches.", expected="at least one batch.")
    inputs = spec.arrange(triple(first)[0], where)
    batched = inputs[0].ndim == len(spec.shapes[0]) + 1

    def described(array: np.ndarray, open_axes: Iterable[int] = ()) -> tf.TensorSpec:
        shape = [None if i in open_axes or (batched and not i) else size for i, size in enumerate(array.shape)]
        return tf.TensorSpec(shape, tf.as_dtype(array.dtype) if array.dtype.kind not in "USO" else tf.string)

    sizes = {
        id(array): [axis + batched for axis, size in enumerate(shape) if size is None]
        for array, shape in zip(inputs, spec.shapes, strict=True)
    }
    signature = tf.nest.map_structure(lambda array: described(array, sizes.get(id(array), ())), first)
    return tf.data.Dataset.from_generator(elements, output_signature=signature)


def _arrays(element: Any) -> Structure:
    """A batch as a structure of arrays: lists as Keras takes them, and weights of None left out."""
    if isinstance(element, (tuple, list)):
        parts = list(element)
        while len(parts) > 1 and parts[-1] is None:
            parts.pop()
        return tuple(map(_part, parts))
    return _part(element)


def _part(value: Any) -> Structure:
    if isinstance(value, Mapping):
        return {key: _part(item) for key, item in value.items()}
    if isinstance(value, tuple) or (isinstance(value, list) and value and all(hasattr(v, "shape") for v in value)):
        return tuple(map(_part, value))
    return np.asarray(value)
