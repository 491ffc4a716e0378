"""Saving the model that a stage made, with its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.artifact import Artifact, ModelFacts
from edgeprune.context import Context
from edgeprune.models.shapes import shapes_with_batch

if TYPE_CHECKING:
    import tf_keras


# The model as it came, with the rounding that it was trained with for int8: until the model is changed.
ROUNDED = "rounded"
# The scores of the model's channels, by group.
SCORES = "scores"
# The .tflite that the model was read from, whose metadata its files get.
IMPORTED = "imported"


def with_model(artifact: Artifact, model: tf_keras.Model, context: Context) -> Artifact:
    """The artifact with this model, saved and counted."""
    from edgeprune.models.count import count
    from edgeprune.models.save import save_model

    path = context.folder / "model.keras"
    save_model(model, path)
    counts = count(model)
    facts: ModelFacts = {
        "params": counts.params,
        "macs": counts.macs,
        "input_shape": shapes_with_batch(model.inputs),
        "output_shape": shapes_with_batch(model.outputs),
    }
    # The first model that is saved is the teacher of distillation, and budgets are fractions of its counts.
    files = {"teacher": path, **artifact.files, "model": path}
    for role in (ROUNDED, SCORES):  # of the model before
        files.pop(role, None)
    return Artifact(files, artifact.facts).with_(model=facts, original=artifact.facts.get("original", facts))
