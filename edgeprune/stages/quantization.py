"""Stages that train for quantization: shared weights, and the rounding of int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import Artifact, Facts
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import CalibrationConfig, ClusterConfig
from edgeprune.stages.conversion import representative
from edgeprune.stages.saving import with_model
from edgeprune.stages.training import TrainingConfig, train

if TYPE_CHECKING:
    from edgeprune.quantize.qat import Preserved

_BATCH = 32


class ClusterStageConfig(TrainingConfig):
    cluster: ClusterConfig


class QatStageConfig(TrainingConfig):
    calibration: CalibrationConfig  # the samples that the first ranges come from


@stage("data", "task", "seed", "deterministic")
def cluster(artifact: Artifact, config: ClusterStageConfig, context: Context) -> Artifact:
    """Share the weights of each layer among few values, and train these values."""
    from edgeprune.quantize.cluster import cluster as share
    from edgeprune.quantize.prepare import prepare
    from edgeprune.quantize.qat import share_weights
    from edgeprune.quantize.structure import count_clusters, count_zeros
    from edgeprune.train.replicas import replicated

    pruned = bool(artifact.facts.get("zeros"))
    with replicated(config.finetune):
        prepared = prepare(context.load(artifact))
        kept = share(prepared, config.cluster, zeros=pruned, seed=context.seed)
        trainee = share_weights(prepared, kept)
    history = train(trainee.model, artifact, config, context)
    baked = trainee.baked()
    clusters = count_clusters(baked, kept)
    most = max(row["distinct"] for row in clusters)
    context.progress.note(f"{len(clusters)} layers share {most} weights or fewer each")
    shared = with_model(artifact, baked, context).with_(training=history, clusters=clusters)
    return shared.with_(zeros=count_zeros(baked, list(kept))) if pruned else shared


@stage("data", "task", "seed", "deterministic")
def qat(artifact: Artifact, config: QatStageConfig, context: Context) -> Artifact:
    """Train with the rounding of the int8 file; zeros and clusters that came before are preserved.

    A model that has no use for it is handed on as it is, with a warning that says why: its int8 file is then made by
    post-training quantization.
    """
    from edgeprune.quantize.qat import Preserved, prepare_training, refusal
    from edgeprune.quantize.structure import count_clusters, count_zeros
    from edgeprune.train.replicas import replicated

    model = context.load(artifact)
    if reason := refusal(model):
        warning = f"Not trained for int8, but quantized after training: {reason}."
        context.progress.note(warning)
        return artifact.with_(qat={"applied": False, "reason": reason}, training=[], warnings=[warning])
    clustered = tuple(row["layer"] for row in artifact.facts.get("clusters", []))
    preserve = Preserved(bool(artifact.facts.get("zeros")), clustered)
    data, _ = context.required()
    _, calibration = representative(model, config.calibration, context)
    batches = data.train.inputs(_BATCH, indices=np.asarray(calibration["indices"]))
    with replicated(config.finetune):
        trainee = prepare_training(model, batches, preserve)
    history = train(trainee.model, artifact, config, context)
    baked = trainee.baked()
    pruned = [name for name, structure in trainee.kept.items() if structure.mask is not None]
    facts: Facts = {
        "qat": {"applied": True, "preserved": _names(preserve)},
        "calibration": calibration,
        "training": history,
    }
    if preserve.zeros:
        facts["zeros"] = count_zeros(baked, pruned)
    if preserve.clustered:
        facts["clusters"] = count_clusters(baked, trainee.kept)
    return with_model(artifact, baked, context).with_(**facts)


def _names(preserve: Preserved) -> list[str]:
    kept = {"zeros": preserve.zeros, "clusters": bool(preserve.clustered)}
    return [name for name, is_kept in kept.items() if is_kept]
