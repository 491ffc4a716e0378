"""Lottery tickets: rounds that make a mask, and trainings of early weights under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import LotteryConfig, WeightsConfig
from edgeprune.stages.saving import with_model
from edgeprune.stages.training import TrainingConfig, train

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.prune.weights.masked import MaskedModel


class LotteryStageConfig(TrainingConfig):
    """One step of a lottery; ``finetune.epochs`` are the lottery's.

    Attributes:
        initial_hash: of the file with the initial weights, if there is one.
        round: from 1; of a step that makes a mask.
        control: train other random weights under the mask instead of the early ones.
    """

    lottery: LotteryConfig
    weights: WeightsConfig
    initial_hash: str | None
    round: int = 1
    control: bool = False


@stage("data", "task", "seed", "deterministic", "trust")
def ticket(artifact: Artifact, config: LotteryStageConfig, context: Context) -> Artifact:
    """Train, and rank what was learned: the artifact's model stays, and a mask is added.

    The first round trains from the initial weights and keeps the early ones; later rounds train from these, under the
    mask so far.
    """
    from edgeprune.prune.weights import lottery
    from edgeprune.prune.weights.masked import masked_model
    from edgeprune.train.replicas import replicated

    early, rewind = context.folder / "early.npz", config.lottery.rewind
    first = config.round == 1
    if first:
        with replicated(config.finetune):
            start = _initial(artifact, config, context)
            model = masked_model(start, _names(start, config), config.weights.criterion)
        if rewind == 0:
            lottery.save_arrays(start.get_weights(), early)
    else:
        model, early = _rewound(artifact, config, context), artifact.files["early"]
    callbacks = [lottery.save_at(rewind, early)] if first and rewind else []
    start = 0 if first else rewind
    history = train(model, artifact, config, context, start_epoch=start, callbacks=callbacks)
    sparsity = lottery.round_sparsity(config.weights, config.round, config.lottery.rounds)
    masks = lottery.next_masks(model, config.weights, sparsity)
    lottery.save_arrays(masks, context.folder / "masks.npz")
    kept = sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)
    context.progress.note(f"round {config.round} of {config.lottery.rounds}: the mask keeps {kept:.1%} of the weights")
    files = {"early": early, "masks": context.folder / "masks.npz"}
    return artifact.with_(files, lottery={"round": config.round, "kept": kept, "training": history})


@stage("data", "task", "seed", "deterministic", "trust")
def retrain(artifact: Artifact, config: LotteryStageConfig, context: Context) -> Artifact:
    """Train the early weights under the mask; or, as the control, other random ones."""
    from edgeprune.prune.weights.engines import check
    from edgeprune.prune.weights.masked import strip

    model, start = _rewound(artifact, config, context), 0 if config.control else config.lottery.rewind
    history = train(model, artifact, config, context, start_epoch=start)
    stripped = strip(model)
    zeros = check(stripped, _names(stripped, config), config.weights)
    return with_model(artifact, stripped, context).with_(training=history, zeros=zeros)


def _initial(artifact: Artifact, config: LotteryStageConfig, context: Context) -> tf_keras.Model:
    """The model before training: as the user kept it, or from its initializers."""
    from edgeprune.prune.weights import lottery

    model = context.load(artifact)
    if config.lottery.initial and not config.control:
        return lottery.load_initial(config.lottery.initial, model, context.trust.given)
    seed = int(np.random.SeedSequence([context.seed, 3, int(config.control)]).generate_state(1)[0])
    return lottery.reinitialized(model, seed)


def _rewound(artifact: Artifact, config: LotteryStageConfig, context: Context) -> MaskedModel:
    """The early weights (the control: other random ones) under the mask that was found."""
    from edgeprune.prune.weights import lottery
    from edgeprune.prune.weights.masked import masked_model
    from edgeprune.train.replicas import replicated

    with replicated(config.finetune):
        start = _initial(artifact, config, context) if config.control else context.load(artifact)
        if not config.control:
            start.set_weights(lottery.load_arrays(artifact.files["early"]))
        model = masked_model(start, _names(start, config), config.weights.criterion)
    model.set_masks(lottery.load_arrays(artifact.files["masks"]))
    return model


def _names(model: tf_keras.Model, config: LotteryStageConfig) -> list[str]:
    from edgeprune.prune.weights.kernels import selected

    return selected(model, config.weights)
