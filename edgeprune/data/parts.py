"""Data given in Python, or returned by a data function: which part is which split, and which array is x, y or w."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeprune.data.npz import EXPECTED, Samples, named_splits
from edgeprune.data.spec import InputSpec
from edgeprune.data.survey import check_whole
from edgeprune.errors import DataError
from edgeprune.models.types import Structure

RETURNS = (
    "a dict with train and test (and validation), a tuple (train, test) or (train, validation, test), or all samples "
    "in one; each a tf.data.Dataset, a Keras Sequence or PyDataset, a function that yields batches, or arrays: (x, y), "
    "(x, y, w) with sample weights, or x alone for data without labels."
)
BY_NAME = 'give it by name: {"train": (x, y, w), "validation": ..., "test": ...}, or {"x": x, "y": y, "w": w}.'

# The samples of one split, not checked yet: a tf.data.Dataset or Samples.
Part = Any


def read_parts(data: object, spec: InputSpec, name: str) -> dict[str, Part]:
    """The samples by split: train, test and perhaps validation, or all.

    Two or three datasets, or tuples of arrays, are splits. A tuple whose items are arrays is (x, y) or (x, y, w); only
    a tuple of a single item, an array alone, and a dict with the names of the model's inputs are x without labels. Two
    arrays are therefore x and y for a model of two inputs as well: its x without labels is ``((a, b),)`` or a dict.
    As many arrays as the model has several inputs, in a tuple of their own, are x: ``((a, b), (c, d))`` is (x, y) for a
    model of two inputs, and train and test for others.

    Args:
        data: a mapping, tuple, array or tf.data.Dataset.
        spec: the model's inputs.
        name: of the source, for errors.

    Raises:
        DataError: another type, missing splits, or a tuple of which it cannot be told what it is.
    """
    if isinstance(data, Mapping) and not _names_inputs(data, spec):
        if {"x", "x_train"} & set(data):
            return {
                split: _checked(samples, f"{split} data of {name}")
                for split, samples in named_splits(data, name).items()
            }
        return _by_split(data, spec, name)
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        if all(_is_part(item, spec) for item in data):
            splits = ("train", "test") if len(data) == 2 else ("train", "validation", "test")
            return {
                split: _part(item, spec, f"{split} data of {name}") for split, item in zip(splits, data, strict=True)
            }
        if any(map(is_dataset, data)) or (len(data) == 3 and all(_shaped_as_inputs(item, spec) for item in data)):
            raise DataError(
                f"The data of {name} are {', '.join(map(_describe, data))}: splits, or inputs, labels and weights?",
                expected=RETURNS,
                fix=BY_NAME,
            )
    return {"whole": _part(data, spec, f"data of {name}")}


def is_dataset(value: object) -> bool:
    """Whether a value is a tf.data.Dataset."""
    import tensorflow as tf

    return isinstance(value, tf.data.Dataset)


def _by_split(data: Mapping[str, Any], spec: InputSpec, name: str) -> dict[str, Part]:
    parts = {("validation" if key == "val" else key): part for key, part in data.items()}
    if len(parts) < len(data):
        raise DataError(f"The data of {name} have both val and validation.", expected="one of them.")
    if parts.get("validation", ()) is None:
        del parts["validation"]
    if set(parts) - {"train", "validation", "test"} or {"train", "test"} - set(parts):
        inputs = f", or the names of the model's inputs, {', '.join(spec.names)}" if len(spec.names) > 1 else ""
        raise DataError(
            f"The data of {name} have the keys {', '.join(map(str, data)) or '(none)'}.",
            expected=f"train and test (and validation){inputs}, or {EXPECTED}",
        )
    return {split: _part(part, spec, f"{split} data of {name}") for split, part in parts.items()}


def _part(value: object, spec: InputSpec, name: str) -> Part:
    if is_dataset(value):
        return value
    if isinstance(value, tuple) and len(value) in (1, 2, 3):
        if len(value) == 1 and is_dataset(value[0]):
            return value[0]
        return _checked(Samples(*(() if item is None else item for item in value)), name)
    if isinstance(value, list) and len(value) in (2, 3):
        return _checked(Samples(*value), name)
    if _is_array(value) or (isinstance(value, Mapping) and (_names_inputs(value, spec) or _holds_arrays(value))):
        return _checked(Samples(value), name)
    raise _refusal(value, name)


def _checked(samples: Samples, name: str) -> Samples:
    check_whole(samples, f"the {name}")
    for leaf in (leaf for values in (samples.x, samples.y, samples.w) for leaf in _flat(values)):
        if not (_is_array(leaf) or isinstance(leaf, (list, int, float, str))):
            raise _refusal(leaf, name)
    return samples


def _flat(values: Structure) -> Iterator[object]:
    if isinstance(values, Mapping):
        values = tuple(values.values())
    if not isinstance(values, tuple):
        yield values
        return
    for value in values:
        yield from _flat(value)


def _is_part(value: object, spec: InputSpec) -> bool:
    """Whether a value is the data of one split, and neither an array written as nested lists nor the inputs x."""
    if not (isinstance(value, (tuple, list)) and len(value) in (2, 3)):
        return is_dataset(value)
    inputs = len(value) == len(spec.shapes) and all(map(_is_array, value))
    return not inputs and all(_is_array(item) or isinstance(item, (tuple, dict)) for item in value)


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "shape")


def _holds_arrays(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(map(_is_array, value.values()))


def _names_inputs(value: Mapping[str, Any], spec: InputSpec) -> bool:
    return set(value) == set(spec.names) and not any(isinstance(part, (tuple, dict)) for part in value.values())


def _shaped_as_inputs(value: Any, spec: InputSpec) -> bool:
    wanted = spec.shapes[0]
    shape = tuple(value.shape[1:]) if _is_array(value) else ()
    return (
        len(spec.shapes) == 1
        and len(shape) == len(wanted) > 0
        and all(b in (a, None) for a, b in zip(shape, wanted, strict=True))
    )


def _describe(value: Any) -> str:
    if _is_array(value):
        return f"an array {list(value.shape)}"
    inside = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"{type(value).__name__}{inside}"


def _refusal(value: object, name: str) -> DataError:
    fix = None
    if value is None:
        fix = "end the data function with a return statement."
    return DataError(f"The {name} are of type {_describe(value)}.", expected=RETURNS, fix=fix)
