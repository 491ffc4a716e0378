"""What several stages need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgeprune.artifact import Artifact, ModelFacts
from edgeprune.context import Context

if TYPE_CHECKING:
    import tf_keras


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
        "input_shape": _shapes(model.inputs),
        "output_shape": _shapes(model.outputs),
    }
    # The model as it came teaches, and budgets are shares of it.
    return artifact.with_(
        {"teacher": path, **artifact.files, "model": path}, model=facts, original=artifact.facts.get("original", facts)
    )


def _shapes(tensors: list[Any]) -> Any:
    shapes = [json.loads(json.dumps(list(tensor.shape))) for tensor in tensors]
    return shapes[0] if len(shapes) == 1 else shapes
