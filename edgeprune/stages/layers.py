"""Removing whole residual blocks and layers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from edgeprune.artifact import Artifact, LayersFacts, RemovedBlock
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import Config, LayersConfig
from edgeprune.stages.saving import with_model

if TYPE_CHECKING:
    import tf_keras


class LayersStageConfig(Config):
    layers: LayersConfig


@stage("data", "task", "seed")
def layers(artifact: Artifact, config: LayersStageConfig, context: Context) -> Artifact:
    """Remove the least important blocks one after the other, each removal verified."""
    from edgeprune.calibration import representative_indices
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.prune.channels.blocks import BlockEvidence, prune_blocks

    data, task = context.required()
    settings = config.layers
    indices = representative_indices(data.train, settings.samples, "stratified", context.seed)

    @functools.lru_cache(maxsize=2)  # the model that blocks are taken from is the same for all of them
    def value(model: tf_keras.Model) -> float:
        return evaluate_keras(model, data.validation, task)

    def worsening(full: tf_keras.Model, short: tf_keras.Model) -> float:
        return task.drop(value(full), evaluate_keras(short, data.validation, task))

    evidence = BlockEvidence(lambda: data.train.subset(indices).batches(32), worsening)
    pruned, removals = prune_blocks(
        context.load(artifact),
        remove=settings.remove,
        max_macs=settings.max_macs,
        criterion=settings.criterion,
        evidence=evidence,
        protect=settings.protect,
    )
    rows: list[RemovedBlock] = [
        {
            "name": removal.block.name,
            "kind": removal.block.kind,
            "layers": list(removal.block.layers),
            "macs": removal.block.macs,
            "score": removal.score,
            "oracle_difference": removal.difference,
        }
        for removal in removals
    ]
    left = evaluate_keras(pruned, data.validation, task)
    names = ", ".join(row["name"] for row in rows)
    context.progress.note(f"removed {len(rows)} blocks ({names}); validation {task.metric}: {left:.4f}")
    facts: LayersFacts = {"criterion": settings.criterion, "removed": rows, "validation": left}
    return with_model(artifact, pruned, context).with_(layers=facts)
