"""Zeros without training, and what the stages share that refit a model to what it computed before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import Artifact, RefittedLayer
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import Config, ReconstructConfig, WeightsConfig
from edgeprune.stages.saving import with_model
from edgeprune.stages.sparse import for_sparse_inference

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data.split import Split
    from edgeprune.reconstruction.rounding import Grid
    from edgeprune.tasks.task import Task

_BATCH = 64
# Where a stage keeps the layers that an interrupted refit has solved.
REFIT = "refit"


class ZeroStageConfig(Config):
    """Which weights become zero, and how the others are refitted."""

    weights: WeightsConfig
    reconstruct: ReconstructConfig


@stage("data", "task", "seed")
def zero(artifact: Artifact, config: ZeroStageConfig, context: Context) -> Artifact:
    """Zero the weights that the others can best make up for, and refit those."""
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.models.rebuild import copy_model
    from edgeprune.prune.weights.engines import check
    from edgeprune.prune.weights.oneshot import zero_weights

    data, task = context.required()
    original, settings = context.read(artifact), for_sparse_inference(config.weights, artifact)
    pruned, ridge = copy_model(original), config.reconstruct.ridge
    batches = unlabelled(original, data.train, config.reconstruct.samples, context.seed)
    names = zero_weights(pruned, settings, batches, ridge=ridge, seed=context.seed, progress=context.progress)
    validation = {"pruned": evaluate_keras(pruned, data.validation, task)}
    before = pruned.get_weights()
    rows = refitted(original, pruned, batches, config.reconstruct, context)
    validation["reconstructed"] = evaluate_keras(pruned, data.validation, task)
    if undo_if_worse(pruned, before, validation, task, context):
        rows = []
    values = ", ".join(f"{name} {value:.4f}" for name, value in validation.items())
    context.progress.note(f"zeroed weights in {len(names)} layers; validation {task.metric}: {values}")
    return with_model(artifact, pruned, context).with_(
        zeros=check(pruned, names, settings), zeroed={"validation": validation, "refitted": rows}
    )


def undo_if_worse(
    model: tf_keras.Model, before: list[np.ndarray], validation: dict[str, float], task: Task, context: Context
) -> bool:
    """Undo a repair that makes validation worse: what went was not missed, and a fit to few samples has only made the
    others worse.

    Args:
        model: repaired; it gets its weights back.
        before: its weights.
        validation: the figures "pruned", before the repair, and "reconstructed"; the same where it is undone.

    Returns:
        Whether it was undone.
    """
    after = validation["reconstructed"]
    if math.isfinite(after) and not task.better(validation["pruned"], after):
        return False
    context.progress.note("the repair is left out: without it, validation is better")
    model.set_weights(before)
    validation["reconstructed"] = validation["pruned"]
    return True


def unlabelled(model: tf_keras.Model, split: Split, samples: int, seed: int) -> list[list[np.ndarray]]:
    """Some samples of a split without their labels, per batch the inputs in the order of the model."""
    from edgeprune.calibration import representative_indices
    from edgeprune.reconstruction.forward import in_order

    chosen = split.subset(representative_indices(split, samples, "stratified", seed))
    return [in_order(model, x) for x in chosen.inputs(min(_BATCH, -(-chosen.size // 2)))]


def refitted(
    original: tf_keras.Model,
    changed: tf_keras.Model,
    batches: Sequence[Sequence[np.ndarray]],
    config: ReconstructConfig,
    context: Context,
    kept: Mapping[str, np.ndarray] | None = None,
    grids: Mapping[str, Grid] | None = None,
) -> list[RefittedLayer]:
    """Refit ``changed`` in place, going on where an interrupted refit was; ``kept`` and ``grids`` as in
    :func:`edgeprune.reconstruction.refit.refit`. Then scale and shift its channels as ``config`` says, unless weights
    are on grids.

    Returns:
        What the report says about each layer.
    """
    from edgeprune.reconstruction.channel_scales import scale_channels
    from edgeprune.reconstruction.refit import refit

    rows = refit(
        original, changed, batches, kept,
        ridge=config.ridge, grids=grids, seed=context.seed, folder=context.folder / REFIT, progress=context.progress,
    )  # fmt: skip
    if config.match == "answers" and not grids:
        scaled = scale_channels(original, changed, batches, seed=context.seed, progress=context.progress)
        if scaled and scaled.damping is not None:
            context.progress.note(
                f"scaled and shifted channels: on samples left out of the fit, answers are {scaled.after:.3g} nats "
                f"from the unpruned model's, {scaled.before:.3g} before"
            )
    return [
        {"layer": row.layer, "before": row.before, "after": row.after, "seconds": row.seconds, "reason": row.reason}
        for row in rows
    ]
