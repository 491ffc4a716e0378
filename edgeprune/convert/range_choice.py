"""How the ranges of an int8 file's activations are taken from samples, decided by what the files answer.

What the samples reach keeps every value, and leaves few steps to the common ones; narrower ranges cut off the rare
values, which may be what matters (the peaks of a heat map). Which costs less differs from model to model, and takes no
labels to see: the file is the better one whose outputs are nearer to the model's.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import RangeFacts
from edgeprune.convert.converter import Samples, calibrate, quantize_calibrated
from edgeprune.models.count import count as count_model
from edgeprune.quantize.difference import OutputDifference
from edgeprune.quantize.plan import QuantizationPlan, Ranges
from edgeprune.reconstruction.forward import BATCH_BYTES, bytes_per_sample, in_pieces
from edgeprune.runtime.interpreter import Runtime, find_runtime
from edgeprune.runtime.session import Session

if TYPE_CHECKING:
    import tf_keras

Judging = Callable[[int], Sequence[Sequence[np.ndarray]]]
METHODS: tuple[Ranges, ...] = ("minmax", "percentile", "mse")
# Standard errors by which narrower ranges must be better, sample by sample.
CLEARLY = 2.0
# Samples that are looked at, at most, where fewer leave it open whether narrower ranges are, and the
# multiply-accumulates of one file on them: a slow model is not run for an hour to settle what is nearly equal.
MOST, WORK = 1024, 5e10


@dataclasses.dataclass(frozen=True)
class ChosenRanges:
    """The outcome.

    Attributes:
        method: how the ranges were taken.
        differences: by method, the mean square difference of the file's outputs from those of the model, relative to
            their mean square.
        calibrated: the float32 file with these ranges.
        content: the int8 file.
    """

    method: Ranges
    differences: dict[str, float]
    calibrated: bytes
    content: bytes

    @property
    def facts(self) -> RangeFacts:
        return {"method": self.method, "differences": self.differences}


def choose_ranges(
    model: tf_keras.Model,
    plan: QuantizationPlan,
    samples: Samples,
    judging: Judging,
    count: int = MOST,
    runtime: Callable[[], Runtime] = find_runtime,
) -> ChosenRanges:
    """Convert with the ranges that keep the outputs best: all that the samples reach, unless others are clearly better.

    Args:
        model: functional tf_keras model.
        plan: of a format with int8 activations; its ``ranges`` are not looked at.
        samples: the representative dataset.
        judging: of so many other samples, or all that there are, per batch the inputs in the model's order; no labels.
        count: samples that are looked at first; twice as many, up to 1,024 and to 50 billion multiply-accumulates, as
            long as the ranges whose outputs are nearest on them are not clearly better.
        runtime: runs the files.

    Raises:
        ConversionError, ModelError, WorkerDied: a file is not made, or does not run here on these inputs.
    """
    calibrated = calibrate(model, plan, samples, METHODS, runtime)
    files = {method: quantize_calibrated(content, plan, model) for method, content in calibrated.items()}
    method, differences = _judged(model, files, judging, count, runtime())
    return ChosenRanges(
        method,
        {name: float(each.mean()) for name, each in differences.items()},
        calibrated[method],
        files[method],
    )


def _judged(
    model: tf_keras.Model, files: Mapping[Ranges, bytes], judging: Judging, count: int, runtime: Runtime
) -> tuple[Ranges, dict[Ranges, np.ndarray]]:
    """The method, and the differences that decided it."""
    most = min(MOST, int(WORK / max(count_model(model).macs, 1)))
    while True:
        differences = _differences(model, files, judging(count), runtime)
        method = choose(differences)
        is_settled = method == min(differences, key=lambda name: differences[name].mean())
        if is_settled or count >= most or len(differences[method]) < count:
            return method, differences
        count = min(2 * count, most)


def choose(differences: Mapping[Ranges, np.ndarray]) -> Ranges:
    """The method with the smallest mean difference, among ``minmax`` and those that are clearly better than it.

    Args:
        differences: by method, float64 [samples], the same samples for all.
    """
    full = differences["minmax"]

    def clearly_better(each: np.ndarray) -> bool:
        gain = full - each
        return len(gain) > 1 and gain.mean() > CLEARLY * gain.std(ddof=1) / math.sqrt(len(gain))

    able = [name for name, each in differences.items() if name == "minmax" or clearly_better(each)]
    return min(able, key=lambda name: differences[name].mean())


def _differences(
    model: tf_keras.Model, files: Mapping[Ranges, bytes], judging: Sequence[Sequence[np.ndarray]], runtime: Runtime
) -> dict[Ranges, np.ndarray]:
    """By method, how far the outputs are from the model's on each sample."""
    import tensorflow as tf

    found = {method: OutputDifference() for method in files}
    with ExitStack() as stack:
        sessions = {method: stack.enter_context(_session(content, model, runtime)) for method, content in files.items()}
        for batch in in_pieces(judging, max(1, BATCH_BYTES // bytes_per_sample(model))):
            x = batch if len(batch) > 1 else batch[0]
            wanted = [np.asarray(value) for value in tf.nest.flatten(model(x, training=False))]
            for method, session in sessions.items():
                found[method].add(wanted, session.run(batch))
    return {method: difference.of_samples() for method, difference in found.items()}


@contextmanager
def _session(content: bytes, model: tf_keras.Model, runtime: Runtime) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder, "model.tflite")
        path.write_bytes(content)
        session = Session(path, model.input_names, model.output_names, runtime=runtime)
    try:
        yield session
    finally:
        session.close()
