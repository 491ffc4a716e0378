"""The task of a .tflite, without its Keras model: what its outputs are, and the figures that they are measured by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from edgeprune.errors import DataError
from edgeprune.evaluate.answers import _chosen
from edgeprune.models.compiled import Compiled
from edgeprune.models.types import Structure
from edgeprune.tasks.detection import detection_task
from edgeprune.tasks.infer import End, OutputFacts, end_of
from edgeprune.tasks.resolve import PROBE, resolve
from edgeprune.tasks.teacher import explained_variance
from edgeprune.tflite.flatbuffer import read
from edgeprune.tflite.graph import Operator, Subgraph, TFLiteModel
from edgeprune.tflite.interface import Interface, Port, interface

if TYPE_CHECKING:
    from edgeprune.data import Data, InputSpec
    from edgeprune.data.split import Relabel
    from edgeprune.recipe.config import DetectionConfig, TaskConfig
    from edgeprune.tasks.task import Figures, Metric, Task

Predict = Callable[[Structure], list[np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class File:
    """A .tflite: its content and its interface."""

    path: Path
    model: TFLiteModel
    interface: Interface

    @staticmethod
    def of(path: str | Path) -> File:
        """Raises ModelError for what is no .tflite."""
        model = read(path)
        return File(Path(path), model, interface(model))

    @property
    def graph(self) -> Subgraph:
        return self.model.subgraphs[0]

    def input_spec(self) -> InputSpec:
        """What the data has to fit."""
        from edgeprune.data import InputSpec

        ports = self.interface.inputs
        shapes, names = (p.tensor.shape[1:] for p in ports), (p.names[0] for p in ports)
        ends = tuple(tuple(port.tensor.shape[1:]) for port in self.interface.outputs)
        return InputSpec(
            tuple(shapes),
            tuple(names),
            text_fix=self._text_fix(),
            outputs=ends,
            ordered=self.interface.inputs_ordered,
        )

    def ranges_of(self, inputs: Sequence[Port]) -> tuple[tuple[float, float] | None, ...]:
        """The smallest and the largest value that each of these inputs can hold; None of what holds any numbers."""
        from edgeprune.models.from_tflite.quantization import input_bounds

        found = input_bounds(self.graph)
        return tuple(found[port.place] for port in inputs)

    def _text_fix(self) -> str:
        """The layers that look words up are not in the file; a build puts a script beside it that does what they do."""
        scripts = sorted(self.path.parent.glob("run_*.py"))
        name = next((path.stem for path in scripts if b"def on_host" in path.read_bytes()), "run_NAME")
        return (
            f"the layers that look words up are not in {self.path.name}; {name}.py, which the build puts beside its "
            f"file, does what they do. In a data function beside it: from {name} import on_host; "
            "x = np.stack([on_host([[text]])[0] for text in texts])."
        )


class Agreement(TypedDict):
    """Of one output of two files, or of one file in two places, on the same samples.

    ``agreement``: where the output gives classes, the fraction of equal ones; else the explained variance, 1 - sum of
    squared differences / sum of squared deviations from the mean. ``max_abs_difference``: in the output's unit.
    """

    agreement: float
    max_abs_difference: float


@dataclasses.dataclass(frozen=True, eq=False)
class FileTask:
    """What the outputs of a file are, and how they are measured.

    Attributes:
        names: of the outputs.
        facts: of the outputs.
        task: None where there are no labels to measure by.
        relabel: (x, y, w) of a batch → labels and weights in the task's form.
        places: position of each output among those of the file's graph.
        warnings: about the figures.
    """

    names: tuple[str, ...]
    facts: tuple[OutputFacts, ...]
    task: Task | None
    relabel: Relabel | None
    places: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    @property
    def primary(self) -> int | None:
        """The output that counts most; None where several do, as without labels."""
        if self.task is not None:
            return self.task.watched[0].output
        return 0 if len(self.names) == 1 else None

    def gives_classes(self, i: int) -> bool:
        """Whether an output answers with one of several classes."""
        classes = self.task.outputs[i].classes if self.task else None
        return classes is not None or self.facts[i].end == "softmax"

    def chosen(self, i: int, outputs: np.ndarray) -> np.ndarray:
        """The classes that an output answers, int64 [batch, ...]."""
        return _chosen(outputs, bool(self.task and self.task.outputs[i].is_logits))


def file_task(
    file: File,
    config: TaskConfig,
    data: Data,
    predict: Predict,
    outputs: Sequence[Port],
    detection: DetectionConfig | None = None,
    inputs: Sequence[Port] | None = None,
) -> FileTask:
    """Decide what a file's outputs are measured by: the recipe, else inference from labels and from how they end.

    Args:
        file: the .tflite.
        config: the recipe's ``[task]``; ``kind = "teacher"``: nothing is measured by labels.
        data: the source, whose labels have the form that the user gave them.
        predict: a batch of inputs → one float array [batch, ...] per output.
        outputs: those of the file, in the order of ``predict``.
        detection: the recipe's ``[detection]``, for data with boxes.
        inputs: those of the file, in the order of the data; None: in its own.

    Raises:
        RecipeError: the task has to be stated.
        DataError: labels that do not fit.
    """
    names = tuple(port.names for port in outputs)
    seen: list[OutputFacts] = []

    def facts_from(values: list[np.ndarray]) -> list[OutputFacts]:
        seen[:] = [_facts(file.graph, port, value) for port, value in zip(outputs, values, strict=True)]
        return seen

    task: Task | None = None
    if data.targets == () or config.kind == "teacher":
        x, *_ = next(iter(data.test.batches(PROBE)))
        facts_from(predict(x))
    elif data.boxes is not None:

        def seen_by(x: Structure) -> list[np.ndarray]:
            values = predict(x)
            facts_from(values)
            return values

        task = detection_task(config, detection, data, names, seen_by, None)
    else:
        check_order(file, data.targets)
        task = resolve(config, data, Compiled(names), {}, predict, facts_from)
    warnings = [*_scale_warnings(file, data, inputs or file.interface.inputs), *(task.warnings if task else ())]
    if task and file.interface.padded:
        warnings.append(
            f"The model of {file.path.name} leaves padding out of its metrics; which samples are padded cannot be "
            "known from the file, so the figures count padding, too."
        )
    return FileTask(
        tuple(own[0] for own in names),
        tuple(seen),
        task,
        _relabel(task, data) if task else None,
        tuple(port.place for port in outputs),
        tuple(warnings),
    )


def check_ranges(data: Data, ranges: Sequence[Sequence[float] | None]) -> None:
    """Make sure that samples are scaled as the inputs of a quantized .tflite are, before anything is measured.

    Args:
        ranges: of each input the smallest and the largest value that it can hold; None for any.

    Raises:
        DataError: samples reach far beyond, or all fall on one or two steps of the file's integers.
    """
    from edgeprune.tasks.resolve import sample_of

    x = sample_of(data)[0]
    for values, ends in zip(x if isinstance(x, tuple | list) else [x], ranges, strict=False):
        if ends is None:
            continue
        low, high, width = float(np.min(values)), float(np.max(values)), ends[1] - ends[0]
        if low < ends[0] - width or high > ends[1] + width or 0 < high - low < 2 * width / 255:
            raise DataError(
                f"The samples of {data.source} reach from {low:.4g} to {high:.4g}, and the .tflite takes "
                f"{ends[0]:.4g} to {ends[1]:.4g}.",
                expected="samples scaled as those that the model was trained on.",
                fix="state it in the recipe: x = (pixel * scale - mean) / std. For pixels that would be:\n  [data]\n"
                f"  mean = [{0 - 255 * ends[0] / width:.4g}]\n  std = [{255 / width:.4g}]",
            )


def _scale_warnings(file: File, data: Data, inputs: Sequence[Port]) -> Iterator[str]:
    """What :func:`check_ranges` finds: two files can be compared on any samples, but the figures say little."""
    try:
        check_ranges(data, file.ranges_of(inputs))
    except DataError as error:
        yield f"{error.what} The figures of {file.path.name} say little. To fix: {error.fix}"


def _relabel(task: Task, data: Data) -> Relabel:
    """Labels as the source has them → as the task's figures take them."""
    return task.judged(task.prepare(data).test).relabel or (lambda x, y, w: (y, w))


def check_order(file: File, targets: Structure) -> None:
    """Labels without names belong to outputs in the order of the model, which a file of unknown origin does not tell.

    Raises:
        DataError: they do.
    """
    several = isinstance(targets, tuple | list) and len(targets) > 1
    if several and not file.interface.ordered:
        names = [port.names[0] for port in file.interface.outputs]
        raise DataError(
            f"The data has a tuple of labels, and the order of the model's outputs is not known from {file.path.name}: "
            f"it names them in alphabetical order ({', '.join(names)}).",
            expected="labels as a dict by output.",
            fix=f'return them as a dict, for example {{"{names[0]}": y}}; files of a build by this release know it.',
        )


class Tally:
    """The figures of one file, batch by batch.

    Args:
        measured: the file's task, with labels.
    """

    def __init__(self, measured: FileTask):
        assert measured.task is not None
        self._file, self._task = measured, measured.task
        self._meter = self._task.meter()
        self._right = self._counted = 0

    def add(self, x: Structure, y: Structure, w: Structure, outputs: Sequence[np.ndarray]) -> None:
        """Count a batch; labels and weights (``()``: none) as the source has them, outputs in the task's order."""
        assert self._file.relabel is not None
        labels, weights = self._file.relabel(x, y, w)
        self._meter.update(x, labels, outputs, None if isinstance(weights, tuple) and not weights else weights)
        if self._task.classes is None:
            return
        i = self._task.watched[0].output
        chosen = self._file.chosen(i, outputs[i])
        truth = np.asarray(labels[i] if len(self._task.outputs) > 1 else labels)
        if truth.ndim == outputs[i].ndim and truth.shape[-1] > 1:
            truth = truth.argmax(-1)
        truth = truth.reshape(chosen.shape)
        self._right += int((chosen == truth).sum())
        self._counted += int(((truth >= 0) & (truth < self._task.classes)).sum())

    def figures(self) -> Figures:
        return self._meter.result()

    def accuracy(self) -> float | None:
        """The fraction of samples whose class is right, of the primary output; None if that gives no classes."""
        return self._right / self._counted if self._counted else None


class Agreements:
    """How far the outputs of two files agree, batch by batch.

    Args:
        a, b: what they answer; of the same outputs in the same order.
    """

    def __init__(self, a: FileTask, b: FileTask):
        self._pair = a, b
        self._in_classes = [a.gives_classes(i) and b.gives_classes(i) for i in range(len(a.names))]
        self._largest = [0.0] * len(a.names)
        self._equal = [0] * len(a.names)
        self._positions = [0] * len(a.names)
        self._explained = [explained_variance(name) for name in a.names]

    def add(self, a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> None:
        """Count a batch of both."""
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            self._largest[i] = float(np.maximum(self._largest[i], np.abs(one - other).max()))
            if self._in_classes[i]:
                classes = [file.chosen(i, values) for file, values in zip(self._pair, (one, other), strict=True)]
                self._equal[i] += int((classes[0] == classes[1]).sum())
                self._positions[i] += classes[0].size
            else:
                self._explained[i].update_state(*(v[:, None] if v.ndim == 1 else v for v in (one, other)))

    def result(self) -> dict[str, Agreement]:
        """By name of the output."""
        return {
            name: {
                "agreement": self._equal[i] / self._positions[i]
                if self._in_classes[i]
                else float(self._explained[i].result()),
                "max_abs_difference": self._largest[i],
            }
            for i, name in enumerate(self._pair[0].names)
        }


def metric_of(task: Task, figure: str) -> Metric:
    """The metric that a figure belongs to; one with a figure per class has several: ``f1[0]``."""
    return next(m for m in task.metrics if figure == m.name or figure.startswith(f"{m.name}["))


def mean_agreement(outputs: Mapping[str, Agreement]) -> float:
    """Of all outputs."""
    return sum(one["agreement"] for one in outputs.values()) / len(outputs)


# --- how an output ends

_ARRANGING = {
    "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CAST", "SLICE", "STRIDED_SLICE",
    "CONCATENATION",
}  # fmt: skip
_ENDS: dict[str, End] = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
# What gives any number, unless an activation is fused into it.
_LINEAR = {
    "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL", "ADD",
}  # fmt: skip
_TOLERANCE = 1e-3


def _facts(graph: Subgraph, port: Port, values: np.ndarray) -> OutputFacts:
    tensor = port.tensor
    shape = tuple(None if size < 0 else size for size in (tensor.signature or tensor.shape)[1:])
    named = _end(graph, tensor.index)
    # Each of the numbers that sum to one is rounded by half a step at most.
    width = values.shape[-1] if values.ndim > 1 else 1
    rounding = width * max(_steps(graph, tensor.index), default=0.0) / 2 if named == "softmax" else 0.0
    end = end_of(named, values, _TOLERANCE + rounding)
    return OutputFacts(shape, end, float(np.min(values)), float(np.max(values)))


def _steps(graph: Subgraph, index: int) -> list[float]:
    """The steps of the number formats that an output passes through on its last way."""
    quantization = graph.tensors[index].quantization
    own = [max(quantization.scale)] if quantization and len(quantization.scale) else []
    producer = graph.producers.get(index)
    return own + [step for i in (_sources(graph, producer) if producer else []) for step in _steps(graph, i)]


def _end(graph: Subgraph, index: int) -> End:
    producer = graph.producers.get(index)
    if producer is None:
        return "other"
    if producer.name in _ENDS:
        return _ENDS[producer.name]
    ends = {_end(graph, source) for source in _sources(graph, producer)}
    if ends:
        return ends.pop() if len(ends) == 1 else "other"
    fused = producer.options.get("fused_activation_function", "NONE")
    return "linear" if producer.name in _LINEAR and fused == "NONE" else "other"


def _sources(graph: Subgraph, operator: Operator) -> list[int]:
    """What an operator only arranges; nothing of one that computes."""
    if operator.name not in _ARRANGING:
        return []
    computed = [index for index in operator.inputs if index >= 0 and not graph.tensors[index].constant]
    return computed if operator.name == "CONCATENATION" else computed[:1]
