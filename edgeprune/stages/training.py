"""Stages that train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.context import Context
from edgeprune.pipeline import Artifact, stage
from edgeprune.recipe import AugmentConfig, Config, DistillConfig, FinetuneConfig, WeightsConfig
from edgeprune.stages.saving import with_model
from edgeprune.stages.sparse import for_sparse_inference

if TYPE_CHECKING:
    from edgeprune.train.finetune import Lessons


class TrainingConfig(Config):
    """What every training stage depends on."""

    finetune: FinetuneConfig
    distill: DistillConfig | None
    augment: AugmentConfig


class WeightsStageConfig(TrainingConfig):
    weights: WeightsConfig


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
def weights(artifact: Artifact, config: WeightsStageConfig, context: Context) -> Artifact:
    """Zero weights while fine-tuning, and take the wrappers off."""
    from edgeprune.prune.schedule import final_epoch
    from edgeprune.prune.weights import check, engine_for
    from edgeprune.train.finetune import finetune, steps_per_epoch

    data, task = context.required()
    total_steps = config.finetune.epochs * steps_per_epoch(data, config.finetune)
    model, settings = context.load(artifact), for_sparse_inference(config.weights, artifact)
    engine = engine_for(model, settings)
    wrapped, names = engine.wrap(model, settings, total_steps, context.seed)
    history = finetune(
        wrapped,
        data,
        task,
        lessons(artifact, config, context),
        seed=context.seed,
        deterministic=context.deterministic,
        state_file=context.folder / "training.npz",
        progress=context.progress,
        callbacks=engine.callbacks(),
        first_eligible_epoch=final_epoch(config.weights, config.finetune.epochs),
    )
    stripped = engine.strip(wrapped)
    zeros = check(stripped, names, config.weights)
    return with_model(artifact, stripped, context).with_(training=history, zeros=zeros)


def lessons(artifact: Artifact, config: TrainingConfig, context: Context) -> Lessons:
    """The teacher is the model as it came."""
    from edgeprune.train.finetune import Lessons

    teacher = context.load(artifact, "teacher") if config.distill else None
    return Lessons(config.finetune, config.distill, config.augment, teacher)
