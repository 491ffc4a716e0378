"""One pass over all samples of a source: what is wrong with them, and the facts of their targets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeprune.data.labels import as_classes, leaf_classes, leaves
from edgeprune.data.npz import Samples
from edgeprune.data.spec import InputSpec
from edgeprune.data.targets import merge_targets, target_facts
from edgeprune.errors import DataError
from edgeprune.models.types import Structure

NAMES_SHOWN = 10

# What a message calls the parts of a sample, and the fix of values that are not finite.
PARTS = {"x": "inputs x", "y": "labels y", "w": "sample weights w"}
# What to give in the place of None.
_WHOLE = {
    "x": "give an array for every input of the model.",
    "y": 'give labels by name, without the outputs that have none: {"OUTPUT": y}.',
    "w": "give weights of 1 where there are none: np.ones(len(x)).",
}


class Survey:
    """Counts samples chunk by chunk, and looks at each value once.

    Attributes:
        size: number of samples.
        targets: facts in the structure of y; ``()`` without labels.
        labels: the class of each sample, int64 [size], or None; see :func:`edgeprune.data.labels.class_labels`.

    Args:
        where: names the data in errors, for example ``"train"``.
        spec: the model's inputs.
    """

    def __init__(self, where: str, spec: InputSpec):
        self._spec = spec
        self.size = 0
        self.targets: Structure = ()
        self.labels: np.ndarray | None = None
        self._where = where
        self._classes: list[list[np.ndarray] | None] | None = None
        self._texts: set[str] = set()
        self._text_dtype = np.dtype(object)
        self._bad = dict.fromkeys(PARTS, (0, 0))  # part → (number of samples that are not finite, the first)
        self._weight_sum: float | None = None

    def add(self, inputs: tuple[np.ndarray, ...], y: Structure, w: Structure) -> None:
        """Look at the next samples, [n, ...] each.

        Raises:
            DataError: targets or weights that are not numbers, negative weights, or inputs that are no numbers of the
                model's integer type.
        """
        import tensorflow as tf

        y = tf.nest.map_structure(np.asarray, y)
        for part, arrays in (("x", inputs), ("y", leaves(y)), ("w", leaves(w))):
            self._count_bad(part, [np.asarray(array) for array in arrays], len(inputs[0]))
        check_integers(inputs, self._spec, self._where)
        self._add_weights([np.asarray(array) for array in leaves(w)])
        if not self._add_texts(leaves(y)) and not self._bad["y"][0]:
            facts = tf.nest.map_structure(target_facts, y)
            self.targets = merge_targets(self.targets, facts) if self.size else facts
            self._add_classes(leaves(y))
        self.size += len(inputs[0])

    def finish(self) -> None:
        """Settle the labels.

        Raises:
            DataError: no samples; labels that are text; values that are not finite, with the number of samples
                concerned; weights that are all zero.
        """
        if self.size == 0:
            raise DataError(f"The {self._where} data is empty.", expected="at least one sample.")
        if self._texts:
            self._raise_texts()
        for part, (count, first) in self._bad.items():
            if count:
                raise DataError(
                    f"The {PARTS[part]} of the {self._where} data have NaN or infinite values in {count} of "
                    f"{self.size} samples, first in sample {first}.",
                    expected="finite numbers (as float32)." if part == "x" else "a finite number for every sample.",
                    fix="remove or repair these samples.",
                )
        if self._weight_sum == 0:
            raise DataError(
                f"The sample weights w of the {self._where} data are all zero.",
                expected="weights above zero for the samples that count.",
            )
        settled = (as_classes(np.concatenate(parts)) for parts in self._classes or () if parts)
        self.labels = next((labels for labels in settled if labels is not None), None)

    def _count_bad(self, part: str, arrays: list[np.ndarray], size: int) -> None:
        bad = np.zeros(size, bool)
        for array in arrays:
            if array.dtype.kind == "f":
                bad |= ~_finite(array, as_float32=part == "x").reshape(size, -1).all(axis=1)
        if bad.any():
            count, first = self._bad[part]
            self._bad[part] = (count + int(bad.sum()), first if count else self.size + int(bad.argmax()))

    def _add_weights(self, arrays: list[np.ndarray]) -> None:
        for array in arrays:
            if array.dtype.kind not in "biuf" or (array < 0).any():
                raise DataError(
                    f"The sample weights w of the {self._where} data "
                    + (f"are of type {array.dtype}." if array.dtype.kind not in "biuf" else "are negative in places."),
                    expected="a number of at least 0 for every sample.",
                )
            self._weight_sum = (self._weight_sum or 0.0) + float(array.sum(dtype=np.float64))

    def _add_texts(self, arrays: list[np.ndarray]) -> bool:
        """Whether targets are text. Their names are collected, for the message."""
        for array in arrays:
            if array.dtype.kind in "biuf":
                continue
            names = {name.decode(errors="replace") if isinstance(name, bytes) else name for name in array.flat}
            if not all(isinstance(name, str) for name in names):
                raise self._no_numbers(array.dtype, "map class names to integers 0, 1, 2, ... in sorted order.")
            self._texts |= {str(name) for name in names}
            self._text_dtype = array.dtype
        return bool(self._texts)

    def _raise_texts(self) -> None:
        names = sorted(self._texts)
        numbers = ", ".join(f"{name!r}: {number}" for number, name in enumerate(names[:NAMES_SHOWN]))
        more = f", ... ({len(names)} names)" if len(names) > NAMES_SHOWN else ""
        raise self._no_numbers(
            self._text_dtype,
            f"map class names to integers in sorted order: {{{numbers}{more}}}, as the model has them.",
        )

    def _no_numbers(self, dtype: np.dtype, fix: str) -> DataError:
        return DataError(
            f"The labels y of the {self._where} data are of type {dtype}.",
            expected="numbers: class indices, one-hot rows or regression targets.",
            fix=fix,
        )

    def _add_classes(self, arrays: list[np.ndarray]) -> None:
        """A target is one class per sample only if it is so in every chunk."""
        if self._classes is None:
            self._classes = [[] for _ in arrays]
        for i, (parts, array) in enumerate(zip(self._classes, arrays, strict=True)):
            classes = None if parts is None else leaf_classes(array)
            if parts is not None and classes is not None:
                parts.append(classes)
            else:
                self._classes[i] = None


def check_integers(inputs: tuple[np.ndarray, ...], spec: InputSpec, where: str) -> None:
    """Raise DataError if an input of an integer type would be cut off, or wrap around.

    Args:
        inputs: one array per input of the model, [n, ...] each.
        where: names the data in errors, for example ``"train"``.
    """
    for array, name, dtype in zip(inputs, spec.names, spec.dtypes, strict=True):
        if not dtype.startswith(("int", "uint")) or array.dtype == dtype or array.dtype.kind == "b":
            continue
        limits, finite = np.iinfo(dtype), array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if (finite < limits.min).any() or (finite > limits.max).any() or (np.floor(finite) != finite).any():
            raise DataError(
                f"The {where} data has values from {finite.min():g} to {finite.max():g} of type "
                f"{array.dtype} for input {name!r}, which takes {dtype}.",
                expected=f"whole numbers from {limits.min} to {limits.max}.",
                fix="give them as the model was trained with, without scaling.",
            )


def _finite(array: np.ndarray, *, as_float32: bool) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(array.astype(np.float32) if as_float32 and array.dtype.itemsize > 4 else array)


def check_weights(w: Structure, y: Structure, where: str) -> None:
    """Raise DataError if weights by output do not have the structure of the targets.

    Args:
        w, y: structures of anything, for example of tensors' types; one weight is for all outputs.
    """
    by_name = isinstance(w, Mapping) and isinstance(y, Mapping) and set(w) <= set(y)
    in_order = isinstance(w, tuple) and (not w or (isinstance(y, tuple) and len(w) == len(y)))
    if isinstance(w, Mapping | tuple) and not (by_name or in_order):
        raise DataError(
            f"The {where} data has sample weights w {_outline(w)} and labels y {_outline(y)}.",
            expected="one array of weights, or weights in the form of y: a dict with its names, or as long a tuple.",
        )


def _outline(structure: Structure) -> str:
    if isinstance(structure, Mapping):
        return f"named {', '.join(map(str, structure))}"
    return f"of {len(structure)} arrays" if isinstance(structure, tuple) else "in one array"


def check_whole(samples: Samples, of: str) -> None:
    """Raise DataError if there is None among the arrays of several inputs, labels or weights.

    Args:
        samples: arrays, or their types in a dataset.
        of: names the data in errors, for example ``"the train dataset"``.
    """
    for part, what in PARTS.items():
        values = getattr(samples, part)
        items = list(values.values()) if isinstance(values, Mapping) else values
        if not isinstance(items, tuple | list) or (isinstance(items, list) and not any(map(_is_array, items))):
            continue
        missing = [_is_none(item) for item in items]
        if any(missing):
            raise DataError(
                f"The {what} of {of} are {_places(values)}.",
                expected="an array in each of these places.",
                fix=f"leave {part} out." if all(missing) and part != "x" else _WHOLE[part],
            )


def _is_array(value: object) -> bool:
    return hasattr(value, "shape")


def _is_none(value: object) -> bool:
    """None, or what stands for it among the types of a dataset."""
    return value is None or type(value).__name__ == "NoneTensorSpec"


def _places(values: Structure) -> str:
    """``(array, None)``, or ``{"a": array, "b": None}``."""
    if isinstance(values, Mapping):
        return "{" + ", ".join(f'"{name}": {_place(value)}' for name, value in values.items()) + "}"
    return f"({', '.join(map(_place, values))})"


def _place(value: object) -> str:
    return "None" if _is_none(value) else "array" if _is_array(value) else type(value).__name__
