"""Stages that train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.context import Context
from edgeprune.pipeline import Artifact, stage
from edgeprune.recipe import AugmentConfig, Config, DistillConfig, FinetuneConfig, MagnitudeConfig
from edgeprune.stages.saving import with_model
from edgeprune.stages.sparse import for_sparse_inference

if TYPE_CHECKING:
    from edgeprune.train.finetune import Lessons


class TrainingConfig(Config):
    """What every training stage depends on."""

    finetune: FinetuneConfig
    distill: DistillConfig | None
    augment: AugmentConfig


class MagnitudeStageConfig(TrainingConfig):
    magnitude: MagnitudeConfig


@stage("data", "task", "seed", "deterministic")
def finetune(artifact: Artifact, config: TrainingConfig, context: Context) -> Artifact:
    """Train the model as it is."""
    from edgeprune.train.finetune import finetune as train

    data, task = context.required()
    model = context.load(artifact)
    history = train(
        model,
        data,
        task,
        lessons(artifact, config, context),
        seed=context.seed,
        deterministic=context.deterministic,
        state_file=context.folder / "training.npz",
        progress=context.progress,
    )
    return with_model(artifact, model, context).with_(training=history)


@stage("data", "task", "seed", "deterministic")
def magnitude(artifact: Artifact, config: MagnitudeStageConfig, context: Context) -> Artifact:
    """Prune single weights while fine-tuning, and take the wrappers off."""
    from edgeprune.prune import magnitude as pruning
    from edgeprune.train.finetune import finetune, steps_per_epoch

    data, task = context.required()
    total_steps = config.finetune.epochs * steps_per_epoch(data, config.finetune)
    wrapped, names = pruning.wrap(context.load(artifact), for_sparse_inference(config.magnitude, artifact), total_steps)
    history = finetune(
        wrapped,
        data,
        task,
        lessons(artifact, config, context),
        seed=context.seed,
        deterministic=context.deterministic,
        state_file=context.folder / "training.npz",
        progress=context.progress,
        callbacks=pruning.callbacks(),
        first_eligible_epoch=pruning.final_epoch(config.magnitude, config.finetune.epochs),
    )
    stripped = pruning.strip(wrapped)
    zeros = pruning.check_sparsity(stripped, names, config.magnitude.sparsity)
    return with_model(artifact, stripped, context).with_(training=history, zeros=zeros)


def lessons(artifact: Artifact, config: TrainingConfig, context: Context) -> Lessons:
    """The teacher is the model as it came."""
    from edgeprune.train.finetune import Lessons

    teacher = context.load(artifact, "teacher") if config.distill else None
    return Lessons(config.finetune, config.distill, config.augment, teacher)
