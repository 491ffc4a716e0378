"""Texts and categories as samples, brought through the part of the model that stays on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.guard import data_errors
from edgeprune.data.npz import Samples
from edgeprune.data.spec import InputSpec, Shape
from edgeprune.errors import DataError
from edgeprune.models.front import CHUNK, Front, fit
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf

# Kinds of NumPy's types that hold texts: str, bytes, objects.
_TEXT = "USO"


def whole_spec(spec: InputSpec) -> InputSpec:
    """The inputs of the whole model: those of the part on the host, if there is one."""
    front = spec.front
    return spec if front is None else InputSpec(front.shapes, front.names, front.dtypes)


def through_front(parts: Mapping[str, Any], spec: InputSpec) -> dict[str, Any]:
    """The samples of all splits as the model on the board takes them.

    Samples that hold numbers where the host part takes texts are taken for its results, and pass. Lengths that the
    model leaves open become the longest of all samples; shorter ones are filled up with zeros, as Keras fills up a
    batch.

    Args:
        parts: by split, :class:`~edgeprune.data.npz.Samples` or ``tf.data.Dataset``.

    Raises:
        DataError: texts and numbers mixed, values missing, shapes that do not fit, or values that the layers refuse.
    """
    front = spec.front
    if front is None:
        return dict(parts)
    made = {name: _part(part, spec, front, name) for name, part in parts.items()}
    shapes = [part.shapes for part in made.values() if isinstance(part, _Numbers)]
    if not shapes:
        return dict(parts)
    lengths = [
        tuple(
            max(sizes) if size is None else size for size, sizes in zip(wanted, zip(*found, strict=True), strict=True)
        )
        for wanted, found in zip(spec.shapes, zip(*shapes, strict=True), strict=True)
    ]
    return {name: part.fitted(lengths) if isinstance(part, _Numbers) else part for name, part in made.items()}


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """What the host part made of one split: arrays, or a dataset of batches ``((input, ...), y, w)``."""

    numbers: tuple[np.ndarray, ...] | tf.data.Dataset
    shapes: tuple[tuple[int, ...], ...]
    samples: Samples

    def fitted(self, lengths: Sequence[Shape]) -> Any:
        if isinstance(self.numbers, tuple):
            x = tuple(fit(array, shape) for array, shape in zip(self.numbers, lengths, strict=True))
            return dataclasses.replace(self.samples, x=x)
        return self.numbers.map(lambda x, y, w: _element(_fit_all(x, lengths), y, w))


def _part(part: Any, spec: InputSpec, front: Front, where: str) -> Any:
    from edgeprune.data.parts import is_dataset

    if is_dataset(part):
        return _dataset(part, spec, front, where)
    arrays = _texts(part.x, spec, front, where)
    if arrays is None:
        return part
    numbers = tuple(front.run_all(arrays))
    return _Numbers(numbers, tuple(array.shape[1:] for array in numbers), part)


def _texts(x: Structure, spec: InputSpec, front: Front, where: str) -> list[np.ndarray] | None:
    """The arrays of the whole model's inputs; None where these are the numbers already."""
    whole = whole_spec(spec)
    if isinstance(x, Mapping) and set(x) == set(spec.names) != set(whole.names):
        return None
    x = (x,) if isinstance(x, list) and len(whole.shapes) == 1 else x
    inputs = whole.arrange(x, where)
    arrays = [np.asarray(value) for value in inputs]
    are_texts = [
        array.dtype.kind in _TEXT for array, dtype in zip(arrays, front.dtypes, strict=True) if dtype == "string"
    ]
    if front.takes_text and not any(are_texts):
        return None
    if not all(are_texts):
        raise DataError(
            f"The {where} data have texts for some of the inputs {', '.join(front.names)} and numbers for others.",
            expected="texts wherever the whole model takes them; or for all inputs the numbers behind its lookups.",
        )
    return [
        _shaped(_as_text(array, where) if dtype == "string" else array, i, whole, where)
        for i, (array, dtype) in enumerate(zip(arrays, front.dtypes, strict=True))
    ]


def _as_text(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    missing = [value for value in array.flat if not isinstance(value, str | bytes)]
    if missing:
        raise DataError(
            f"The {where} data have {len(missing)} values among the texts that are none, such as {missing[0]!r}.",
            expected="a text for every sample.",
            fix="remove these samples, or give an empty text.",
        )
    decoded = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.flat]
    return np.array(decoded, dtype=str).reshape(array.shape)


def _shaped(array: np.ndarray, index: int, whole: InputSpec, where: str) -> np.ndarray:
    """A column for a single text or number of each sample is added, or left out, as the model has it."""
    wanted = whole.shapes[index]
    if wanted == (1,) and array.ndim == 1:
        array = array[:, np.newaxis]
    if wanted == () and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    whole.check_shape(index, array.shape[1:], where)
    return array


def _dataset(dataset: tf.data.Dataset, spec: InputSpec, front: Front, where: str) -> Any:
    import tensorflow as tf

    from edgeprune.data.stream import single_samples, triple

    if front.takes_text and not any(
        isinstance(leaf, tf.TensorSpec) and leaf.dtype == tf.string
        for leaf in tf.nest.flatten(triple(dataset.element_spec)[0])
    ):
        return dataset
    samples = single_samples(dataset, whole_spec(spec), where)

    @tf.autograph.experimental.do_not_convert
    def run(x: Structure, y: Structure, w: Structure) -> Structure:
        inputs = [tf.cast(t, dtype) if dtype != "string" else t for t, dtype in zip(x, front.dtypes, strict=True)]
        outputs = front.model(inputs[0] if len(inputs) == 1 else inputs, training=False)
        return tuple(tf.nest.flatten(outputs)), y, w

    made = samples.batch(CHUNK).map(run)
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in made.element_spec[0])
    if any(None in shape for shape in shapes):
        with data_errors():
            found = [[tensor.shape[1:] for tensor in x] for x, _, _ in made.as_numpy_iterator()]
        shapes = tuple(max(sizes) for sizes in zip(*found, strict=True)) if found else shapes
    return _Numbers(made, shapes, Samples(()))


def _fit_all(tensors: Structure, shapes: Sequence[Shape]) -> Structure:
    """As :func:`edgeprune.models.front.fit`, of tensors with one axis behind the samples."""
    import tensorflow as tf

    made = []
    for tensor, shape in zip(tensors, shapes, strict=True):
        cut = tensor[tuple(slice(None, size) for size in (None, *shape))]
        filling = [[0, 0], *([0, size - tf.shape(cut)[axis]] for axis, size in enumerate(shape, 1))]
        made.append(tf.ensure_shape(tf.pad(cut, filling), (None, *shape)))
    return tuple(made)


def _element(x: Structure, y: Structure, w: Structure) -> Structure:
    """What a dataset of the user yields: ``()`` left out, and a single input alone."""
    x = x if len(x) > 1 else x[0]
    rest = tuple(part for part in (y, w) if not (isinstance(part, tuple) and not part))
    return (x, *rest)
