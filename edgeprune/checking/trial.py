"""Conversions for a look at the graph only: weights as they are, activation ranges of noise."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.checking.check import Subject
from edgeprune.convert.converter import convert
from edgeprune.convert.refusals import OFFERED
from edgeprune.errors import EdgepruneError
from edgeprune.models.types import Tensor
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe.config import Mode
from edgeprune.runtime.trial import try_file
from edgeprune.target import Target
from edgeprune.tflite.flatbuffer import parse

if TYPE_CHECKING:
    import tf_keras

SAMPLES = 4
# For an input whose size is not known; the graph is the same at any size.
UNKNOWN_SIZE = 64


def trial_modes(target: Target) -> tuple[Mode, ...]:
    """The number formats worth a look: integers for what has a compiler, both for CPUs."""
    return ("int8",) if target.compiler else ("float32", "int8")


def trial_subject(model: tf_keras.Model, target: Target, mode: Mode, folder: Path) -> Subject:
    """Convert a Keras model as a build for the target would, with noise for calibration.

    Args:
        model: functional tf_keras model; trained or not.
        folder: where the file is put.

    Raises:
        ConversionError: the converter refused the model.
    """
    plan = QuantizationPlan(mode, target.quantization.io if mode == "int8" else "float", needs_samples=mode == "int8")
    content = convert(model, plan, lambda: _noise(model))
    path = folder / f"{mode}.tflite"
    path.write_bytes(content)
    return Subject(path, parse(content, model.name), model, mode)


def working_mode(model: tf_keras.Model, target: Target, other: str) -> Mode | None:
    """A number format that the converter and the runtime here take the model in; None if there is none.

    Args:
        model: functional tf_keras model.
        other: the format that they do not.
    """
    for mode in OFFERED:
        with contextlib.suppress(EdgepruneError), tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            if mode != other:
                try_file(trial_subject(model, target, mode, Path(folder)).path)
                return mode
    return None


def _noise(model: tf_keras.Model) -> Iterator[list[np.ndarray]]:
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES):
        yield [_sample(tensor, generator) for tensor in model.inputs]


def _sample(tensor: Tensor, generator: np.random.Generator) -> np.ndarray:
    shape = [1, *(size or UNKNOWN_SIZE for size in tensor.shape[1:])]
    dtype = tensor.dtype.as_numpy_dtype
    if np.issubdtype(dtype, np.floating):
        return generator.random(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)  # mostly indices into a table, of which 0 and 1 exist
