"""Training that makes small what pruning is to remove."""

from __future__ import annotations

from edgeprune.artifact import Artifact, PenaltyFacts, SparsifyFacts
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import SparsifyConfig
from edgeprune.stages.saving import with_model
from edgeprune.stages.training import TrainingConfig, train


class SparsifyStageConfig(TrainingConfig):
    """``finetune`` gives the optimizer; the epochs are those of ``sparsify``."""

    sparsify: SparsifyConfig


@stage("data", "task", "seed", "deterministic")
def sparsify(artifact: Artifact, config: SparsifyStageConfig, context: Context) -> Artifact:
    """Train with the recipe's penalties; the model that is saved has none."""
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.prune import penalties
    from edgeprune.train.finetune import compile_for_saving
    from edgeprune.train.replicas import replicated

    data, task = context.required()
    settings = config.sparsify
    with replicated(config.finetune):
        model = context.load(artifact)
        penalized = penalties.penalized(model, settings)
    before = penalties.values(model, settings)
    # The best epoch would often be the first, before the penalties have done anything.
    last = config.finetune.epochs
    history = train(penalized, artifact, config, context, first_eligible_epoch=last)
    compile_for_saving(model, task)
    after = penalties.values(model, settings)
    rows: list[PenaltyFacts] = [
        {"name": name, "weight": weight, "before": before[name], "after": after[name]}
        for name, weight in penalties.weights(settings).items()
    ]
    value = evaluate_keras(model, data.validation, task)
    shrunk = ", ".join(f"{row['name']} {row['before']:.4g} -> {row['after']:.4g}" for row in rows)
    context.progress.note(f"penalties {shrunk}; validation {task.metric}: {value:.4f}")
    facts: SparsifyFacts = {"penalties": rows, "epochs": config.finetune.epochs, "validation": value}
    return with_model(artifact, model, context).with_(training=history, sparsify=facts)
