"""Samples that run on a device as well as here: accuracy there, and how far its outputs are from ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
        """As the runner reads it: x0, x1, …"""
        np.savez(path, **{f"x{index}": values for index, values in enumerate(self.inputs)})  # type: ignore[arg-type]


def load_sample(file: Path, source: Any, config: DataConfig, seed: int = 0) -> Sample:
    """At most 200 random samples of a source's test split, for a classifier.

    Args:
        file: the .tflite, which decides about sizes.
        source: as ``--data`` takes it.
        config: preparation of the data.

    Raises:
        DataError: the data cannot be read, or does not fit.
        UsageError: the file is not a classifier with one output.
    """
    from edgeprune.data import InputSpec, data_errors, load_data
    from edgeprune.evaluate.files import _classes, _labels, _spec

    _classes(file)
    with data_errors():
        data = load_data(source, config, InputSpec(*_spec(file)), seed=seed)
        # Sources come sorted by class.
        indices = np.random.default_rng(seed).permutation(data.test.size)[:SAMPLES]
        # One batch, so that inputs and labels stay together in whatever order the source gives them.
        x, y = next(iter(data.test.batches(SAMPLES, indices=indices)))
    parts = x if isinstance(x, tuple | list) else [x]
    return Sample(tuple(np.asarray(part) for part in parts), _labels(y))


def host_outputs(file: Path, sample: Sample) -> list[np.ndarray]:
    """Outputs of a file on this machine, with the same code that runs on the device."""
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.runner import run_samples

    return run_samples(find_runtime().interpreter(file), sample.inputs)


def compare_outputs(device: list[np.ndarray], host: list[np.ndarray] | None, labels: np.ndarray) -> dict[str, Any]:
    """Accuracy on the device and, where the file runs here too, on the host, and how far the two are apart.

    Args:
        device, host: outputs, float32 [n, classes] first.

    Returns:
        samples; accuracy and host_accuracy (fractions); top1_agreement (fraction); max_abs_error (of the output).
    """
    from edgeprune.evaluate.files import _chosen

    mine = _chosen(device[0])
    found: dict[str, Any] = {"samples": len(labels), "accuracy": float(np.mean(mine == labels))}
    if host is None:
        return {**found, "host_accuracy": None, "top1_agreement": None, "max_abs_error": None}
    theirs = _chosen(host[0])
    return {
        **found,
        "host_accuracy": float(np.mean(theirs == labels)),
        "top1_agreement": float(np.mean(mine == theirs)),
        "max_abs_error": float(max(np.abs(a - b).max() for a, b in zip(device, host, strict=True))),
    }
