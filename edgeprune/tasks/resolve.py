"""Decide the task of a model, per output: from the recipe, else as it was compiled, else by the rules of ``infer.py``.

What leaves two readings is asked for: an error that lists them with the lines to write. Nothing is dropped: a loss that
cannot be restored, or labels that a loss does not take, end the build before anything is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.guard import data_errors
from edgeprune.errors import DataError, RecipeError
from edgeprune.models.compiled import Compiled, CompiledOutput
from edgeprune.models.types import CustomObjects, Structure
from edgeprune.recipe.config import DetectionConfig, OutputTaskConfig, TaskConfig
from edgeprune.tasks import infer
from edgeprune.tasks.detection import detection_task
from edgeprune.tasks.given import Given
from edgeprune.tasks.infer import OutputFacts
from edgeprune.tasks.labels import LabelPlan, by_output
from edgeprune.tasks.output import OutputResolver
from edgeprune.tasks.task import Masks, Metric, Output, Task
from edgeprune.tasks.teacher import teacher_task

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data

PROBE = 64  # validation samples that outputs are looked at on


def resolve_task(
    model: tf_keras.Model,
    config: TaskConfig,
    data: Data,
    compiled: Compiled | None = None,
    objects: CustomObjects | None = None,
    detection: DetectionConfig | None = None,
) -> Task:
    """Decide losses and metrics of a Keras model.

    Args:
        model: as it came, functional.
        config: the recipe's ``[task]``.
        data: the source, whose labels have the form that the user gave them.
        compiled: what the model was compiled with; None: as the model says itself.
        objects: the user's own functions and classes by name.
        detection: the recipe's ``[detection]``, for data with boxes.

    Raises:
        RecipeError: the recipe does not fit the model, names what does not exist, or the task has to be stated.
        DataError: labels that do not fit the model or its loss.
    """
    import tensorflow as tf

    compiled = compiled or Compiled.of_model(model)
    if config.kind == "teacher":
        check_names(config, compiled.names)
        return teacher_task(model, data, [own[0] for own in compiled.names])

    def predict(x: Structure) -> list[np.ndarray]:
        return [np.asarray(value) for value in tf.nest.flatten(model(x, training=False))]

    if data.boxes is not None:
        check_names(config, compiled.names)
        firsts = [own[0] for own in compiled.names]
        return detection_task(
            config, detection, data, compiled.names, predict, lambda: teacher_task(model, data, firsts)
        )

    return resolve(
        config, data, compiled, objects or {}, predict, lambda values: infer.output_facts(model, values), _masks(model)
    )


def resolve(
    config: TaskConfig,
    data: Data,
    compiled: Compiled,
    objects: CustomObjects,
    predict: Callable[[Structure], list[np.ndarray]],
    facts_from: Callable[[list[np.ndarray]], list[OutputFacts]],
    masks: Masks | None = None,
) -> Task:
    """Decide losses and metrics of whatever makes outputs of inputs.

    Args:
        config, data, objects: as in :func:`resolve_task`.
        compiled: the names of the outputs, and what they were compiled with, if that is known.
        predict: a batch of inputs → one array [batch, ...] per output.
        facts_from: outputs of some samples → what each output is.
        masks: the task's, of a model that leaves padding out: weights per sample fit some metrics only with them.

    Raises:
        RecipeError, DataError: as :func:`resolve_task`.
    """
    check_names(config, compiled.names)
    if config.kind == "detection":
        raise RecipeError(
            f'[task] kind = "detection", but the data of {data.source} have no boxes.',
            expected="images/ beside instances*.json (COCO), annotations/*.xml (VOC) or labels/*.txt (YOLO).",
            fix='name such a folder; or, to use images without boxes, write [task] kind = "teacher".',
        )
    names = tuple(own[0] for own in compiled.names)
    targets = by_output(data.targets, compiled.names)
    if all(facts is None for facts in targets):
        raise DataError(
            f"The data of {data.source} has no labels.",
            expected="labels, which training and the metric need.",
            fix="to train against the unpruned model instead, and report agreement with it, write in the recipe:\n"
            '  [task]\n  kind = "teacher"',
        )
    sample = sample_of(data)
    outputs_seen = predict(sample[0])
    facts, many = facts_from(outputs_seen), len(names) > 1
    sole = sum(target is not None for target in targets) == 1
    resolved = [
        OutputResolver(
            Given(
                i,
                names[i],
                many,
                _with_void(_config_of(config, compiled.names[i]), data),
                facts[i],
                target,
                data,
                objects,
                compiled.outputs[i] if compiled.outputs else CompiledOutput(),
                was_compiled=compiled.outputs is not None,
            )
        ).output(sole)
        for i, target in enumerate(targets)
    ]
    outputs = _distinct(tuple(one.output for one in resolved))
    if all(output.loss is None for output in outputs):
        raise RecipeError(
            "No output has both labels and a loss.",
            expected="at least one, for training and the metric.",
            fix="name outputs of the model in the labels (a dict by output), or write [task] loss.",
        )
    plan = LabelPlan(
        compiled.names,
        tuple(one.change for one in resolved),
        tuple(one.class_weights for one in resolved),
        tuple(one.rows for one in resolved),
    )
    primary = _primary(outputs, config, many)
    task = Task(
        outputs,
        watched=(primary,),
        name=primary.name,
        prepare=_prepare(plan),
        warnings=tuple(warning for one in resolved for warning in one.warnings),
        masks=masks,
    )
    with data_errors():
        labelled = task.prepare(data).validation.relabelled(sample)
    _try(task, labelled, outputs_seen)
    return task


def check_names(config: TaskConfig, names: Sequence[Sequence[str]]) -> None:
    """Raise a RecipeError if the recipe has a section for an output that the model does not have."""
    unknown = set(config.outputs) - {name for own in names for name in own}
    if unknown:
        raise RecipeError(
            f"[task.outputs] has {', '.join(sorted(unknown))}; the model's outputs are: "
            f"{', '.join(own[0] for own in names)}.",
            fix="correct the name of the section.",
        )


def sample_of(data: Data) -> tuple[Structure, ...]:
    """A few samples of validation data: inputs, labels, and weights if there are any."""
    # In ascending order, which every source keeps, so that two calls give the same samples.
    indices = np.sort(np.random.default_rng(0).permutation(data.validation.size)[:PROBE])
    with data_errors():
        return data.validation.sample(indices)


def _config_of(config: TaskConfig, names: Sequence[str]) -> OutputTaskConfig:
    """What the recipe says of an output: its own section, else what holds for all."""
    own = next((config.outputs[name] for name in names if name in config.outputs), OutputTaskConfig())
    shared = {key: getattr(config, key) for key in OutputTaskConfig.model_fields}
    given = {key: value for key, value in own if value is not None}
    return OutputTaskConfig.model_construct(**{**shared, **given})


def _with_void(config: OutputTaskConfig, data: Data) -> OutputTaskConfig:
    """What does not count by the data does not count by the task."""
    return config if data.void is None else config.model_copy(update={"ignore": data.void})


def _distinct(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """The outputs, no two metrics of the same name: Keras puts "weighted" before the second."""
    seen: set[str] = set()

    def renamed(metric: Metric) -> Metric:
        name, number = metric.name, 2
        if name in seen and metric.weighted:
            head, dot, tail = name.rpartition(".")
            name = f"{head}{dot}weighted_{tail}"
        base = name
        while name in seen:
            name, number = f"{base}_{number}", number + 1
        seen.add(name)
        return dataclasses.replace(metric, name=name)

    return tuple(
        dataclasses.replace(output, metrics=tuple(renamed(metric) for metric in output.metrics)) for output in outputs
    )


def _primary(outputs: Sequence[Output], config: TaskConfig, many: bool) -> Metric:
    """The metric that choices go by: the one that the recipe names, else the first."""
    metrics = [metric for output in outputs for metric in output.metrics]
    if config.primary is None:
        return metrics[0]
    named = [metric for metric in metrics if config.primary in (metric.name, metric.name.rpartition(".")[2])]
    named += [metric for metric in metrics if many and outputs[metric.output].name == config.primary][:1]
    exact = [metric for metric in named if metric.name == config.primary]
    if len(exact or named) == 1 or (exact and many):
        return (exact or named)[0]
    raise RecipeError(
        f"[task] primary = {config.primary!r} names {'several metrics' if named else 'no metric of this model'}.",
        expected=f"one of: {', '.join(metric.name for metric in metrics)}.",
    )


def _prepare(plan: LabelPlan) -> Any:
    def prepare(data: Data) -> Data:
        training, judging = plan.relabel(training=True), plan.relabel(training=False)
        return dataclasses.replace(
            data,
            train=dataclasses.replace(data.train, relabel=training),
            validation=dataclasses.replace(data.validation, relabel=judging),
            test=dataclasses.replace(data.test, relabel=judging),
        )

    return prepare


def _masks(model: tf_keras.Model) -> Masks | None:
    """The padding of each output, as Keras carries it from Masking and Embedding layers to losses and metrics."""
    import tensorflow as tf

    if all(getattr(tensor, "_keras_mask", None) is None for tensor in model.outputs):
        return None

    # Of the whole model, the graph keeps what the masks need.
    @tf.function(reduce_retracing=True)
    def of_batch(x: Structure) -> list[Any]:
        outputs = tf.nest.flatten(model(x, training=False))
        masks = [getattr(output, "_keras_mask", None) for output in outputs]
        return [None if mask is None else tf.cast(mask, tf.float32) for mask in masks]

    return of_batch


def _try(task: Task, sample: tuple[Structure, ...], outputs: list[np.ndarray]) -> None:
    """Compute loss and metrics of a few samples, so that what cannot be computed is found before training.

    Raises:
        RecipeError: one of them cannot be, or is no single number.
    """
    x, y, *w = sample
    # The user's functions, and Keras' own with arguments that do not fit, fail in any way.
    try:
        task.loss_function()(y, outputs, *w)
    except Exception as error:
        raise RecipeError(
            f"The loss cannot be computed: {_said(error)}",
            expected="a loss of (labels, outputs) that fits the labels.",
            fix="check [task] loss, and the labels.",
        ) from error
    for metric in task.metrics:
        one = task.meter([metric])
        try:
            one.update(x, y, outputs, *w)
            figures = one.result()
        except Exception as error:
            raise RecipeError(
                f"The metric {metric.name!r} cannot be computed: {_said(error)}",
                expected="a metric of (labels, outputs) that fits the labels.",
                fix='check it, or name another one in the recipe under [task]: metric = "...".',
            ) from error
        if metric.name not in figures and metric in task.watched:
            raise RecipeError(
                f"The metric {metric.name!r} is {len(figures)} numbers, one per class.",
                expected="one number.",
                fix='set its average, for example [task] metric = { class = "F1Score", average = "macro" }.',
            )


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
