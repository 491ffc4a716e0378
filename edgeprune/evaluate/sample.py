"""Samples to run on a device and on this machine, for accuracy and the difference between their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.files import JsonObject

if TYPE_CHECKING:
    from edgeprune.recipe.config import DataConfig

SAMPLES = 200


@dataclass(frozen=True, eq=False)
class Sample:
    """A random part of a test split.

    Attributes:
        inputs: one array [n, ...] per input of the file, preprocessed.
        labels: int64 [n].
    """

    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray

    def write(self, path: Path) -> None:
        """Write the inputs as an .npz of arrays x0, x1, …, which the runner reads."""
        np.savez(path, **{f"x{index}": values for index, values in enumerate(self.inputs)})  # type: ignore[arg-type]


def load_sample(file: Path, source: Any, config: DataConfig, seed: int = 0) -> Sample:
    """At most 200 random samples of a source's test split, for a classifier.

    Args:
        file: the .tflite, for the shapes of its inputs.
        source: the user's data, as ``--data`` takes it.
        config: how to prepare the data.
        seed: chooses the samples, and the test split if the source has none.

    Raises:
        DataError: the data cannot be read, or does not fit.
        UsageError: the file is not a classifier with one output.
    """
    from edgeprune.data import InputSpec, data_errors, load_data
    from edgeprune.evaluate.files import _classes, _labels, _spec

    _classes(file)
    with data_errors():
        data = load_data(source, config, InputSpec(*_spec(file)), seed=seed)
        # Many sources are sorted by class, so the first samples would all be of one.
        indices = np.random.default_rng(seed).permutation(data.test.size)[:SAMPLES]
        # In one batch, so that inputs and labels match, whatever order the source gives them in.
        x, y = next(iter(data.test.batches(SAMPLES, indices=indices)))
    parts = x if isinstance(x, tuple | list) else [x]
    return Sample(tuple(np.asarray(part) for part in parts), _labels(y))


def host_outputs(file: Path, sample: Sample) -> list[np.ndarray]:
    """Outputs of a file on this machine, by the same code that runs on the device."""
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.runner import run_samples

    return run_samples(find_runtime().interpreter(file), sample.inputs)


def compare_outputs(device: list[np.ndarray], host: list[np.ndarray] | None, labels: np.ndarray) -> JsonObject:
    """Accuracy on the device and on this machine, and the difference between their outputs.

    Args:
        device: outputs on the device, of which the first is float32 [n, classes].
        host: the same on this machine; None if the file does not run here.
        labels: int64 [n].

    Returns:
        samples; accuracy and host_accuracy (fractions); top1_agreement (fraction of samples with the same class);
        max_abs_error (of all outputs). What needs ``host`` is None without it.
    """
    from edgeprune.evaluate.files import _chosen

    mine = _chosen(device[0])
    result: JsonObject = {"samples": len(labels), "accuracy": float(np.mean(mine == labels))}
    if host is None:
        return {**result, "host_accuracy": None, "top1_agreement": None, "max_abs_error": None}
    theirs = _chosen(host[0])
    return {
        **result,
        "host_accuracy": float(np.mean(theirs == labels)),
        "top1_agreement": float(np.mean(mine == theirs)),
        "max_abs_error": float(max(np.abs(a - b).max() for a, b in zip(device, host, strict=True))),
    }
