"""Stages that train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.artifact import Artifact
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import AugmentConfig, Config, DistillConfig, FinetuneConfig, WeightsConfig
from edgeprune.stages.saving import with_model
from edgeprune.stages.sparse import for_sparse_inference

if TYPE_CHECKING:
    import tf_keras


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
    from edgeprune.train.replicas import replicated

    with replicated(config.finetune):
        model = context.load(artifact)
    history = train(model, artifact, config, context)
    return with_model(artifact, model, context).with_(training=history)


@stage("data", "task", "seed", "deterministic")
def weights(artifact: Artifact, config: WeightsStageConfig, context: Context) -> Artifact:
    """Zero weights while fine-tuning, and take the wrappers off."""
    from edgeprune.prune.weights.engines import check, engine_for
    from edgeprune.prune.weights.schedule import final_epoch
    from edgeprune.train.finetune import steps_per_epoch
    from edgeprune.train.replicas import replicated

    data, _ = context.required()
    total_steps = config.finetune.epochs * steps_per_epoch(data, config.finetune)
    settings = for_sparse_inference(config.weights, artifact)
    with replicated(config.finetune):
        model = context.load(artifact)
        engine = engine_for(model, settings)
        wrapped, names = engine.wrap(model, settings, total_steps, context.seed)
    history = train(
        wrapped,
        artifact,
        config,
        context,
        callbacks=engine.callbacks(),
        first_eligible_epoch=final_epoch(config.weights, config.finetune.epochs),
    )
    stripped = engine.strip(wrapped)
    zeros = check(stripped, names, config.weights)
    return with_model(artifact, stripped, context).with_(training=history, zeros=zeros)


def train(
    model: tf_keras.Model, artifact: Artifact, config: TrainingConfig, context: Context, **options: Any
) -> list[dict[str, float]]:
    """Train in place and resumably in the folder of the stage; the teacher is the model as it came.

    Args:
        options: of :func:`edgeprune.train.finetune.finetune`: what differs between the stages.

    Returns:
        The history, one entry per epoch.
    """
    from edgeprune.train.augmentation import settled
    from edgeprune.train.finetune import Lessons, finetune

    data, task = context.required()
    augment = settled(config.augment, data.train, task)
    if augment != config.augment and augment.shift:
        pixels = "a pixel" if augment.shift == 1 else f"{augment.shift} pixels"
        context.progress.note(f"moves training images by up to {pixels} at random")
    teacher = context.load(artifact, "teacher") if config.distill else None
    return finetune(
        model,
        data,
        task,
        Lessons(config.finetune, config.distill, augment, teacher),
        seed=context.seed,
        deterministic=context.deterministic,
        state_file=context.folder / "training.npz",
        progress=context.progress,
        **options,
    )
