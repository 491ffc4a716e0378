"""Mixed precision: which operators of an int8 file should compute in float.

The operators are ranked by the noise that each adds, once; then a few files along that ranking are measured, halving
the interval on a logarithmic scale, because most of the damage is usually done by a few layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

from edgeprune.quantize.origin import error_by_tensor
from edgeprune.runtime.interpreter import Runtime
from edgeprune.runtime.tensors import Sample
from edgeprune.selection import within

Tensors = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One file tried.

    Attributes:
        tensors: outputs of the operators that stay in float.
        drop_points: on validation, against the Keras model.
        bytes: of the file, without metadata.
        met: whether the drop is within what is allowed.
        chosen: the one to ship.
    """

    tensors: Tensors
    drop_points: float
    bytes: int
    met: bool
    chosen: bool = False


def rank(quantized: bytes, calibrated: bytes, samples: Iterable[Sample], runtime: Runtime) -> list[str]:
    """Outputs of the operators of an int8 file, those first that add most noise relative to their signal."""
    errors = error_by_tensor(quantized, calibrated, samples, runtime)
    return [row.tensor for row in sorted(errors, key=lambda row: -row.added_noise)]


def search(
    ranked: list[str], measure: Callable[[Tensors], tuple[float, int]], max_drop: float, steps: int
) -> list[Trial]:
    """Find a short head of the ranking that is enough in float.

    Args:
        ranked: outputs of operators, worst first.
        measure: from outputs of operators in float to (drop in points, bytes).
        max_drop: points.
        steps: at most this many files are measured.

    Returns:
        All trials in order, one of them chosen: the one with the fewest operators in float among those within the
        allowed drop, or the one with the smallest drop if none is.
    """
    trials: list[Trial] = []

    def met(count: int) -> bool:
        drop, size = measure(tuple(ranked[:count]))
        trials.append(Trial(tuple(ranked[:count]), drop, size, within(drop, max_drop)))
        return trials[-1].met

    failed, enough = 0, len(ranked)
    if not met(0):
        known = False  # that a trial is within; until then, one step is kept for all operators in float
        while len(trials) < steps - (not known) and failed < enough - 1:
            middle = min(max(round(math.sqrt(max(failed, 1) * enough)), failed + 1), enough - 1)
            if met(middle):
                enough, known = middle, True
            else:
                failed = middle
        if not known and len(trials) < steps:
            met(len(ranked))
    enough_in_float = [trial for trial in trials if trial.met]
    best = (
        min(enough_in_float, key=lambda trial: len(trial.tensors))
        if enough_in_float
        else min(trials, key=lambda trial: math.inf if math.isnan(trial.drop_points) else trial.drop_points)
    )
    return [dataclasses.replace(trial, chosen=trial is best) for trial in trials]
