"""Samples in a tf.data.Dataset of the user: streamed, never held in memory as a whole."""

from __future__ import annotations

import array
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.arrays import hash_arrays
from edgeprune.data.guard import data_errors
from edgeprune.data.npz import Samples
from edgeprune.data.sizes import varied
from edgeprune.data.spec import InputSpec, Shape
from edgeprune.data.survey import Survey, check_weights, check_whole
from edgeprune.errors import DataError
from edgeprune.models.types import Structure, Value

if TYPE_CHECKING:
    import tensorflow as tf

_log = logging.getLogger(__name__)

HEAD_SAMPLES = 64  # how many samples are compared and go into the fingerprint
COUNTING_BATCH = 256
LEAST_DIFFERENT = 16  # samples; fewer may come several times by chance
MOST_SAMPLES = 20_000_000  # a dataset whose length TensorFlow does not know counts as endless above
WORD_SECONDS = 30  # between words about a dataset that is still being read
# What TensorFlow says of a batch of samples that differ in size: which component of the sample, and two of the sizes.
_MIXED_BATCH = re.compile(
    r"different shapes in component (\d+)\. First element had shape \[([\d,]*)\] and element \d+ had shape \[([\d,]*)\]"
)
WINDOW_BYTES = 128 * 2**20  # samples held at once for shuffling


class StreamStore:
    """A dataset of (x, y), (x, y, w) or x, batched or not, read once here to count it and to look at its values.

    Attributes:
        stable: whether two iterations started with the same samples. Only a stable dataset can be split by position.

    Args:
        dataset: yields (x, y) or (x, y, w), or without labels (x,) or x; x is a tensor, or a tuple in model order (not
            where it stands alone) or dict by input name of several.
        spec: the model's inputs; tells batches from samples.
        where: names the data in errors, for example ``"train"``.

    Raises:
        DataError: of another form, without end, repeated, empty, shapes that do not fit the model, values that are not
            finite numbers, or the dataset itself fails.
    """

    groups: np.ndarray | None = None

    def __init__(self, dataset: tf.data.Dataset, spec: InputSpec, where: str):
        import tensorflow as tf

        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise _endless("has no end", where)
        self._samples = single_samples(dataset, spec, where)
        self.shapes: tuple[Shape, ...] = spec.shapes
        survey, repeats = Survey(where, spec), Repeats(where)
        next_word = time.monotonic() + WORD_SECONDS
        with data_errors(), _one_size(spec, where):
            for chunk in self._samples.batch(COUNTING_BATCH).as_numpy_iterator():
                shapes = tuple(inputs.shape[1:] for inputs in chunk[0])
                for before, now, wanted in zip(self.shapes, shapes, spec.shapes, strict=True):
                    if survey.size and before != now:
                        raise varied(f"{where} data", wanted, before, now)
                self.shapes = shapes
                survey.add(*chunk)
                repeats.add(chunk)
                if survey.size > MOST_SAMPLES:
                    raise _endless(f"has no end within {MOST_SAMPLES:,} samples", where)
                if time.monotonic() > next_word:
                    _log.warning("The %s data are still being read: %s samples so far.", where, f"{survey.size:,}")
                    next_word = time.monotonic() + WORD_SECONDS
            survey.finish()
            repeats.finish()
            self.size, self.labels, self.targets = survey.size, survey.labels, survey.targets
            head = self._head()
            self.stable = hash_arrays(head) == hash_arrays(self._head())
        self._sample_bytes = sum(array.nbytes for array in head) // min(self.size, HEAD_SAMPLES)
        self._head_hash = hash_arrays(head) if self.stable else b""

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """See :class:`edgeprune.data.split.Streamed`. Keeps the order of the dataset, each sample once."""
        samples = self._samples
        if len(np.unique(index)) < self.size:
            samples = _masked(samples, np.isin(np.arange(self.size), index))
        if shuffle_seed is not None:
            # No more than there are: tf.data makes room for a whole batch at once.
            window = min(max(WINDOW_BYTES // max(self._sample_bytes, 1), 1), self.size)
            samples = _window_shuffle(samples, window, shuffle_seed)
        return samples.batch(batch_size, drop_remainder=drop_remainder)

    def digest(self) -> bytes:
        """sha256 over the size, the labels (in any order if the dataset has none) and the first samples."""
        labels = np.zeros(0) if self.labels is None else self.labels
        return hash_arrays([np.array(self.size), labels if self.stable else np.sort(labels)]) + self._head_hash

    def _head(self) -> list[np.ndarray]:
        return [leaf for sample in self._samples.take(HEAD_SAMPLES).as_numpy_iterator() for leaf in _leaves(sample)]


class Repeats:
    """Looks whether a dataset gives its samples several times, by a hash of 8 bytes of each.

    Args:
        where: names the data in errors, for example ``"train"``.
    """

    def __init__(self, where: str):
        self._where = where
        self._hashes = array.array("Q")
        self._next_look = 2 * LEAST_DIFFERENT

    def add(self, chunk: Structure) -> None:
        """Note the next samples, and whether all so far are one series again and again.

        Raises:
            DataError: they are.
        """
        arrays = [np.ascontiguousarray(leaf) for leaf in _leaves(chunk)]
        texts = any(leaf.dtype.kind == "O" for leaf in arrays)
        for i in range(len(arrays[0])):
            digest = hashlib.blake2b(digest_size=8)
            for leaf in arrays:
                digest.update(repr(leaf[i]).encode() if texts else leaf[i].tobytes())
            self._hashes.append(int.from_bytes(digest.digest(), "little"))
        if len(self._hashes) >= self._next_look:
            self._next_look = 2 * len(self._hashes)
            found = _period(np.frombuffer(self._hashes, np.uint64))
            if found:
                raise self._error(found, "again and again")

    def finish(self) -> None:
        """Raise DataError if the samples are one set several times over, in whatever order each time."""
        hashes = np.frombuffer(self._hashes, np.uint64)
        _, counts = np.unique(hashes, return_counts=True)
        times = int(np.gcd.reduce(counts)) if len(counts) >= LEAST_DIFFERENT else 1
        passes = np.sort(hashes.reshape(times, -1))
        if times > 1 and (passes == passes[0]).all():
            raise self._error(passes.shape[1], f"{times} times")

    def _error(self, samples: int, times: str) -> DataError:
        return DataError(
            f"The {self._where} dataset gives its {samples:,} samples {times}.",
            expected="a dataset that gives every sample once, and ends.",
            fix="remove .repeat() and loops such as `while True:` from the data function; edgeprune repeats by itself.",
        )


def _period(hashes: np.ndarray) -> int | None:
    """The length of the series that the samples repeat at least once, whole."""
    for length in np.flatnonzero(hashes[: len(hashes) // 2 + 1] == hashes[0])[1:]:
        if (hashes[length:] == hashes[:-length]).all():
            return int(length) if len(np.unique(hashes[:length])) >= LEAST_DIFFERENT else None
    return None


def _leaves(structure: Structure) -> list[np.ndarray]:
    import tensorflow as tf

    return [np.asarray(leaf) for leaf in tf.nest.flatten(structure)]


@contextlib.contextmanager
def _one_size(spec: InputSpec, where: str) -> Iterator[None]:
    """Say of inputs whose samples differ in size that they do: no batch can be made of them, here or by the user."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = _MIXED_BATCH.search(error.message)
        if not found or int(found[1]) >= len(spec.shapes):
            raise
        one, other = (tuple(int(size) for size in text.split(",") if size) for text in found.groups()[1:])
        raise varied(f"{where} data", spec.shapes[int(found[1])], one, other) from error


def _endless(what: str, where: str) -> DataError:
    return DataError(
        f"The {where} dataset {what}.",
        expected="a dataset that gives every sample once.",
        fix="remove .repeat() and endless generators from the data function; edgeprune repeats by itself.",
    )


def triple(element: Structure) -> tuple[Structure, Structure, Structure]:
    """What a dataset yields as (x, y, w), with ``()`` for what it lacks."""
    x, y, w = (*element, (), ())[:3] if isinstance(element, tuple) else (element, (), ())
    return x, y, w


def single_samples(dataset: tf.data.Dataset, spec: InputSpec, where: str) -> tf.data.Dataset:
    """The dataset as samples ``((input, ...), y, w)``."""
    import tensorflow as tf

    element = dataset.element_spec
    if not isinstance(element, (tuple, dict, tf.TensorSpec)) or (
        isinstance(element, tuple) and len(element) not in (1, 2, 3)
    ):
        raise DataError(
            f"The {where} dataset yields {element}.",
            expected="(x, y), (x, y, w) with sample weights, or x alone; several inputs as a tuple or dict in x.",
        )
    x, y, w = triple(element)
    check_whole(Samples(x, y, w), f"the {where} dataset")
    if not all(isinstance(leaf, tf.TensorSpec) for leaf in tf.nest.flatten(element)):
        raise DataError(f"The {where} dataset yields {element}.", expected="dense tensors.")
    check_weights(w, y, where)
    inputs = spec.arrange(x, where)
    for i, (tensor, dtype) in enumerate(zip(inputs, spec.dtypes, strict=True)):
        if tensor.dtype == tf.string != dtype:
            raise spec.texts_given(i, where)
    shapes = [tensor.shape for tensor in inputs]
    if any(shape.rank is None for shape in shapes):
        with data_errors():
            first = next(dataset.take(1).as_numpy_iterator(), None)
        if first is None:
            raise DataError(f"The {where} dataset is empty.", expected="at least one sample.")
        arrays = spec.arrange(triple(first)[0], where)
        shapes = [tf.TensorShape((None, *np.shape(array)[1:])[: np.ndim(array)]) for array in arrays]
    extra = {shape.rank - len(wanted) for shape, wanted in zip(shapes, spec.shapes, strict=True)}
    if extra == {2}:
        raise DataError(
            f"The {where} dataset yields batches of batches: x of shape {tuple(shapes[0].as_list())}.",
            expected=f"samples of shape {spec.shapes[0]}, or batches of them.",
            fix="remove one .batch() from the data function.",
        )
    batched = extra == {1}
    for i, shape in enumerate(shapes):
        spec.check_shape(i, tuple(shape.as_list()[1:] if batched else shape.as_list()), where)
    if batched and any(leaf.shape.rank == 0 for leaf in tf.nest.flatten((y, w))):
        raise DataError(
            f"The {where} dataset yields batches of x with a single number for y or w.",
            expected="one target, and one weight if there are any, for every sample.",
        )

    @tf.autograph.experimental.do_not_convert
    def arrange(*element: Structure) -> tuple[tuple[Value, ...], Structure, Structure]:
        x, y, w = triple(element)
        return spec.arrange(x, where), y, w

    return (dataset.unbatch() if batched else dataset).map(arrange)


def _masked(samples: tf.data.Dataset, mask: np.ndarray) -> tf.data.Dataset:
    import tensorflow as tf

    wanted = tf.constant(mask)

    @tf.autograph.experimental.do_not_convert
    def is_wanted(position: tf.Tensor, _: Structure) -> tf.Tensor:
        return wanted[position]

    @tf.autograph.experimental.do_not_convert
    def without_position(_: tf.Tensor, sample: Structure) -> Structure:
        return sample

    return samples.enumerate().filter(is_wanted).map(without_position)


def _window_shuffle(samples: tf.data.Dataset, window: int, seed: int) -> tf.data.Dataset:
    """Permute windows of samples. ``Dataset.shuffle`` would depend on TensorFlow's global seed as well."""
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def permute(number: tf.Tensor, batch: Structure) -> Structure:
        size = tf.shape(tf.nest.flatten(batch)[0])[0]
        keys = tf.random.stateless_uniform((size,), seed=tf.stack([tf.constant(seed, tf.int64), number]))
        order = tf.argsort(keys, stable=True)
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, order), batch)

    return samples.batch(window).enumerate().map(permute).unbatch()
