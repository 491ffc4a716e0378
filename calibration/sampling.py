"""Choose representative samples, check them, and pass them to the TFLite converter.

Post-training quantization takes the range of every activation from these samples (Jacob et al. 2018, arXiv:1712.05877),
so they must come from training data, cover all classes, and hold no outliers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np

from edgeprune.data import InputSpec, Split, data_errors
from edgeprune.data.labels import stratified_order
from edgeprune.data.spec import Shape

Sample = list[np.ndarray] | dict[str, np.ndarray]

# A sample whose largest value is so many times that of 90 % of the samples makes the int8 step too coarse for them.
OUTLIER_FACTOR = 10
# An input has one int8 scale for all its values: a column that moves by fewer steps of it is nearly lost.
FEW_STEPS = 16
MOST_SENSORS = 16
NARROW_RANGE = 1 / 64  # images that were scaled by 1/255 twice have a range of 0..0.004

Strategy = Literal["stratified", "random"]


def representative_indices(split: Split, samples: int, strategy: Strategy = "stratified", seed: int = 0) -> np.ndarray:
    """Choose samples of a split.

    ``stratified`` takes one sample of every class first, then each class in proportion to its size; without class
    labels (regression, multi-label) it is the same as ``random``.

    Args:
        split: training data.
        samples: how many; all of the split if it has fewer.
        strategy: see above.
        seed: of the random choice.

    Returns:
        int64 array of distinct positions in the split, in the order they are to be used.
    """
    labels = split.labels
    if strategy == "stratified" and labels is not None:
        return stratified_order(labels, seed=seed)[:samples]
    return np.random.default_rng(seed).permutation(split.size)[:samples]


def representative_dataset(split: Split, indices: np.ndarray) -> Callable[[], Iterator[Sample]]:
    """A function for ``TFLiteConverter.representative_dataset``. Samples are preprocessed as for training.

    Args:
        split: training data.
        indices: positions in the split.

    Returns:
        A function without arguments. Each call iterates over the samples, every one with batch size 1: a list of one
        array for a model with one input, a dict by input name for several (the converter orders inputs by itself).
        Iterating raises DataError where data cannot be read.
    """

    def samples() -> Iterator[Sample]:
        names = split.spec.names
        with data_errors():
            for x in split.inputs(1, indices=indices).as_numpy_iterator():
                yield [x] if len(names) == 1 else dict(zip(names, x, strict=True))

    return samples


def check_samples(
    samples: Iterable[Sample],
    input_spec: InputSpec,
    *,
    labels: np.ndarray | None = None,
    class_count: int | None = None,
) -> list[str]:
    """Look for samples that would make quantization inaccurate.

    Args:
        samples: as :func:`representative_dataset` yields them, batch size 1.
        input_spec: the model's inputs.
        labels: int (samples,), the classes of the samples, if known.
        class_count: number of classes in the training data, if known.

    Returns:
        Warnings, one sentence each: no samples, another shape or dtype than the model takes, values that are not
        finite, constant samples, a range so narrow that the data were probably scaled twice, outliers, classes without
        a sample.
    """
    rows = [list(sample.values()) if isinstance(sample, dict) else sample for sample in samples]
    if not rows:
        return ["There are no representative samples, so activation ranges cannot be found."]
    warnings = []
    for i, name in enumerate(input_spec.names):
        where = f" of input {name!r}" if len(input_spec.names) > 1 else ""
        warnings += _check_form([row[i] for row in rows], input_spec.shapes[i], input_spec.dtypes[i], where)
        warnings += _check_values([np.asarray(row[i], np.float64) for row in rows], where)
    if labels is not None and class_count is not None and len(np.unique(labels)) < class_count:
        missing = class_count - len(np.unique(labels))
        warnings.append(f"{missing} of {class_count} classes have no representative sample; use more samples.")
    return warnings


def _check_form(samples: list[np.ndarray], shape: Shape, dtype: str, where: str) -> list[str]:
    warnings = []
    wrong = [sample.shape[1:] for sample in samples if not _fits(sample.shape[1:], shape)]
    if wrong:
        warnings.append(
            f"{len(wrong)} of {len(samples)} representative samples{where} have another shape than the model takes: "
            f"{wrong[0]} instead of {shape}."
        )
    other = sorted({sample.dtype.name for sample in samples} - {dtype})
    if other:
        warnings.append(f"Representative samples{where} are {', '.join(other)}; the model takes {dtype}.")
    return warnings


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(w in (None, size) for size, w in zip(shape, wanted, strict=True))


def _check_values(samples: list[np.ndarray], where: str) -> list[str]:
    warnings = []
    finite = [sample for sample in samples if np.isfinite(sample).all()]
    if len(finite) < len(samples):
        warnings.append(
            f"{len(samples) - len(finite)} of {len(samples)} representative samples{where} hold NaN or infinite values."
        )
    if not finite:
        return warnings
    constant = sum(sample.size > 1 and np.ptp(sample) == 0 for sample in finite)
    if constant:
        warnings.append(f"{constant} of {len(samples)} representative samples{where} are constant (blank images?).")
    low, high = min(s.min() for s in finite), max(s.max() for s in finite)
    if constant < len(finite) and high - low < NARROW_RANGE:
        warnings.append(
            f"All values{where} lie between {low:.4g} and {high:.4g}. Perhaps they are scaled twice, in [data] and in "
            "the model."
        )
    reach = np.array([np.abs(sample).max() for sample in finite])
    usual = float(np.quantile(reach, 0.9))
    if reach.max() > OUTLIER_FACTOR * usual > 0:
        warnings.append(
            f"One representative sample{where} has a value of {reach.max():.4g}, while 90 % stay within {usual:.4g}. "
            "Such an outlier makes int8 less precise for all others; remove it if it is an error."
        )
    return warnings + _check_columns(finite, where)


def _check_columns(samples: list[np.ndarray], where: str) -> list[str]:
    """Columns of tables [1, columns] and of sensor windows [1, steps, columns] that one scale is too coarse for."""
    shape = samples[0].shape
    # More columns than sensors have are those of images without channels, which may be dark at the edges.
    if len(shape) not in (2, 3) or shape[-1] < 2 or (len(shape) == 3 and shape[-1] > MOST_SENSORS):
        return []
    columns = np.concatenate([sample.reshape(-1, shape[-1]) for sample in samples])
    step = (max(columns.max(), 0.0) - min(columns.min(), 0.0)) / 255
    ranges = np.ptp(columns, axis=0)
    coarse = np.flatnonzero((ranges > 0) & (ranges < FEW_STEPS * step))
    if not len(coarse):
        return []
    worst = int(coarse[ranges[coarse].argmin()])
    return [
        f"An int8 input has one scale for all its values; here a step{where} is {step:.3g}, and {len(coarse)} of "
        f"{len(ranges)} columns move by less than {FEW_STEPS} steps (column {worst} by {ranges[worst]:.3g}). Give the "
        "columns similar ranges before the model, not inside it, or take the recipe `mixed`."
    ]
