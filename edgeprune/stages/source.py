"""Where the model comes from, and how good it is as it came."""

from __future__ import annotations

from edgeprune.artifact import Artifact
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.stages.saving import ROUNDED, with_model


@stage("model", "trust")
def load(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The user's model as a functional tf_keras model, compile information included."""
    from edgeprune.models.load import open_model
    from edgeprune.models.save import save_model

    opened = open_model(context.source, trust=context.trust.given, custom_objects=dict(context.trust.custom_objects))
    made = with_model(artifact, opened.model, context).with_(compiled_with=opened.compiled.to_json())
    if opened.rounded is None:
        return made
    path = context.folder / "rounded.keras"
    save_model(opened.rounded, path)
    context.progress.note("trained for int8 already: its int8 file keeps those ranges, unless it is pruned first")
    return made.with_({ROUNDED: path})


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
    from edgeprune.tasks.diagnosis import diagnose

    data, task = context.required()
    model = context.load(artifact)
    for output in task.to_json():
        context.progress.note(f"task of {output['name']}: {output['kind'] or output['loss']}, {output['origin']}")
    value = evaluate_keras(model, data.validation, task)
    warnings = [*task.warnings, *diagnose(model, data, task, value)]
    for warning in warnings:  # said before hours of training
        context.progress.note(warning)
    return artifact.with_(baseline={"validation": value, "warnings": warnings})
