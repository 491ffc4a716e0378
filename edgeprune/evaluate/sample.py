"""Samples to run on a device and on this machine, for the metrics there and the difference between their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.evaluate.file_task import Agreements, File, FileTask, Tally, file_task, mean_agreement, metric_of
from edgeprune.files import JsonObject
from edgeprune.models.types import Structure
from edgeprune.recipe.config import TaskConfig

if TYPE_CHECKING:
    from edgeprune.recipe.config import DataConfig, DetectionConfig

SAMPLES = 200


@dataclass(frozen=True, eq=False)
class Sample:
    """A random part of a test split.

    Attributes:
        inputs: one array [n, ...] per input, in the order of the files, preprocessed.
        x: the same in the order of the data.
        labels, weights: as the source has them; ``()``: none.
        tasks: how the outputs of each file are measured.
    """

    inputs: tuple[np.ndarray, ...]
    x: Structure
    labels: Structure
    weights: Structure
    tasks: Mapping[Path, FileTask]

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.inputs[0])

    @property
    def warnings(self) -> list[str]:
        """About the figures of the files."""
        return list(dict.fromkeys(warning for one in self.tasks.values() for warning in one.warnings))

    def write(self, path: Path) -> None:
        """Write the inputs as an .npz of arrays x0, x1, …, which the runner reads."""
        np.savez(path, **{f"x{index}": values for index, values in enumerate(self.inputs)})  # type: ignore[arg-type]


def load_sample(
    paths: Sequence[Path],
    source: Any,
    config: DataConfig,
    task: TaskConfig | None = None,
    seed: int = 0,
    detection: DetectionConfig | None = None,
) -> Sample:
    """At most 200 random samples of a source's test split.

    Args:
        paths: the .tflite files, with the same inputs and outputs; the data is prepared for the first one.
        source: the user's data, as ``--data`` takes it.
        config: how to prepare the data.
        task: what to measure; None: what labels and outputs suggest. Without labels, or with ``kind = "teacher"``, only
            the outputs here and there are compared.
        seed: chooses the samples, and the test split if the source has none.
        detection: the recipe's ``[detection]``, for data with boxes.

    Raises:
        DataError: the data cannot be read, or does not fit.
        RecipeError: what to measure has to be stated.
        UsageError: the files have different inputs or outputs.
    """
    from edgeprune.data import data_errors, load_data
    from edgeprune.evaluate.files import arrays, open_alike, require_same_metrics

    files, inputs, outputs = open_alike(paths)
    with data_errors():
        data = load_data(source, config, files[0].input_spec(), seed=seed)
        tasks = [
            file_task(file, task or TaskConfig(), data, _predict(file, x, y), y, detection, x)
            for file, x, y in zip(files, inputs, outputs, strict=True)
        ]
        require_same_metrics(files, tasks)
        # Many sources are sorted by class, so the first samples would all be of one.
        indices = np.random.default_rng(seed).permutation(data.test.size)[:SAMPLES]
        # In one batch, so that inputs and labels match, whatever order the source gives them in.
        x, y, *w = next(iter(data.test.batches(SAMPLES, indices=indices)))
    places = [port.place for port in inputs[0]]
    parts = arrays(x)
    return Sample(
        tuple(parts[places.index(place)] for place in range(len(places))),
        x,
        y,
        w[0] if w else (),
        {file.path: one for file, one in zip(files, tasks, strict=True)},
    )


def _predict(file: File, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """What a file answers here; nothing but zeros, if it was compiled for an accelerator and runs only there."""
    from edgeprune.evaluate.files import arrays
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session
    from edgeprune.tflite.versions import compiled_operators

    if compiled_operators(file.graph):
        return lambda x: [np.zeros((len(arrays(x)[0]), *p.tensor.shape[1:]), np.float32) for p in outputs]
    names = ([port.signature for port in ports] for ports in (inputs, outputs))

    def run(x: Structure) -> list[np.ndarray]:
        session = Session(file.path, *names, runtime=find_runtime())
        try:
            return session.run(arrays(x))
        finally:
            session.close()

    return run


def host_outputs(file: Path, sample: Sample) -> list[np.ndarray]:
    """Outputs of a file on this machine, by the same code that runs on the device."""
    from edgeprune.runtime.interpreter import INTERPRETER

    return INTERPRETER.call(_run_samples, file, sample.inputs)


def _run_samples(file: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.runner import run_samples

    return run_samples(find_runtime().interpreter(file), inputs)


def compare_outputs(
    device: Sequence[np.ndarray], host: Sequence[np.ndarray] | None, sample: Sample, file: Path
) -> JsonObject:
    """The metrics on the device and on this machine, and the difference between their outputs.

    Args:
        device: outputs on the device, float32 [n, ...], in the order of the file.
        host: the same on this machine; None if the file does not run here.
        sample: that was run.
        file: that was run.

    Returns:
        samples; metric {name, value, host_value}: the one that counts most, None without labels; metrics: all of them,
        by name {value, host_value, higher_is_better, points}; accuracy, host_accuracy (fractions) and top1_agreement
        (fraction of samples with the same class) of the output of that metric, None where it does not give one of
        several classes; agreement: mean over the outputs; outputs: per output {agreement, max_abs_difference};
        max_abs_error (of all outputs). What needs ``host`` is None without it.
    """
    measured = sample.tasks[file]
    sides = [None if outputs is None else [outputs[place] for place in measured.places] for outputs in (device, host)]
    result: JsonObject = {"samples": sample.size, **_measured(measured, sample, sides)}
    here, there = sides[1], sides[0]
    if here is None or there is None:
        return {**result, "top1_agreement": None, "agreement": None, "outputs": None, "max_abs_error": None}
    agreements = Agreements(measured, measured)
    agreements.add(here, there)
    found = agreements.result()
    primary = measured.primary
    return {
        **result,
        "top1_agreement": None if primary is None or not measured.gives_classes(primary)
        else found[measured.names[primary]]["agreement"],
        "agreement": mean_agreement(found),
        "outputs": found,
        "max_abs_error": max(one["max_abs_difference"] for one in found.values()),
    }  # fmt: skip


def _measured(measured: FileTask, sample: Sample, sides: Sequence[Sequence[np.ndarray] | None]) -> JsonObject:
    """The figures of the device and of this machine."""
    task = measured.task
    if task is None:
        return {"metric": None, "metrics": {}, "accuracy": None, "host_accuracy": None}
    figures: list[Mapping[str, float]] = []
    accuracies: list[float | None] = []
    for outputs in sides:
        tally = Tally(measured)
        if outputs is not None:
            tally.add(sample.x, sample.labels, sample.weights, outputs)
        figures.append(tally.figures() if outputs is not None else {})
        accuracies.append(tally.accuracy())
    there, here = figures
    metrics: dict[str, JsonObject] = {}
    for name, value in there.items():
        metric = metric_of(task, name)
        metrics[name] = {
            "value": value,
            "host_value": here.get(name),
            "higher_is_better": metric.higher_is_better,
            "points": metric.points,
        }
    return {
        "metric": {"name": task.name, **{key: metrics[task.name][key] for key in ("value", "host_value")}},
        "metrics": metrics,
        "accuracy": accuracies[0],
        "host_accuracy": accuracies[1],
    }
