"""Samples in memory: from .npz files, functions that return arrays, and arrays given in Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.labels import leaves
from edgeprune.data.npz import Samples
from edgeprune.data.spec import InputSpec, Shape
from edgeprune.data.survey import Survey, check_weights
from edgeprune.data.targets import chunks
from edgeprune.errors import DataError
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf


class ArrayStore:
    """Arrays, gathered batch by batch; they keep their types until then (uint8 images stay small).

    Args:
        samples: x is an array (samples, *sample shape), or a tuple in model order or dict by input name of several; y
            and w are an array (samples, ...), or a dict or tuple of arrays, or ``()``.
        spec: the model's inputs. A missing last axis of size 1 (grayscale images) is added.
        where: names the data in errors, for example ``"train"``.

    Raises:
        DataError: different lengths, shapes that do not fit the model, values that are not finite numbers, no samples.
    """

    groups: np.ndarray | None = None

    def __init__(self, samples: Samples, spec: InputSpec, where: str):
        import tensorflow as tf

        x = spec.arrange(_one(samples.x, spec), where)
        inputs = tuple(_fit(_array(value, where), i, spec, where) for i, value in enumerate(x))
        y, w = (_by_output(values, len(inputs[0]), where) for values in (samples.y, samples.w))
        check_weights(w, y, where)
        for key, arrays in (("y", leaves(y)), ("w", leaves(w))):
            _check_lengths([len(a) for a in inputs], [len(a) if a.ndim else 0 for a in arrays], key, where)
        self.shapes: tuple[Shape, ...] = tuple(array.shape[1:] for array in inputs)
        survey = Survey(where, spec)
        structure = (inputs, y, w)
        for chunk in chunks(*tf.nest.flatten(structure)):
            survey.add(*tf.nest.pack_sequence_as(structure, chunk))
        survey.finish()
        self.size, self.labels, self.targets = survey.size, survey.labels, survey.targets
        self._where = where
        with tf.device("CPU:0"):
            self._tensors = tf.nest.map_structure(tf.convert_to_tensor, structure)

    def take(self, rows: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Structure, Structure]:
        """See :class:`edgeprune.data.split.Held`."""
        import tensorflow as tf

        with tf.device("CPU:0"):
            inputs, y, w = tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), self._tensors)
        return inputs, y, w

    def samples(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """See :class:`edgeprune.data.duplicates.Arrays`."""
        inputs = [tensor.numpy() for tensor in self._tensors[0]]
        for i in index:
            rows = [array[i] for array in inputs]
            yield rows[0] if len(rows) == 1 else np.frombuffer(b"".join(map(np.ndarray.tobytes, rows)), np.uint8)

    def name(self, i: int) -> str:
        """See :class:`edgeprune.data.duplicates.Arrays`."""
        return f"{self._where} sample {i}"

    def digest(self) -> bytes:
        """sha256 over all values."""
        import tensorflow as tf

        return hash_arrays([tensor.numpy() for tensor in tf.nest.flatten(self._tensors)])


def hash_arrays(arrays: list[np.ndarray]) -> bytes:
    """sha256 over types, shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.digest()


def _array(value: Structure, where: str) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(
            f"The {where} data have {np.ma.count_masked(value):,} masked values; what lies under a mask is no value.",
            expected="arrays without a mask.",
            fix="leave these samples out, or put a value in their place: x = x.filled(0).",
        )
    try:
        return np.asarray(value)
    except ValueError:
        raise DataError(
            f"The {where} data have lists whose items differ in length.",
            expected="arrays of numbers, samples first; several outputs as a tuple or dict of arrays.",
            fix="cut or pad sequences to one length: x = tf_keras.utils.pad_sequences(x, maxlen=100).",
        ) from None


def _one(x: Structure, spec: InputSpec) -> Structure:
    """A list is several inputs only for a model that has several; otherwise it is an array written as a list."""
    return (x,) if isinstance(x, list) and len(spec.shapes) == 1 else x


def _by_output(values: Structure, samples: int, where: str) -> Structure:
    """Targets or weights as one array, or a dict or tuple of arrays by output.

    A list of arrays is by output if each holds all samples; otherwise it is an array written as a list of its rows.
    """
    if isinstance(values, Mapping):
        return {name: _by_output(value, samples, where) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_by_output(value, samples, where) for value in values)
    by_output = isinstance(values, list) and values and all(np.ndim(item) and len(item) == samples for item in values)
    if by_output and all(hasattr(item, "shape") for item in values):
        if len(values) == samples:
            raise DataError(
                f"The {where} data have a list of {samples} arrays of length {samples} for {samples} samples: rows, or "
                "outputs?",
                expected="one array, or a tuple of arrays for several outputs.",
            )
        return tuple(_array(item, where) for item in values)
    return _array(values, where)


def _fit(array: np.ndarray, index: int, spec: InputSpec, where: str) -> np.ndarray:
    if array.size and isinstance(array.flat[0], str | bytes):
        raise spec.texts_given(index, where)
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


def _check_lengths(x_lengths: list[int], lengths: list[int], key: str, where: str) -> None:
    if len({*x_lengths, *lengths}) > 1:
        raise DataError(
            f"The {where} data has x of length {x_lengths} and {key} of length {lengths}.",
            expected=f"one {'target' if key == 'y' else 'weight'} for every sample.",
            fix=f"write x and {key} again, from the same samples in the same order; train and test without labels are "
            'given by name: {"train": x, "test": x_test}.',
        )
