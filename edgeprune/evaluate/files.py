"""The metrics of two .tflite files on the same data, and how far they agree, without their Keras models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from edgeprune.errors import UsageError
from edgeprune.evaluate.file_task import (
    Agreement,
    Agreements,
    File,
    FileTask,
    Tally,
    file_task,
    mean_agreement,
    metric_of,
)
from edgeprune.models.types import Structure
from edgeprune.recipe.config import TaskConfig
from edgeprune.tflite.interface import Port

if TYPE_CHECKING:
    from edgeprune.data.source import DataSource
    from edgeprune.recipe.config import DataConfig, DetectionConfig


class MetricPair(TypedDict):
    """A metric of both files; ``points``: factor from a difference to points, 100 for fractions."""

    values: list[float]
    higher_is_better: bool
    points: float


class Accuracy(TypedDict):
    """Of two files on the same samples."""

    accuracy: list[float] | None  # fractions, where the primary output gives one of several classes
    samples: int
    agreement: float  # mean over the outputs
    metrics: dict[str, MetricPair]  # by name; empty without labels
    primary: str | None  # the metric that counts most; None without labels
    outputs: dict[str, Agreement]
    warnings: list[str]


def compare_accuracy(
    paths: Sequence[str | Path],
    source: DataSource,
    config: DataConfig,
    task: TaskConfig | None = None,
    seed: int = 0,
    detection: DetectionConfig | None = None,
) -> Accuracy:
    """The metrics of two files on the whole test split of one source, and the agreement of the second with the first.

    Args:
        paths: two files with the same inputs and outputs; the data is prepared for the first one.
        source: the user's data, as ``--data`` takes it.
        config: how to prepare the data.
        task: what to measure; None: what labels and outputs suggest. Without labels, or with ``kind = "teacher"``,
            there is the agreement only.
        seed: chooses the test split if the source has none.
        detection: the recipe's ``[detection]``, for data with boxes.

    Raises:
        DataError: the data cannot be read, or does not fit.
        RecipeError: what to measure has to be stated.
        UsageError: the files have different inputs or outputs.
    """
    from edgeprune.data import data_errors, load_data
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session
    from edgeprune.tasks.task import evaluation_batch

    files, inputs, outputs = open_alike(paths)
    runtime = find_runtime()
    sessions = [
        Session(file.path, [port.signature for port in x], [port.signature for port in y], runtime=runtime)
        for file, x, y in zip(files, inputs, outputs, strict=True)
    ]
    with data_errors():
        data = load_data(source, config, files[0].input_spec(), seed=seed)
        tasks = [
            file_task(
                file,
                task or TaskConfig(),
                data,
                lambda x, s=session: s.run(arrays(x)),  # type: ignore[misc]
                ports,
                detection,
                entries,
            )
            for file, session, entries, ports in zip(files, sessions, inputs, outputs, strict=True)
        ]
        require_same_metrics(files, tasks)
        tallies = [Tally(one) for one in tasks] if tasks[0].task else []
        agreements, samples = Agreements(*tasks), 0
        for x, y, *w in data.test.batches(evaluation_batch(data.test.spec)):
            answers = [session.run(arrays(x)) for session in sessions]
            for tally, own in zip(tallies, answers, strict=bool(tallies)):
                tally.add(x, y, w[0] if w else (), own)
            agreements.add(*answers)
            samples += len(answers[0][0])
    for session in sessions:
        session.close()
    return _accuracy(tasks, tallies, agreements.result(), samples)


def _accuracy(
    tasks: Sequence[FileTask], tallies: Sequence[Tally], outputs: dict[str, Agreement], samples: int
) -> Accuracy:
    metrics: dict[str, MetricPair] = {}
    right = [tally.accuracy() for tally in tallies]
    figures = [tally.figures() for tally in tallies]
    task = tasks[0].task
    if task is not None:
        for name in figures[0]:
            metric = metric_of(task, name)
            metrics[name] = {
                "values": [one[name] for one in figures],
                "higher_is_better": metric.higher_is_better,
                "points": metric.points,
            }
    return {
        "accuracy": [one for one in right if one is not None] if right and None not in right else None,
        "samples": samples,
        "agreement": mean_agreement(outputs),
        "metrics": metrics,
        "primary": task.name if task else None,
        "outputs": outputs,
        "warnings": list(dict.fromkeys(warning for one in tasks for warning in one.warnings)),
    }


def arrays(x: Structure) -> list[np.ndarray]:
    """The inputs of a batch, in the model's order."""
    return [np.asarray(part) for part in (x if isinstance(x, tuple | list) else [x])]


def open_alike(paths: Sequence[str | Path]) -> tuple[list[File], list[tuple[Port, ...]], list[tuple[Port, ...]]]:
    """Files with the same inputs and outputs; of each, its inputs and outputs in the order of the first one's.

    Raises:
        UsageError: they have different inputs or outputs.
    """
    files = [File.of(path) for path in paths]
    require_same_inputs([file.path for file in files])
    inputs, outputs = ([matched(files[0], file, kind) for file in files] for kind in ("inputs", "outputs"))
    return files, inputs, outputs


def matched(first: File, other: File, kind: str) -> tuple[Port, ...]:
    """The inputs or outputs of ``other`` in the order of those of ``first``: by name, or where each has one only.

    Raises:
        UsageError: they do not correspond, or differ in shape.
    """
    mine: tuple[Port, ...] = getattr(first.interface, kind)
    theirs: tuple[Port, ...] = getattr(other.interface, kind)
    found = [next((port for port in theirs if {*port.names} & {*wanted.names}), None) for wanted in mine]
    ports = tuple(port for port in found if port is not None)
    if len(mine) == len(theirs) == 1:
        ports = theirs
    if len(ports) == len(mine) == len(theirs):
        pairs = zip(mine, ports, strict=True)
        if len({port.place for port in ports}) == len(ports) and all(
            a.tensor.shape[1:] == b.tensor.shape[1:] for a, b in pairs
        ):
            return ports
    a, b = (
        " and ".join(f"{port.names[0]} ({'x'.join(map(str, port.tensor.shape))})" for port in one)
        for one in (mine, theirs)
    )
    raise UsageError(
        f"The {kind} of {first.path.name} are {a}, and those of {other.path.name} are {b}.",
        expected=f"{kind} of the same names and shapes, as both files are measured by the same data.",
        fix="measure the files one at a time, or leave out --data.",
    )


def require_same_metrics(files: Sequence[File], tasks: Sequence[FileTask]) -> None:
    """Make sure that files are measured by the same metrics, as they may end in different ways.

    Raises:
        UsageError: they are not.
    """
    names = [[metric.name for metric in one.task.metrics] if one.task else [] for one in tasks]
    for file, own in zip(files, names, strict=True):
        if own != names[0]:
            raise UsageError(
                f"{files[0].path.name} is measured by {', '.join(names[0])}, and {file.path.name} by {', '.join(own)}.",
                expected="files of one task.",
                fix="name the metric in a recipe under [task], and give it with --recipe.",
            )


def require_same_inputs(paths: Sequence[Path]) -> None:
    """Make sure that data prepared for one file fits all of them.

    Raises:
        UsageError: their inputs differ in number or shape.
    """
    first, *others = [(path, _input_shapes(path)) for path in paths]
    for path, shapes in others:
        if shapes != first[1]:
            a, b = (" and ".join("x".join(map(str, shape)) for shape in one) for one in (first[1], shapes))
            raise UsageError(
                f"{first[0].name} takes {a}, and {path.name} takes {b}.",
                expected="inputs of one shape, as the data is prepared once for all files.",
                fix="measure the files one at a time, or leave out --data.",
            )


def _input_shapes(path: Path) -> tuple[tuple[int, ...], ...]:
    file = File.of(path)
    return tuple(file.graph.tensors[index].shape[1:] for index in file.graph.inputs)
