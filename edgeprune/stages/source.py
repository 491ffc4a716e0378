"""Where the model comes from, and how good it is as it came."""

from __future__ import annotations

from edgeprune.artifact import Artifact
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.stages.saving import with_model


@stage("model", "trust")
def load(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The user's model as a functional tf_keras model, compile information included."""
    from edgeprune.models.load import open_model

    opened = open_model(context.source, trust=context.trust.given, custom_objects=dict(context.trust.custom_objects))
    return with_model(artifact, opened.model, context).with_(compiled_with=opened.compiled.to_json())


@stage("seed", "deterministic")
def demo(artifact: Artifact, config: None, context: Context) -> Artifact:
    """A small CNN trained on handwritten digits on the spot."""
    from edgeprune.data.demo import train_demo_model

    context.progress.note("no model given: training a small CNN on handwritten digits")
    return with_model(artifact, train_demo_model(context.seed), context)


@stage("data", "task")
def baseline(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The model as it came, measured on validation data."""
    from edgeprune.evaluate.accuracy import evaluate_keras

    data, task = context.required()
    value = evaluate_keras(context.load(artifact), data.validation, task)
    warnings = list(task.warnings)
    if task.classes and task.points == 100.0 and value < 1.5 / task.classes:
        warnings.append(
            f"The model's validation {task.metric} as it came is {value:.1%}, near chance for {task.classes} classes. "
            "The likely cause is preprocessing ([data] scale, mean, std: does the model expect pixels of 0..255, 0..1 "
            "or -1..1?) or the order of the classes (folders are taken in alphabetical order)."
        )
    return artifact.with_(baseline={"validation": value, "warnings": warnings})
