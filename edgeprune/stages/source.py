"""Where the model comes from, and how good it is as it came."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from edgeprune.artifact import Artifact, FrontFacts, ImportedFacts, SizesFacts
from edgeprune.context import Context
from edgeprune.files import copy_file
from edgeprune.pipeline import stage
from edgeprune.stages.saving import IMPORTED, ROUNDED, with_model

if TYPE_CHECKING:
    import tf_keras

# The role of a model whose inputs have open sizes, which no stage but ``fix_sizes`` reads.
OPEN = "open"
# The role of the part of the model that stays on the host.
FRONT = "front"


@stage("model", "trust", "asked_shape")
def load(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The user's model as a functional tf_keras model, compile information included."""
    from edgeprune.models.load import open_model
    from edgeprune.models.save import save_model
    from edgeprune.models.sizes import Inputs

    opened = open_model(
        context.source,
        trust=context.trust.given,
        custom_objects=dict(context.trust.custom_objects),
        input_shape=context.asked_shape,
    )
    artifact = artifact.with_(compiled_with=opened.compiled.to_json())
    if opened.imported:
        for note in opened.imported.notes:
            context.progress.note(note)
        copy_file(Path(str(context.source)), context.folder / "imported.tflite")
        facts = cast(ImportedFacts, opened.imported.to_dict())
        artifact = artifact.with_({IMPORTED: context.folder / "imported.tflite"}, imported=facts)
    if opened.front:
        opened.front.save(context.folder / "front.keras")
        on_host: FrontFacts = {"layers": list(opened.front.layers), "inputs": list(opened.front.names)}
        artifact = artifact.with_({FRONT: context.folder / "front.keras"}, front=on_host)
    if Inputs.of(opened.model).open:
        path = context.folder / "model.keras"
        save_model(opened.model, path)
        artifact = artifact.with_({OPEN: path})
    else:
        artifact = with_model(artifact, opened.model, context)
    return artifact if opened.rounded is None else _with_rounded(artifact, opened.rounded, context)


def _with_rounded(artifact: Artifact, rounded: tf_keras.Model, context: Context) -> Artifact:
    from edgeprune.models.save import save_model

    path = context.folder / "rounded.keras"
    save_model(rounded, path)
    if IMPORTED not in artifact.files:
        context.progress.note("trained for int8 already: its int8 file keeps those ranges, unless it is pruned first")
    return artifact.with_({ROUNDED: path})


@stage("input_shape")
def fix_sizes(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The model rebuilt for the sizes that the user or the data gave to its open inputs."""
    from edgeprune.models.shapes import shapes_with_batch
    from edgeprune.models.sizes import with_sizes

    model = context.read(artifact, OPEN)
    shapes, origin = context.input_shape
    context.progress.note(f"input {', '.join('x'.join(map(str, shape)) for shape in shapes)}, from {origin}")
    sized = with_sizes(model, shapes)
    facts: SizesFacts = {"given_shape": shapes_with_batch(model.inputs), "sizes_from": origin}
    made = with_model(artifact, sized, context).with_(sizes=facts)
    if ROUNDED not in artifact.files:
        return made
    return _with_rounded(made, with_sizes(context.read(artifact, ROUNDED), shapes), context)


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
    model = context.read(artifact)
    for output in task.to_json():
        what = output["kind"] or output["loss"] or "none"
        context.progress.note(f"task of {output['name']}: {what}, {output['origin']}")
    value = evaluate_keras(model, data.validation, task)
    warnings = [*task.warnings, *diagnose(model, data, task, value)]
    for warning in warnings:  # said before hours of training
        context.progress.note(warning)
    return artifact.with_(baseline={"validation": value, "warnings": warnings})
