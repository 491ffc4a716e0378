"""Narrower activation ranges than what the samples reach: rare outliers cost all other values their precision.

The converter takes ranges from its own calibrator only, which notes minimum and maximum. So the calibrated float file
is run here once more, with every tensor kept, to fill a histogram per activation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

import numpy as np

from edgeprune.runtime.interpreter import INTERPRETER, Runtime
from edgeprune.runtime.tensors import Sample, TensorReader
from edgeprune.workers import Stream

Range = tuple[float, float]
Narrowing = Literal["percentile", "mse"]

BINS = 2048
# Values of a tensor that are looked at per sample, drawn at random: counting all of them would take longer than the
# model.
LOOKED_AT = 65_536
LEVELS = 255  # steps of an 8-bit range
SHRINKS = np.linspace(1.0, 0.1, 91)


def narrowed_ranges(
    content: bytes,
    reached: Mapping[str, Range],
    samples: Callable[[], Iterable[Sample]],
    methods: Collection[Narrowing],
    runtime: Runtime,
    percentile: float = 99.99,
) -> dict[Narrowing, dict[str, Range]]:
    """New ranges for the activations of a float .tflite, by method; inputs and outputs of the file keep theirs.

    ``percentile`` leaves the same share of values outside on both sides (Wu et al. 2020, arXiv:2004.09602); ``mse``
    shrinks a range towards zero until clipping and rounding together make the smallest squared error (as in Banner et
    al. 2019, arXiv:1810.05723, with the observed distribution in place of an assumed one).

    Args:
        content: the calibrated file.
        reached: smallest and largest value of each tensor, by name.
        samples: the representative dataset.
        methods: the values are looked at once for all of them.
        runtime: runs the file.
        percentile: percent of values inside the range, above 50.
    """
    histograms = collect_histograms(content, reached, samples, runtime)
    narrow: dict[Narrowing, Callable[[np.ndarray, Range], Range]] = {
        "percentile": lambda counts, full: percentile_range(counts, full, percentile),
        "mse": mse_range,
    }
    return {
        method: {name: narrow[method](counts, reached[name]) for name, counts in histograms.items()}
        for method in methods
    }


def collect_histograms(
    content: bytes, reached: Mapping[str, Range], samples: Callable[[], Iterable[Sample]], runtime: Runtime
) -> dict[str, np.ndarray]:
    """How often each activation has which value: int64 [2048] per tensor, from its smallest to its largest value.

    Of tensors with more than 65,536 values, so many are looked at in each sample, drawn at random.
    """
    return INTERPRETER.call(_collect, content, dict(reached), Stream(samples), runtime)


def _collect(
    content: bytes, reached: Mapping[str, Range], samples: Callable[[], Iterable[Sample]], runtime: Runtime
) -> dict[str, np.ndarray]:
    reader = TensorReader(content, runtime)
    inner = {
        name: index for name, index in reader.activations().items() if name in reached and np.ptp(reached[name]) > 0
    }
    counts = {name: np.zeros(BINS, np.int64) for name in inner}
    generator = np.random.default_rng(0)
    for sample in samples():
        reader.run(sample)
        for name, index in inner.items():
            values = reader.value(index).ravel()
            if values.size > LOOKED_AT:
                values = values[generator.integers(values.size, size=LOOKED_AT)]
            counts[name] += np.histogram(values, BINS, reached[name])[0]
    return counts


def percentile_range(counts: np.ndarray, reached: Range, percentile: float) -> Range:
    """The range with ``percentile`` % of the values inside, as many outside on each side; always with zero in it."""
    edges = np.linspace(*reached, len(counts) + 1)
    share = np.cumsum(counts) / counts.sum()
    outside = (100 - percentile) / 200
    low = edges[np.searchsorted(share, outside, side="right")]
    high = edges[min(int(np.searchsorted(share, 1 - outside, side="left")) + 1, len(counts))]
    return min(float(low), 0.0), max(float(high), 0.0)


def mse_range(counts: np.ndarray, reached: Range) -> Range:
    """The range, shrunk towards zero, whose 8-bit steps make the smallest squared error on the histogram."""
    edges = np.linspace(*reached, len(counts) + 1)
    centers = (edges[1:] + edges[:-1]) / 2
    low, high = min(reached[0], 0.0), max(reached[1], 0.0)
    errors = [_squared_error(counts, centers, low * shrink, high * shrink) for shrink in SHRINKS]
    best = float(SHRINKS[int(np.argmin(errors))])
    return low * best, high * best


def _squared_error(counts: np.ndarray, centers: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / LEVELS
    clipped = np.clip(centers, low, high) - centers
    # Rounding errors are spread evenly over a step. Zero is a level, and what ReLU makes zero has no error.
    rounding = np.where(
        (clipped == 0) & (np.abs(centers) > step / 2), step**2 / 12, np.minimum(centers**2, step**2 / 12)
    )
    return float(counts @ (clipped**2 + rounding))
