"""The accuracy of .tflite files, without their Keras models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import UsageError
from edgeprune.files import JsonObject
from edgeprune.tflite.flatbuffer import read

if TYPE_CHECKING:
    from edgeprune.recipe.config import DataConfig

BATCH = 250


def compare_accuracy(paths: Sequence[str | Path], source: Any, config: DataConfig, seed: int = 0) -> JsonObject:
    """Top-1 accuracy of several classifiers on the whole test split of one source.

    Args:
        paths: files with the same inputs; the data is prepared for the first one.
        source: the user's data, as ``--data`` takes it.
        config: how to prepare the data.
        seed: chooses the test split if the source has none.

    Returns:
        ``accuracy``: one fraction per file; ``samples``; ``agreement``: fraction of samples on which all files give the
        same class.

    Raises:
        DataError: the data cannot be read, or does not fit.
        UsageError: a file is not a classifier with one output, or takes other inputs than the first.
    """
    from edgeprune.data import InputSpec, data_errors, load_data
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session

    require_same_inputs([Path(path) for path in paths])
    spec = _spec(paths[0])
    for path in paths:
        _classes(path)
    runtime = find_runtime()
    with data_errors():
        data = load_data(source, config, InputSpec(*spec), seed=seed)
        sessions = [Session(Path(path), spec[1], ("output",), runtime=runtime) for path in paths]
        right, agreeing, samples = np.zeros(len(paths), np.int64), 0, 0
        for x, y in data.test.batches(BATCH):
            inputs = [np.asarray(part) for part in (x if isinstance(x, tuple | list) else [x])]
            chosen = np.stack([_chosen(session.run(inputs)[0]) for session in sessions])
            right += (chosen == _labels(y)).sum(axis=1)
            agreeing += int((chosen == chosen[0]).all(axis=0).sum())
            samples += chosen.shape[1]
    for session in sessions:
        session.close()
    return {"accuracy": [int(n) / samples for n in right], "samples": samples, "agreement": agreeing / samples}


def require_same_inputs(paths: Sequence[Path]) -> None:
    """Make sure that data prepared for one file fits all of them.

    Raises:
        UsageError: their inputs differ in number or shape.
    """
    first, *others = [(path, _spec(path)[0]) for path in paths]
    for path, shapes in others:
        if shapes != first[1]:
            a, b = (" and ".join("x".join(map(str, shape)) for shape in one) for one in (first[1], shapes))
            raise UsageError(
                f"{first[0].name} takes {a}, and {path.name} takes {b}.",
                expected="inputs of one shape, as the data is prepared once for all files.",
                fix="measure the files one at a time, or leave out --data.",
            )


def _spec(path: str | Path) -> tuple[tuple[tuple[int | None, ...], ...], tuple[str, ...]]:
    graph = read(path).subgraphs[0]
    tensors = [graph.tensors[index] for index in graph.inputs]
    return tuple(tensor.shape[1:] for tensor in tensors), tuple(tensor.name for tensor in tensors)


def _classes(path: str | Path) -> int:
    graph = read(path).subgraphs[0]
    shapes = [graph.tensors[index].shape for index in graph.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise UsageError(
            f"{path} is not a classifier: the shapes of its outputs are {[list(shape) for shape in shapes]}.",
            expected="one output of [batch, classes].",
            fix="leave out --data; `edgeprune build` measures other metrics.",
        )
    return shapes[0][1]


def _chosen(outputs: np.ndarray) -> np.ndarray:
    """The predicted class of each sample; a single output is the probability of the second of two classes."""
    return (outputs[:, 0] >= 0.5).astype(np.int64) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def _labels(y: Any) -> np.ndarray:
    labels = np.asarray(y[0] if isinstance(y, tuple | list) else y)
    if labels.ndim > 1 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    return labels.reshape(-1).astype(np.int64)
