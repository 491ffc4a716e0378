"""The metrics on a split, for a Keras model and for a .tflite; and the parity of the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.progress import Progress
from edgeprune.tasks.task import evaluation_batch

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Split
    from edgeprune.evaluate.answers import Answers
    from edgeprune.runtime.micro import FloatMicroSession
    from edgeprune.runtime.session import Session
    from edgeprune.tasks.task import Figures, Task


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """One output of a .tflite against the Keras model's.

    ``top1_agreement`` is the fraction of samples with the same predicted class; None for an output without classes.
    """

    name: str
    max_abs_error: float
    mean_abs_error: float
    top1_agreement: float | None


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far a .tflite is from its Keras model, over all outputs.

    ``top1_agreement`` is that of the first output; ``not_finite``: values of the .tflite that are NaN or infinite.
    """

    max_abs_error: float
    mean_abs_error: float
    top1_agreement: float | None
    outputs: tuple[OutputParity, ...]
    not_finite: int = 0


@dataclasses.dataclass
class _OutputSums:
    """Running sums of one output, from which its parity follows."""

    largest: float = 0.0
    total: float = 0.0
    values: int = 0
    agreeing: int = 0
    samples: int = 0
    not_finite: int = 0

    def add(self, expected: np.ndarray, actual: np.ndarray) -> None:
        error, finite = np.abs(expected - actual), np.isfinite(actual)
        self.largest = float(np.maximum(self.largest, error.max()))  # which keeps NaN
        self.total += float(error.sum(dtype=np.float64))
        self.values += error.size
        self.agreeing += int(np.sum((expected.argmax(-1) == actual.argmax(-1)) & finite.all(-1)))
        self.samples += expected[..., 0].size
        self.not_finite += finite.size - int(np.count_nonzero(finite))

    def parity(self, name: str, classes: int | None, width: int) -> OutputParity:
        agreement = self.agreeing / self.samples if classes and width > 1 else None
        return OutputParity(name, self.largest, self.total / self.values, agreement)


def _parity(sums: dict[str, _OutputSums], widths: Sequence[int], classes: Sequence[int | None]) -> Parity:
    rows = tuple(
        part.parity(name, of_output, width)
        for (name, part), width, of_output in zip(sums.items(), widths, classes, strict=True)
    )
    total, values = sum(part.total for part in sums.values()), sum(part.values for part in sums.values())
    largest = float(np.max([row.max_abs_error for row in rows]))
    lost = sum(part.not_finite for part in sums.values())
    return Parity(largest, total / values, rows[0].top1_agreement, rows, lost)


def evaluate_keras(model: tf_keras.Model, split: Split, task: Task) -> float:
    """The figure of a Keras model on a whole split that choices go by."""
    return task.value(keras_figures(model, split, task))


def keras_figures(model: tf_keras.Model, split: Split, task: Task) -> Figures:
    """All metrics of a Keras model on a whole split."""
    import tensorflow as tf

    meter = task.meter()
    for x, y, *w in task.judged(split).batches(evaluation_batch(split.spec)):
        outputs = model.predict_on_batch(x) if len(model.outputs) == 1 else model(x, training=False)
        meter.update(x, y, tf.nest.flatten(outputs), *w)
    return meter.result()


def evaluate_tflite(
    session: Session | FloatMicroSession,
    split: Split,
    task: Task,
    *,
    reference: tf_keras.Model | None = None,
    answers: Answers | None = None,
    progress: Progress,
) -> tuple[Figures, Parity | None]:
    """All metrics of a .tflite on a whole split and, in the same pass, its parity with a Keras model.

    Args:
        session: that runs the file.
        split: the data, with labels in the task's form.
        task: for the metrics.
        reference: the Keras model that the file was made from; None for no parity.
        answers: takes down what the file answers to each sample.
        progress: is told of every batch.

    Returns:
        The figures, and the parity or None.
    """
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def forward(x: Any) -> list[Any]:
        assert reference is not None
        return tf.nest.flatten(reference(x, training=False))

    meter = task.meter()
    sums = {name: _OutputSums() for name in reference.output_names} if reference is not None else {}
    widths: list[int] = []
    progress.begin("evaluating", split.size)
    for x, y, *w in task.judged(split).batches(evaluation_batch(split.spec)):
        outputs = session.run(_inputs(x, session.inputs))
        meter.update(x, y, outputs, *w)
        if answers is not None:
            masks = task.masks(x) if task.masks else None
            answers.add(tf.nest.map_structure(np.asarray, y), outputs, masks)
        if reference is not None:
            widths = [output.shape[-1] for output in outputs]
            for part, expected, actual in zip(sums.values(), forward(x), outputs, strict=True):
                part.add(np.asarray(expected), actual)
        progress.advance(len(outputs[0]))
    progress.end()
    classes = [output.classes for output in task.outputs]
    return meter.result(), _parity(sums, widths, classes) if sums else None


def _inputs(x: Any, names: Sequence[str]) -> list[np.ndarray]:
    """A batch's inputs in the model's order, whatever structure the data source gave them."""
    parts = [x[name] for name in names] if isinstance(x, dict) else x if isinstance(x, tuple | list) else [x]
    return [np.asarray(part) for part in parts]
