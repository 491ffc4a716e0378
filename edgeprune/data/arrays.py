"""Samples in memory: from .npz files, functions that return arrays, and arrays given in Python."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.labels import check_targets, class_labels
from edgeprune.data.spec import InputSpec
from edgeprune.data.split import BATCHES_AHEAD, ordered
from edgeprune.errors import DataError
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf


class ArrayStore:
    """Arrays, gathered batch by batch; they keep their types until then (uint8 images stay small).

    Args:
        x: an array (samples, *sample shape), or a tuple in model order or dict by input name of several.
        y: an array (samples, ...), or a dict or tuple of arrays.
        spec: the model's inputs. A missing last axis of size 1 (grayscale images) is added.
        where: names the data in errors, for example ``"train"``.

    Raises:
        DataError: different lengths, shapes that do not fit the model, values that are not numbers, no samples.
    """

    def __init__(self, x: Structure, y: Structure, spec: InputSpec, where: str):
        import tensorflow as tf

        inputs = tuple(
            _fit(np.asarray(value), i, spec, where) for i, value in enumerate(spec.arrange(_one(x, spec), where))
        )
        y = tf.nest.map_structure(np.asarray, y if isinstance(y, (dict, tuple)) else np.asarray(y))
        leaves = tf.nest.flatten(y)
        _check_lengths([len(a) for a in inputs], [len(a) if a.ndim else 0 for a in leaves], where)
        for leaf in leaves:
            check_targets(leaf, where)
        self.labels = class_labels(y)
        self.size = len(inputs[0])
        with tf.device("CPU:0"):
            self._tensors = tf.nest.map_structure(tf.convert_to_tensor, (inputs, y))

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """See :class:`edgeprune.data.split.Store`."""
        return gather_batches(self._tensors, ordered(index, shuffle_seed), batch_size, drop_remainder)

    def digest(self) -> bytes:
        """sha256 over all values."""
        import tensorflow as tf

        return hash_arrays([tensor.numpy() for tensor in tf.nest.flatten(self._tensors)])


def gather_batches(tensors: Structure, order: np.ndarray, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
    """Batches of the rows ``order`` of every tensor in a structure."""
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def gather(rows: tf.Tensor) -> Structure:
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)

    rows = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=drop_remainder)
    return rows.map(gather, num_parallel_calls=BATCHES_AHEAD, deterministic=True)


def hash_arrays(arrays: list[np.ndarray]) -> bytes:
    """sha256 over types, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.digest()


def _one(x: Structure, spec: InputSpec) -> Structure:
    """A list is several inputs only for a model that has several; otherwise it is an array written as a list."""
    return np.asarray(x) if isinstance(x, list) and len(spec.shapes) == 1 else x


def _fit(array: np.ndarray, index: int, spec: InputSpec, where: str) -> np.ndarray:
    if array.dtype.kind not in "biuf" or array.ndim < 1:
        raise DataError(
            f"The inputs x of the {where} data are of type {array.dtype} and shape {array.shape}.",
            expected="an array of numbers, samples first.",
        )
    wanted = spec.shapes[index]
    if array.ndim == len(wanted) and wanted[-1:] == (1,):
        array = array[..., np.newaxis]
    spec.check_shape(index, array.shape[1:], where)
    return array


def _check_lengths(x_lengths: list[int], y_lengths: list[int], where: str) -> None:
    if len({*x_lengths, *y_lengths}) > 1:
        raise DataError(
            f"The {where} data has x of length {x_lengths} and y of length {y_lengths}.",
            expected="one target for every sample.",
            fix="write x and y again, from the same samples in the same order.",
        )
    if x_lengths[0] == 0:
        raise DataError(f"The {where} data is empty.", expected="at least one sample.")
